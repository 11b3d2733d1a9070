import re

import numpy as np
import pytest
from fake_results import fake_set, write

from klip_jax.report import charts, density, roc
from klip_jax.report.charts import Chart
from klip_jax.report.table import read_table

HOSTILE = '"/><script>'


def test_marks_stand_where_the_axes_say():
    chart = Chart((0, 10), (0, 100), size=(100.0 + charts.LEFT + charts.RIGHT, 144.0))
    corners = chart.line([0, 10, np.nan], [0, 100, 50], "a")
    base = 144 - charts.BOTTOM
    right = charts.LEFT + 100
    expected = f"M{charts.LEFT:.1f} {base:.1f}L{right:.1f} {charts.TOP:.1f}"
    assert corners == f'<path class="a" d="{expected}"/>'
    bar = chart.bar((2, 4), (0, 50), "b")
    numbers = {k: float(v) for k, v in re.findall(r'(\w+)="([\d.]+)"', bar)}
    assert numbers == dict(
        x=charts.LEFT + 20, width=20, y=(charts.TOP + base) / 2, height=50
    )
    logarithmic = Chart((0.01, 1), (0, 1), size=chart.size, log_x=True)
    assert f"M{charts.LEFT + 50:.1f} " in logarithmic.line([0.1], [0], "a")


def test_ticks_are_round():
    assert charts.ticks((0, 1)) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks((-3, 12.5)) == [0, 5, 10]
    assert charts.ticks((0.013, 0.019)) == [0.014, 0.016, 0.018]
    assert charts.ticks((2, 2)) == [2]
    assert charts.log_ticks((0.015, 0.6)) == [0.02, 0.05, 0.1, 0.2, 0.5]
    assert charts.number(-0.5) == "\N{MINUS SIGN}0.5"


def test_every_text_of_a_chart_is_escaped():
    chart = Chart((0, 1), (1.5, -0.5), HOSTILE, HOSTILE)
    drawn = chart.drawn([chart.line([0], [0], HOSTILE)], HOSTILE, y_ticks=[HOSTILE] * 2)
    assert "<script" not in drawn and drawn.count("&lt;script&gt;") == 6


def test_roc_is_that_of_the_scores(tmp_path):
    images = fake_set(3)
    for image, score in zip(images, (0, 1, 2, 1.5, 3, 4), strict=True):
        image["score"] |= {"klip": score}
    table = read_table(write(tmp_path / "run", images)[0])
    main, *others = roc.read_roc(table, np.ones(6, bool))
    assert (main.name, main.kind, main.area) == ("klip", "main", pytest.approx(8 / 9))
    assert np.trapezoid(main.tpr, main.fpr) == pytest.approx(main.area)
    assert [c.area for c in others] == sorted((c.area for c in others), reverse=True)
    kinds = {c.name: c.kind for c in others}
    assert kinds["msma"] == "rival-1"
    assert sorted((kinds["gradient"], kinds["intensity"])) == [
        "best-control",
        "control",
    ]
    assert "klip 0.89" in roc.roc_chart([main, *others])
    drawn = roc.scores_chart(table, np.ones(6, bool))
    assert drawn.count("h0") == 6 and ">lesion<" in drawn and ">id<" in drawn


def test_roc_needs_both_sides(tmp_path):
    store, _ = write(tmp_path / "run", fake_set(2, ("lesion",)))
    with pytest.raises(ValueError, match="group 'id'"):
        roc.read_roc(read_table(store), np.ones(2, bool))


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
    drawn = density.density_charts(found, ["one"])
    assert [each["title"] for each in drawn] == ["curve 1", "curve 2", "curve 3"]
    assert all(each["chart"].count('class="line ') == 2 for each in drawn)
