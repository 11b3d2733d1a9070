import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from fake_results import DETECTORS, data_of, fake_image, fake_set, write
from PIL import Image

from klip_jax.report import (
    canvas,
    density,
    figures,
    finish,
    page,
    pictures,
    roc,
    verdict,
)
from klip_jax.report.evaluate import evaluate
from klip_jax.report.finish import scores_csv, write_report
from klip_jax.report.table import read_table
from klip_jax.report.text import plus_minus, where_it_broke


def report(folder, images, *, order="score", without_data=False, **settings):
    """Write a run of `images` and its report; return the text of the page."""
    store, data = write(folder / "a_run", images, **settings)
    data = None if without_data else data
    return write_report(store, data, evaluate(store, data), order=order).read_text()


@pytest.fixture
def drawn(monkeypatch):
    """Replace the pictures by a few bytes; count how often one was drawn."""
    said = []

    def draw(*args, **settings):
        said.append(args)
        return b"\x89PNG" + bytes(40)

    for module, name in (
        (figures, "image_figure"),
        (roc, "roc_figure"),
        (density, "density_figure"),
    ):
        monkeypatch.setattr(module, name, draw)
    return said


def test_page_and_figures(tmp_path):
    text = report(tmp_path, fake_set(1))
    names = {p.name for p in (tmp_path / "a_run" / "figures").iterdir()}
    images = {f"image_{group}_000.png" for group in ("id", "lesion")}
    assert names == images | {"roc.png", "density_klip.png"}
    inline = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(inline) == 2 + 2
    assert max(len(base64.b64decode(i)) for i in inline) < 60_000
    for png in inline:
        Image.open(io.BytesIO(base64.b64decode(png))).load()
    # One page without a network: nothing is loaded, nothing runs.
    assert not re.search(r"<script|<link|https?://|@import|url\(", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(
        re.findall(r'id="([^"]+)"', text)
    )
    for said in ("position template", "klip minus this", "p &lt; 0.05", "whole body"):
        assert said in text
    assert "energy of the noise (median;" in text and "geometry" not in text
    assert "klip/tilt" in text and "klip/density" not in text


def test_names_come_from_the_run(tmp_path, drawn):
    """Nothing on the page, nor in its files, knows what a detector is called."""
    text = report(tmp_path, fake_set(4), main="gradient")
    assert "gradient minus this" in text
    assert "the map of gradient" in text
    assert not re.search("KLIP", text)


@pytest.mark.parametrize(("misfit", "said"), [(9.0, "geometry"), (0.1, "is larger")])
def test_data_that_do_not_fit_are_named(tmp_path, drawn, misfit, said):
    images = [image | {"misfit": misfit} for image in fake_set(2)]
    assert said in report(tmp_path, images)


def test_hostile_text_is_escaped(tmp_path, drawn):
    hostile = '<script>alert("x")</script>$\\frac{'
    images = [fake_image("id_0"), fake_image("x_0", hostile)]
    images[0]["image_id"] = hostile
    detectors = {"klip": DETECTORS["klip"] | {"unit": hostile}}
    text = report(tmp_path, images, detectors=detectors)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4
    assert (tmp_path / "a_run" / "figures" / "image_~0.png").is_file()


def test_hostile_text_is_drawn(tmp_path):
    hostile = '<script>alert("x")</script>$\\frac{'
    images = [fake_image("id_0"), fake_image("x_0", hostile, size=8)]
    store, _ = write(tmp_path / "run", [fake_image("id_0"), fake_image("x", hostile)])
    assert roc.roc_figure(read_table(store), np.ones(2, bool))[:4] == b"\x89PNG"
    shown = pictures._shown(store, read_table(store), data_of(images[:1]), 0, [])
    shown = shown._replace(image_id=hostile, heatmaps={hostile: np.eye(32)})
    assert figures.image_figure(shown, unit=hostile)[:4] == b"\x89PNG"


def test_images_that_the_main_detector_keeps_are_shown(tmp_path):
    image = fake_image("id_0")
    kept = {"guided": image["images"] / 2, "input": image["images"]}
    kept["inverted"] = np.zeros((4, 4, 1))  # a latent is no picture
    image["arrays"] |= {f"klip/{name}": array for name, array in kept.items()}
    about = {"extras": {name: list(array.shape) for name, array in kept.items()}}
    settings = dict(detectors={"klip": DETECTORS["klip"] | about})
    store, data = write(tmp_path / "scanner", [image], **settings)
    shown = pictures._shown(store, read_table(store), data, 0, ["klip"])
    assert list(shown.images) == ["Truth", "Naive inversion", "Reconstruction"]
    assert list(shown.extras) == ["Guided"]
    np.testing.assert_allclose(shown.extras["Guided"], kept["guided"], atol=1e-3)
    for name in ("std", "naive"):
        del image["arrays"][f"reconstruction/{name}"]
    store, data = write(tmp_path / "none", [image], **settings)
    shown = pictures._shown(store, read_table(store), data, 0, ["klip"])
    assert list(shown.images) == ["Image"]


def test_without_truth_groups_masks_and_scanner(tmp_path):
    images = [image | {"misfit": np.nan} for image in fake_set(1, ("",))]
    for image in images:
        for name in ("mean", "std", "naive"):
            del image["arrays"][f"reconstruction/{name}"]
    text = report(tmp_path, images, without_data=True)
    assert "Localization and PSNR: the data are not at hand." in text
    assert "1 of unknown group" in text
    assert "Beside the other detectors" not in text
    assert "energy of the noise" not in text
    assert not (tmp_path / "a_run" / "figures" / "roc.png").exists()


def test_failed_images_are_shown_as_such(tmp_path):
    bad = fake_image("bad", "lesion")
    nan = np.full((32, 32), np.nan)
    bad["arrays"] |= {"klip/heatmap": nan, "reconstruction/mean": nan[..., None]}
    bad |= {"score": {}, "p_value": {}, "first_bad_step": 7}
    text = report(tmp_path, [bad])
    assert "1 failed" in text and "not finite from step 7" in text


def test_empty_run(tmp_path):
    assert "0 images" in report(tmp_path, [])


@pytest.mark.parametrize(("order", "first"), [("score", "b_2"), ("name", "a_1")])
def test_order(tmp_path, drawn, order, first):
    images = [fake_image(name) for name in ("a_1", "b_2")]
    for image, score in zip(images, (1.0, 2.0), strict=True):
        image["score"] |= {"klip": score}
    text = report(tmp_path, images, order=order)
    assert re.findall(r'alt="images of ([^"]+)"', text)[0] == first
    with pytest.raises(ValueError, match="order='size'"):
        report(tmp_path / "other", images, order="size")


def test_of_many_images_some_are_drawn(tmp_path, monkeypatch, drawn):
    for name, value in {"ALL": 4, "MOST": 2, "FEW": 2}.items():
        monkeypatch.setattr(finish, name, value)
    monkeypatch.setattr(page, "LISTED", 5)
    images = [fake_image(f"id_{i}") for i in range(4)]
    images += [fake_image(f"x_{i}", "x") for i in range(3)]
    for image, score in zip(images, (0, 1, 2, 3, 9, 10, 11), strict=True):
        image["score"] |= {"klip": float(score)}
    text = report(tmp_path, images)
    shown = re.findall(r'alt="images of ([^"]+)"', text)
    assert shown == ["x_2", "x_1", "id_3", "id_0"]
    files = (tmp_path / "a_run" / "figures").glob("image_*")
    assert {f.stem.removeprefix("image_") for f in files} == set(shown)
    assert "The 5 highest of 7; scores.csv holds all." in text
    assert text.count('<td class="n">') and ">x_0<" in text and ">id_1<" not in text


def test_only_what_changed_is_drawn(tmp_path, drawn):
    images = fake_set(2)
    store, data = write(tmp_path / "run", images)
    metrics = evaluate(store, data)
    write_report(store, data, metrics)
    assert len(drawn) == 4 + 2
    stale = store.folder / "figures" / "image_gone.png"
    stale.write_bytes(b"old")
    before = {p: p.stat().st_mtime_ns for p in stale.parent.iterdir() if p != stale}
    write_report(store, data, metrics)
    assert len(drawn) == 4 + 2 and not stale.exists()
    assert {p: p.stat().st_mtime_ns for p in stale.parent.iterdir()} == before
    images[1]["masks"] = ~images[1]["masks"]
    write_report(store, data_of(images), metrics)
    assert len(drawn) == 4 + 2 + 1


def test_kept_pictures_are_whole_pngs(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (3, 2), 7).save(buffer, "png")
    path = tmp_path / "a.png"
    found = canvas.kept(path, [np.arange(3), {"a": 1}], buffer.getvalue)
    image = Image.open(io.BytesIO(found))
    assert image.size == (3, 2) and image.getpixel((0, 0)) == 7
    assert path.read_bytes() == found
    assert canvas.kept(path, [np.arange(3), {"a": 1}], pytest.fail) == found
    for other in ([np.arange(3), {"a": 2}], [np.arange(3.0), {"a": 1}]):
        canvas.kept(path, other, buffer.getvalue)
        assert path.read_bytes() != found


def test_finish_makes_everything_from_the_store(tmp_path, monkeypatch, drawn):
    images = fake_set(2)
    store, data = write(tmp_path / "run", images)
    asked = []
    monkeypatch.setattr(
        finish.config, "build", lambda room, given: asked.append((room, given)) or data
    )
    metrics, path = finish.finish(store.folder)
    assert asked == [("data", {"name": "fake"})]
    assert metrics == json.loads((store.folder / "metrics.json").read_text())
    assert "localization_auroc" in metrics["detectors"]["klip"]
    lines = (store.folder / "scores.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    for said in ("noise_std 0.1", "1.2.3", "not a checkout"):
        assert said in path.read_text()


def test_data_that_are_gone_or_changed_are_left_out(tmp_path, monkeypatch, drawn):
    images = fake_set(2)
    store, data = write(tmp_path / "run", images)
    config = store.folder / "config.json"
    digest = {"contents": {"images": data.digest()}}
    config.write_text(json.dumps(json.loads(config.read_text()) | digest))

    def left_out(build):
        monkeypatch.setattr(finish.config, "build", build)
        return " ".join(finish.finish(store.folder)[0]["left_out"])

    def gone(room, given):
        raise FileNotFoundError("no such folder: /gone")

    assert "PSNR" not in left_out(lambda room, given: data)
    assert "/gone" in left_out(gone)
    assert "other images" in left_out(lambda room, given: data.take([1, 0, 2, 3]))
    assert "other images" in left_out(lambda room, given: data.take([0]))
    images[0]["masks"] = images[0]["body"]
    assert "masks now" in left_out(lambda room, given: data_of(images))


def test_scores_survive_the_round_trip(tmp_path):
    images = fake_set(2)
    store, _ = write(tmp_path / "run", images)
    text = scores_csv(read_table(store))
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, image in zip(rows, images, strict=True):
        assert row["image_id"] == image["image_id"]
        assert float(row["score"]) == image["score"]["klip"]
        assert float(row["msma/score"]) == image["score"]["msma"]
        assert float(row["p_value"]) == image["p_value"]["klip"]


def test_verdict_says_who_wins_and_whether_it_is_settled():
    def metrics(difference, control=True):
        value = {"value": 0.69, "low": 0.6, "high": 0.8}
        other = {
            "control": control,
            "localization_auroc": value | {"value": 0.72},
            "difference_localization": difference,
        }
        main = {"control": False, "localization_auroc": value}
        wins = ["position_template"] if difference["value"] < 0 else []
        return {
            "main": "my_map",
            "detectors": {"my_map": main, "position_template": other},
            "wins": {"localization": wins, "detection": []},
        }

    interval = {"value": -0.03, "low": -0.05, "high": -0.01}
    lost = verdict.verdict(metrics(interval), "localization")
    assert lost == (
        "Localization: position template beats the map of my map (0.72 against 0.69; "
        "my map minus position template \N{MINUS SIGN}0.03 [\N{MINUS SIGN}0.05, "
        "\N{MINUS SIGN}0.01]).",
        True,
    )
    open_ = {"value": 0.01, "low": -0.05, "high": 0.05}
    sentence, lost = verdict.verdict(metrics(open_), "localization")
    assert not lost and sentence.endswith("these images do not settle it.")
    assert verdict.verdict(metrics(open_), "detection") == ("", False)
    # Another detector that is above is no reason for red.
    assert verdict.verdict(metrics(interval, False), "localization") == ("", False)
    said = verdict.others(metrics(interval, False), "localization")
    assert said.startswith("Localization: position template is above the map of my map")
    assert said in verdict.lines(metrics(interval, False))


def test_what_broke_says_where():
    assert where_it_broke(np.nan, 3) == "not finite from step 3"
    assert where_it_broke(np.nan, -1) == where_it_broke(np.inf, -1)
    assert where_it_broke(np.nan, -1) == "not finite in the detector"
    assert where_it_broke(1.0, -1) == ""


def test_color_limits_are_robust_and_symmetric_if_signed():
    spike = np.zeros((32, 32))
    spike[:16] = 1
    spike[0, 0] = 1000
    assert figures.color_limits([spike]) == (0, 1)
    low, high = figures.color_limits([np.random.default_rng(0).normal(size=(32, 32))])
    assert low == -high and 2 < high < 4
    for empty in ([np.zeros((32, 32))], [np.full((32, 32), np.nan)], []):
        assert figures.color_limits(empty) == (0, 1)


def shown_of(shape):
    heatmap = np.linspace(-1, 1, shape[0] * shape[1]).reshape(shape[:2])
    titles = "Truth", "Naive inversion", "Reconstruction"
    images = {title: np.zeros(shape) for title in titles}
    maps = {"a": heatmap, **{f"other_{i}": heatmap for i in range(11)}}
    return figures.Shown(
        "x", "y", 1.0, 0.1, 0.5, -1, images, {}, "a", maps, heatmap > 0.9
    )


def size(shown):
    return Image.open(io.BytesIO(figures.image_figure(shown))).size


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 2), (48, 64, 3)])
def test_image_figure_of_any_shape(shape):
    assert min(size(shown_of(shape))) > 200


def test_image_figure_of_whatever_is_there():
    shown = shown_of((8, 8, 1))
    wide, tall = size(shown)
    fewer = shown._replace(images={"Image": np.zeros((8, 8, 1))}, mask=None)
    assert size(fewer)[0] < wide
    assert size(shown._replace(heatmaps={"a": shown.heatmaps["a"]}))[1] < tall
    assert size(shown._replace(main="mapless", images={}))[0] < wide


def test_roc_needs_both_sides(tmp_path):
    store, _ = write(tmp_path / "run", fake_set(2, ("lesion",)))
    with pytest.raises(ValueError, match="group 'id'"):
        roc.roc_figure(read_table(store), np.ones(2, bool))


def test_density_is_the_mean_over_the_images_of_a_side(tmp_path):
    images = fake_set(5)
    images[0]["arrays"]["klip/density"] = np.full((8, 3), np.nan)
    store, _ = write(tmp_path / "run", images)
    table = read_table(store)
    assert density.density_detectors(table) == ["klip"]
    found = density.read_density(store, table, "klip")
    for side, some in {"id": images[1:5], "ood": images[5:]}.items():
        values = np.array([i["arrays"]["klip/density"] for i in some])
        np.testing.assert_allclose(found[side].mean, values.mean(0), rtol=1e-5)
        error = values.std(0, ddof=1) / np.sqrt(len(some))
        np.testing.assert_allclose(found[side].error, error, rtol=1e-3)
        assert found[side].count == len(some)
    assert "unknown" not in found


def test_plus_minus():
    assert plus_minus(12.3456, 0.4567) == "12.35 \N{PLUS-MINUS SIGN} 0.46"
    assert plus_minus(1234.5, 45.6) == "1234 \N{PLUS-MINUS SIGN} 46"
    assert plus_minus(1.5, 0.0) == "1.5"
    assert plus_minus(float("nan"), 1.0) == "nan"
