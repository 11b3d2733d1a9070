import json

import numpy as np
import pytest
from fake_results import fake_result, fake_set

from klip_jax.evaluation import evaluate

BARE = dict(truth=None, mask=None, eligible=None, body=None)


def plain(metrics):
    """Pass through JSON, which refuses NaN and numpy scalars."""
    return json.loads(json.dumps(metrics, allow_nan=False))


@pytest.fixture(scope="module")
def found():
    return plain(evaluate(fake_set(10, ("id", "high", "low")), 4))


def test_all_that_is_known_is_there(found):
    controls = found["controls"]
    assert set(controls) == {"position_template", "intensity", "gradient"}
    for name in ("localization_auroc", "localization_auroc_body", "detection_auroc"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert name in controls["intensity"]
    assert found["localization_auroc"]["value"] > 0.8
    assert found["groups"].keys() == {"high", "low"}
    assert found["counts"] == {
        "images": 30,
        "id": 10,
        "ood": 20,
        "unknown": 0,
        "with_mask": 20,
    }
    assert found["pixel"]["region"] == found["localization_region"] == "eligible"
    assert found["psnr"]["value"] > 20
    low, value, high = (found["misfit"][k] for k in ("low", "value", "high"))
    assert 0.8 < low < value < high < 1.2
    assert not any("PSNR" in s for s in found["left_out"])


def test_differences_are_ours_minus_theirs(found):
    for name, control in found["controls"].items():
        for question in ("localization", "detection"):
            key = f"{question}_auroc"
            if key not in control:
                continue
            difference = found[key]["value"] - control[key]["value"]
            assert control[f"difference_{question}"]["value"] == pytest.approx(
                difference
            )
            assert (name in found["control_wins"][question]) == (difference < 0)


def test_a_control_that_wins_is_named():
    results = [
        fake_result(f"{g}_{i}", g, effect=0, control_oracle=None)
        for g in ("id", "lesion")
        for i in range(8)
    ]
    for r in results:
        r.arrays["control_oracle"] = r.arrays["mask"] * 1.0
    found = plain(evaluate(results, 4))
    assert "oracle" in found["control_wins"]["localization"]
    assert found["controls"]["oracle"]["localization_auroc"]["value"] == 1
    assert any("Detection by oracle" in s for s in found["left_out"])


def test_measurements_without_truth():
    found = plain(evaluate(fake_set(3, ("",), **BARE), 4))
    assert found["counts"]["unknown"] == 3
    assert found["controls"] == {}
    for key in ("localization_auroc", "detection_auroc", "psnr", "pixel", "aupr"):
        assert key not in found
    for word in ("Localization", "Detection", "PSNR"):
        assert any(s.startswith(word) for s in found["left_out"])


def test_nothing_at_all():
    assert plain(evaluate([], 4))["counts"]["images"] == 0


def test_images_that_failed_are_counted_and_excluded():
    results = fake_set(6)
    whole = plain(evaluate(results, 4))
    bad = fake_result("bad_1", "lesion")._replace(score=float("nan"))
    worse = fake_result("bad_2", "lesion", heatmap=np.full((32, 32), np.nan))
    found = plain(evaluate([*results, bad, worse], 4))
    assert found["bad_images"] == 2
    assert "bad_1, bad_2" in found["left_out"][0]
    assert found["detection_auroc"] == whole["detection_auroc"]


def test_unknown_tissue_falls_back_and_says_so():
    found = plain(evaluate(fake_set(4, eligible=None), 4))
    assert found["localization_region"] == "body"
    assert any("eligible tissue" in s for s in found["left_out"])
    assert any("intervals" in s for s in found["left_out"])


def test_patients_widen_the_interval():
    results = [
        fake_result(f"{g}_{i}_{k}", g, seed=0)
        for g in ("id", "lesion")
        for i in range(4)
        for k in range(6)
    ]
    # Images of one patient share their score.
    rng = np.random.default_rng(0)
    scores = {
        (g, i): rng.normal(g == "lesion") for g in ("id", "lesion") for i in range(4)
    }
    results = [
        r._replace(score=scores[r.group, int(r.image_id.split("_")[1])])
        for r in results
    ]
    by_image = evaluate(results, 4)
    for r in results:
        r.arrays["patient"] = np.array(r.image_id.rsplit("_", 1)[0])
    by_patient = evaluate(results, 4)

    def width(found):
        return found["detection_auroc"]["high"] - found["detection_auroc"]["low"]

    assert by_patient["counts"]["patients"] == 8
    assert width(by_patient) > 1.5 * width(by_image)
