"""What a run says of its laws, from p-values that are made up."""

import numpy as np
import pytest
from fake_results import fake_set, write

from klip_jax.report import laws, verdict
from klip_jax.report.evaluate import evaluate
from klip_jax.report.table import read_table

GRID = (np.arange(20) + 1) / 20


@pytest.fixture
def table_of(tmp_path):
    """Return the table of images whose p-values of klip are given."""

    def make(draws=(), healthy=(), group="id", patients=()):
        count = max(len(draws), len(healthy))
        images = fake_set(count, (group,), size=16)
        for i, image in enumerate(images):
            image["p_value"] = {"klip": draws[i]} if len(draws) else {}
            image["p_conformal"] = {"klip": healthy[i]} if len(healthy) else {}
            if len(patients):
                image["patient"] = patients[i]
        store, _ = write(tmp_path / str(len(list(tmp_path.iterdir()))), images)
        return read_table(store)

    return make


def test_a_law_that_holds(table_of):
    sizes = {"draws": {"klip": 256}}
    found = laws.of_detector(table_of(draws=GRID), "klip", sizes)
    assert found == {
        "model": {
            "size": 256,
            "histogram": [2] * 10,
            "ks": pytest.approx(0.05),
            "flagged_id": {"0.01": [0, 20], "0.05": [1, 20], "0.1": [2, 20]},
            "sentence": "",
            "warning": False,
        }
    }
    assert laws.of_detector(table_of(draws=GRID), "gradient", sizes) == {}


def test_a_law_that_does_not(table_of):
    small = laws.of_detector(table_of(draws=GRID / 4), "klip", {})["model"]
    assert small["warning"] and small["ks"] == pytest.approx(0.75)
    assert small["sentence"].startswith(
        "In-distribution images have smaller p-values by draws of the model"
    )
    assert "20 % of them are flagged at 0.05" in small["sentence"]
    large = laws.of_detector(table_of(healthy=1 - GRID / 4), "klip", {})["conformal"]
    assert large["warning"] and "larger p-values by healthy images" in large["sentence"]
    # With so small a law, or of so few patients, it may be chance.
    few = {"draws": {"klip": 4}}
    assert not laws.of_detector(table_of(draws=GRID / 4), "klip", few)["model"][
        "warning"
    ]
    same = table_of(draws=GRID / 4, patients=["a", "b"] * 10)
    assert not laws.of_detector(same, "klip", {})["model"]["warning"]


def test_of_images_of_which_nothing_is_known(table_of):
    """Small p-values may be anomalies; large ones everywhere are no image's fault."""

    def said(p):
        found = laws.of_detector(table_of(draws=p, group=""), "klip", {})["model"]
        assert "ks" not in found and "histogram" not in found
        return found["sentence"]

    assert said(GRID) == said(GRID / 3) == ""
    assert said(GRID / 16).startswith("80 % of the images have p <= 0.05")
    assert said(1 - GRID / 4).startswith("Images have larger p-values")


def test_patients_of_a_law_are_told(table_of):
    sizes = {"healthy": {"klip": 138}, "patients": 7}
    found = laws.of_detector(table_of(healthy=GRID), "klip", sizes)["conformal"]
    assert "138 images of 7 patients" in found["sentence"] and not found["warning"]
    sizes["patients"] = 138  # one each
    found = laws.of_detector(table_of(healthy=GRID), "klip", sizes)["conformal"]
    assert found["sentence"] == ""


def test_who_needs_a_look_is_told_by_the_law_that_counts(tmp_path):
    images = fake_set(4, ("id", "lesion"), size=16)
    p = [0.05, 0.051, 0.3, np.nan, 0.01, 0.02, np.nan, 0.04]
    for image, value in zip(images, p, strict=True):
        image["p_value"], image["p_conformal"] = {"klip": 0.001}, {"klip": value}
    store, data = write(tmp_path / "run", images)
    metrics = evaluate(store, data)
    look = dict(count=4, of=6, alpha=0.05, law="p_conformal")
    assert metrics["needs_look"] == look
    assert metrics["detectors"]["klip"]["law"] == "p_conformal"
    assert verdict.lines(metrics)[0] == (
        "4 of 6 images need a look: p <= 0.05 by healthy images (0.3 would, if nothing "
        "were wrong)."
    )
    warned = metrics["detectors"]["klip"]["laws"]["model"]
    warned |= dict(warning=True, sentence="It does not hold.")
    assert "It does not hold." in verdict.alarms(metrics)
