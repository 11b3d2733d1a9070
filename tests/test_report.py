import base64
import io
import json
import re

import numpy as np
import pytest
from fake_results import fake_result, fake_set
from PIL import Image

from klip_jax import comparison, figures, report, results
from klip_jax.evaluation import evaluate

BARE = dict(truth=None, mask=None, eligible=None, body=None)


def write(workdir, images, **settings):
    """Write a workdir of `images` and its report; return the text of the page."""
    for image in images:
        results.write_image(workdir, image)
    results.write_metrics(workdir, evaluate(results.read_images(workdir), 4))
    settings = dict(title="a run", facts={"noise": "0.1"}) | settings
    return report.write_report(workdir, **settings).read_text()


@pytest.fixture
def quick(monkeypatch):
    """Replace the pictures by a few bytes where only the page is asked about."""
    for name in ("image_figure", "roc_figure", "density_figure"):
        monkeypatch.setattr(figures, name, lambda *args, **settings: b"png")


def opened(png):
    return Image.open(io.BytesIO(png))


def test_page_and_figures(tmp_path):
    page = write(tmp_path, fake_set(1))
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    images = {f"image_{g}_{i:03d}.png" for g in ("id", "lesion") for i in range(1)}
    assert names == images | {"roc.png", "density.png"}
    inline = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(inline) == 2 + 2
    assert max(len(base64.b64decode(i)) for i in inline) < 60_000
    # One page without a network: nothing is loaded, nothing runs.
    assert not re.search(r"<script|<link|https?://|@import|url\(", page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(
        re.findall(r'id="([^"]+)"', page)
    )
    for said in ("position template", "ours minus theirs", "p &lt; 0.05", "whole body"):
        assert said in page
    assert "energy of the noise (median;" in page and "geometry" not in page


@pytest.mark.parametrize(("misfit", "said"), [(9.0, "geometry"), (0.1, "is larger")])
def test_data_that_do_not_fit_are_named(tmp_path, quick, misfit, said):
    page = write(tmp_path, fake_set(2, misfit=misfit))
    assert said in page
    without = write(tmp_path, fake_set(2, misfit=None))
    assert "energy of the noise" not in without


def test_hostile_text_is_escaped(tmp_path):
    hostile = '<script>alert("x")</script>$\\frac{'
    images = [fake_result("id_0"), fake_result("x_0", hostile)]
    page = write(tmp_path, images, title=hostile, facts={hostile: hostile})
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_measurements_without_truth(tmp_path):
    page = write(tmp_path, fake_set(1, ("",), **BARE))
    assert "PSNR: the true images are not known." in page
    assert "1 of unknown group" in page
    assert "Beside the controls" not in page
    assert not (tmp_path / "figures" / "roc.png").exists()


def test_failed_images_are_shown_as_such(tmp_path):
    nan = np.full((32, 32), np.nan)
    bad = fake_result("bad", "lesion", heatmap=nan, mean=nan[..., None])
    bad = bad._replace(score=np.nan, stderr=np.nan, p_value=np.nan, first_bad_step=7)
    page = write(tmp_path, [bad])
    assert "1 failed" in page and "not finite from step 7" in page


def test_empty_run(tmp_path):
    assert "0 images" in write(tmp_path, [])


@pytest.mark.parametrize(("order", "first"), [("score", "b_2"), ("name", "a_1")])
def test_order(tmp_path, quick, order, first):
    images = [fake_result(n)._replace(score=s) for n, s in [("a_1", 1.0), ("b_2", 2.0)]]
    page = write(tmp_path, images, order=order)
    assert re.findall(r'<figure id="image-([^"]+)"', page)[0] == first
    with pytest.raises(ValueError, match="order='size'"):
        report.write_report(tmp_path, title="", facts={}, order="size")


def test_of_many_images_some_are_on_the_page(tmp_path, monkeypatch, quick):
    monkeypatch.setattr(report, "ALL", 4)
    monkeypatch.setattr(report, "MOST", 2)
    monkeypatch.setattr(report, "FEW", 2)
    images = [fake_result(f"id_{i}")._replace(score=float(i)) for i in range(4)]
    images += [fake_result(f"x_{i}", "x")._replace(score=9.0 + i) for i in range(3)]
    page = write(tmp_path, images)
    shown = re.findall(r'<figure id="image-([^"]+)"', page)
    assert shown == ["x_2", "x_1", "id_3", "id_0"]
    assert 'href="figures/image_x_0.png"' in page
    assert len(list((tmp_path / "figures").glob("image_*"))) == 7


def test_finish_makes_everything_from_the_images(tmp_path, quick):
    for image in fake_set(2):
        results.write_image(tmp_path, image)
    config = dict(
        estimator=dict(block=4, window=(0.1, 1.0)),
        calibration=dict(per_position=False),
        operator=dict(name="ct.ParallelBeam", views=24),
    )
    record = dict(config=config, versions=dict(jax="1.2.3"), git="")
    (tmp_path / "config.json").write_text(json.dumps(record))
    metrics, page = report.finish(tmp_path)
    assert metrics == results.read_metrics(tmp_path)
    assert (tmp_path / "scores.csv").read_text().count("\n") == 5
    assert "name ct.ParallelBeam, views 24" in page.read_text()
    assert "1.2.3" in page.read_text()


def test_verdict_says_who_wins_and_whether_it_is_settled():
    def metrics(difference, wins):
        control = {
            "localization_auroc": {"value": 0.72, "low": 0.6, "high": 0.8},
            "difference_localization": difference,
        }
        return {
            "localization_auroc": {"value": 0.69, "low": 0.6, "high": 0.8},
            "controls": {"position_template": control},
            "control_wins": {"localization": wins},
        }

    interval = {"value": -0.03, "low": -0.05, "high": -0.01}
    lost = comparison.verdict(metrics(interval, ["position_template"]), "localization")
    assert lost == (
        "Localization: position template beats the map (0.72 against 0.69; ours minus "
        "theirs \N{MINUS SIGN}0.03 [\N{MINUS SIGN}0.05, \N{MINUS SIGN}0.01]).",
        True,
    )
    open_ = {"value": 0.01, "low": -0.05, "high": 0.05}
    sentence, lost = comparison.verdict(metrics(open_, []), "localization")
    assert not lost and sentence.endswith("these images do not settle it.")
    assert comparison.verdict({"controls": {}}, "detection") == ("", False)


def test_color_limits_are_robust_and_symmetric_if_signed():
    spike = np.zeros((32, 32))
    spike[:16] = 1
    spike[0, 0] = 1000
    assert figures.color_limits([fake_result(heatmap=spike)]) == (0, 1)
    signed = np.random.default_rng(0).normal(size=(32, 32))
    low, high = figures.color_limits([fake_result(heatmap=signed)])
    assert low == -high and 2 < high < 4
    for empty in (np.zeros((32, 32)), np.full((32, 32), np.nan)):
        assert figures.color_limits([fake_result(heatmap=empty)]) == (0, 1)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 2), (48, 64, 3)])
def test_image_figure_of_any_shape(shape):
    heatmap = np.linspace(-1, 1, shape[0] * shape[1]).reshape(shape[:2])
    images = dict.fromkeys(("mean", "naive", "truth"), np.zeros(shape))
    result = fake_result(heatmap=heatmap, mask=heatmap > 0.9, **images)
    with_truth = opened(figures.image_figure(result))
    result.arrays.pop("truth")
    assert opened(figures.image_figure(result)).width < with_truth.width


def test_roc_needs_both_sides():
    with pytest.raises(ValueError, match="group 'id'"):
        figures.roc_figure(fake_set(2, ("lesion",)))


def test_plus_minus():
    assert figures.plus_minus(12.3456, 0.4567) == "12.35 \N{PLUS-MINUS SIGN} 0.46"
    assert figures.plus_minus(1234.5, 45.6) == "1234 \N{PLUS-MINUS SIGN} 46"
    assert figures.plus_minus(1.5, 0) == "1.5"
    assert figures.plus_minus(float("nan"), 1) == "nan"
