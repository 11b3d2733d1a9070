import numpy as np
import pytest
from fake_results import fake_image, write

from klip_jax.report import p_values
from klip_jax.report.table import read_table


def tables(folder, p, groups=None, **columns):
    """Return the table of a run whose main detector has these p-values."""
    groups = groups or [""] * len(p)
    images = []
    for i, (value, group) in enumerate(zip(p, groups, strict=True)):
        image = fake_image(f"i_{i}", group, size=8)
        image["p_value"] = {"klip": value}
        image["p_conformal"] = {"klip": columns.get("conformal", [np.nan] * len(p))[i]}
        image["misfit"] = columns.get("misfit", [1.0] * len(p))[i]
        image["score"] = {"klip": columns.get("score", range(len(p)))[i]}
        image["arrays"] = {"klip/heatmap": np.zeros((8, 8))}
        images.append(image)
    store, _ = write(
        folder, images, detectors={"klip": {"control": False, "has_map": True}}
    )
    return read_table(store)


def test_badges_at_their_limits(tmp_path):
    table = tables(
        tmp_path / "a",
        [0.05, 0.051, 0.1, 0.11, np.nan, 0.01],
        misfit=[0.49, 0.5, 2.0, 2.1, np.nan, 1.0],
        score=[0, 1, 2, 3, 4, np.nan],
    )
    judged = p_values.judge(table, {})
    badges = ["flagged", "borderline", "borderline", "clear", "unknown", "failed"]
    assert judged.badges.tolist() == badges
    assert judged.misfit.tolist() == [True, False, False, True, False, False]
    assert judged.law == "p_value" and judged.alpha == 0.05
    # Failed ones first, where they are seen; those without p last.
    assert p_values.order_of(table, judged).tolist() == [5, 0, 1, 2, 3, 4]


def test_the_law_that_is_asked_for(tmp_path):
    table = tables(tmp_path / "a", [0.01, 0.9], conformal=[0.9, 0.02])
    assert p_values.judge(table, {}).law == "p_conformal"  # it is trusted more
    look = {"law": "p_value", "alpha": 0.005}
    judged = p_values.judge(table, {"needs_look": look})
    assert judged.law == "p_value"
    assert judged.badges.tolist() == ["borderline", "clear"]


def test_ties_are_broken_by_the_score(tmp_path):
    table = tables(tmp_path / "a", [0.01, 0.01, 0.01], score=[1, 3, 2])
    judged = p_values.judge(table, {})
    assert p_values.order_of(table, judged).tolist() == [1, 2, 0]


def judged_of(p, misfit=None):
    p = np.asarray(p, float)
    badges = np.where(p <= 0.05, "flagged", "clear").astype(object)
    misfit = np.zeros(len(p), bool) if misfit is None else np.asarray(misfit)
    return p_values.Judged("p_value", 0.05, p, badges, misfit)


@pytest.mark.parametrize(
    ("p", "title"),
    [
        ([0.01, 0.02, *[0.5] * 30], "2 of 32 images need a look"),
        ([0.01, *[0.5] * 31], "1 of 32 images needs a look"),
        ([0.5] * 32, "None of 32 images needs a look"),
        ([np.nan] * 2, "2 images, most suspicious first"),
    ],
)
def test_the_first_line(p, title):
    assert p_values.headline(judged_of(p))["title"] == title


def test_below_the_first_line():
    said = p_values.headline(judged_of([0.01] + [0.5] * 19, [True] * 3 + [False] * 17))
    law, misfit = said["lines"]
    assert "1.0 would have it by chance" in law
    assert misfit.startswith("3 images do not fit the measurement")
    assert p_values.headline(judged_of([np.nan]))["lines"] == [
        "There is no reference law, so no p-values."
    ]


def test_histogram_counts_every_image_once(tmp_path):
    p = [0.05, 0.1, 0.11, 0.95, 1.0, np.nan]
    table = tables(tmp_path / "a", p, ["id", "x", "x", "id", "x", "id"])
    drawn = p_values.histogram(table, p_values.judge(table, {}))
    # Healthy ones in the first bar and the last, one of the others above each.
    assert [side["words"] for side in drawn["sides"]] == [
        "in-distribution",
        "anomalous",
    ]
    assert drawn["chart"].count('class="bar in-distribution"') == 2
    assert drawn["chart"].count('class="bar anomalous"') == 3
    assert "of 5 p-values" in drawn["chart"]
    empty = tables(tmp_path / "b", [np.nan])
    assert p_values.histogram(empty, p_values.judge(empty, {})) is None


def test_what_is_said_of_the_laws():
    laws = {
        "model": {"sentence": "It does not describe these data.", "warning": True},
        "conformal": {"sentence": "It is of 3 patients.", "warning": False},
        "other": {"sentence": "", "warning": False},
    }
    metrics = {"main": "klip", "detectors": {"klip": {"laws": laws}}}
    assert p_values.warnings(metrics) == ["It does not describe these data."]
    assert p_values.remarks(metrics) == ["It is of 3 patients."]
    metrics["detectors"]["klip"] = {}
    assert p_values.warnings(metrics) == p_values.remarks(metrics) == []
