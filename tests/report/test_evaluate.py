import json

import numpy as np
import pytest
from fake_results import DETECTORS, fake_image, fake_set, write

from klip_jax import bootstrap, localization, metrics
from klip_jax.pixels import pixel_metrics
from klip_jax.report import comparison, maps
from klip_jax.report.evaluate import evaluate


def plain(found):
    """Pass through JSON, which refuses NaN and numpy scalars."""
    return json.loads(json.dumps(found, allow_nan=False))


def numbers(found, where=""):
    """Return all numbers in nested dicts, by their path."""
    if not isinstance(found, dict):
        return {where: found} if isinstance(found, int | float) else {}
    parts = (numbers(value, f"{where}/{key}") for key, value in found.items())
    return {key: value for part in parts for key, value in part.items()}


def run(folder, images, **settings):
    return plain(evaluate(*write(folder / "run", images, **settings)))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    images = fake_set(10, ("id", "high", "low"))
    return run(tmp_path_factory.mktemp("a"), images)


def test_all_that_is_known_is_there(found):
    detectors = found["detectors"]
    assert detectors.keys() == {*DETECTORS, maps.TEMPLATE}
    main = detectors["klip"]
    # The main one, then by who tells the images apart; the template has no score.
    first, *others, last = detectors
    assert first == "klip" and last == maps.TEMPLATE
    areas = [detectors[name]["detection_auroc"]["value"] for name in others]
    assert areas == sorted(areas, reverse=True) and len(set(areas)) == 3
    assert others != [name for name in DETECTORS if name != "klip"]
    assert detectors["msma"]["classifier_calls"] == 3
    numbers = comparison.of_metrics(found)["numbers"]
    assert [row["cells"][0] for row in numbers["rows"]] == [first, *others]
    place = numbers["head"].index("classifier calls")
    calls = {row["cells"][0]: row["cells"][place] for row in numbers["rows"]}
    assert calls == dict(klip="", msma="3", intensity="", gradient="")
    for name in ("localization_auroc", "localization_auroc_body", "detection_auroc"):
        assert main[name]["low"] <= main[name]["value"] <= main[name]["high"]
        assert name in detectors["intensity"]
    assert main["localization_auroc"]["value"] > 0.8
    assert main["groups"].keys() == {"high", "low"}
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
    assert detectors["msma"]["seconds"] == pytest.approx(4.2)
    assert "Localization by msma: it has no map." in found["left_out"]


def test_differences_are_main_minus_each(found):
    main = found["detectors"]["klip"]
    others = {n: d for n, d in found["detectors"].items() if n != "klip"}
    assert "difference_detection" not in main
    for question in ("localization", "detection"):
        key = f"{question}_auroc"
        asked = {n: d for n, d in others.items() if key in d}
        assert len(asked) == 3
        for name, entry in asked.items():
            difference = main[key]["value"] - entry[key]["value"]
            paired = entry[f"difference_{question}"]
            assert paired["value"] == pytest.approx(difference)
            assert (name in found["wins"][question]) == (difference < 0)


def test_numbers_are_those_of_metrics(tmp_path):
    """Every image by hand, against the pass over the store in batches."""
    images = fake_set(6, ("id", "high", "low"))
    found = run(tmp_path, images, chunk=5)
    heatmaps = [i["arrays"]["klip/heatmap"].astype(np.float32) for i in images]
    masks = [i["masks"] for i in images]
    regions = [i["eligible"] | i["masks"] for i in images]
    own = np.array([i["group"] == "id" for i in images])
    odd = np.flatnonzero(~own)
    main, template = (found["detectors"][n] for n in ("klip", maps.TEMPLATE))
    part = [masks[i] for i in odd], [regions[i] for i in odd], 4
    expected = localization.localization([heatmaps[i] for i in odd], *part)
    assert main["localization_auroc"]["value"] == pytest.approx(expected, abs=1e-12)
    others = localization.position_template(np.stack(heatmaps), own)
    expected = localization.localization(others[odd], *part)
    assert template["localization_auroc"]["value"] == pytest.approx(expected, abs=1e-12)
    scores = np.array([i["score"]["klip"] for i in images])
    ids = [f"image {i['image_id']}" for i in images]
    expected = bootstrap.bootstrap(bootstrap.auroc_of(scores, ~own), ids)
    assert main["detection_auroc"] == pytest.approx(expected, abs=1e-12)
    other = np.array([i["score"]["msma"] for i in images])
    statistics = (bootstrap.auroc_of(s, ~own) for s in (scores, other))
    paired = found["detectors"]["msma"]["difference_detection"]
    assert paired == pytest.approx(bootstrap.paired_difference(*statistics, ids))
    assert main["aupr"] == pytest.approx(metrics.aupr(scores, ~own))
    pixel = pixel_metrics(heatmaps, masks, regions, own)
    assert found["pixel"] == pytest.approx({"region": "eligible", **pixel})


def test_the_anomaly_counts_where_it_leaves_eligible_tissue(tmp_path):
    """A lesion outside of eligible tissue would have no block to be found in."""
    images = fake_set(3)
    for image in images:
        image["masks"] = np.zeros((32, 32), bool)
        if image["group"] != "id":
            image["masks"][:4, :4] = True  # a corner, far from the disc
            assert not image["eligible"][:4, :4].any()
            image["arrays"]["klip/heatmap"] = image["masks"] * 9.0
    found = run(tmp_path, images)
    main = found["detectors"]["klip"]
    assert main["localization_auroc"]["value"] == 1
    assert main["localization_auroc_body"]["value"] == 1
    assert found["pixel"]["auroc"] == 1


def test_alarms_are_counted_by_law_and_side(tmp_path):
    """p <= 0.05, on either side, under either law; NaN is never an alarm."""
    images = fake_set(2, ("id", "lesion", ""))
    p = [0.051, 0.05, 0.001, np.nan, 0.9, 0.049]
    for image, value in zip(images, p, strict=True):
        image["p_value"] = {"klip": value}
        image["p_conformal"] = {"klip": 1 - value, "msma": 0.01}
    found = run(tmp_path, images)["detectors"]
    assert found["klip"]["alarms"] == {
        "p_value": {"id": [1, 2], "ood": [1, 1], "unknown": [1, 2]},
        "p_conformal": {"id": [0, 2], "ood": [0, 1], "unknown": [0, 2]},
    }
    counts = {"id": [2, 2], "ood": [2, 2], "unknown": [2, 2]}
    assert found["msma"]["alarms"] == {"p_conformal": counts}
    assert "alarms" not in found["gradient"]


def test_a_control_that_wins_is_named(tmp_path):
    images = fake_set(8, effect=0)
    for image in images:
        image["arrays"]["oracle/heatmap"] = image["masks"] * 1.0
    detectors = DETECTORS | {"oracle": {"control": True, "has_map": True}}
    found = run(tmp_path, images, detectors=detectors)
    assert "oracle" in found["wins"]["localization"]
    assert found["detectors"]["oracle"]["localization_auroc"]["value"] == 1
    assert any("Detection by oracle" in s for s in found["left_out"])


def test_a_main_detector_without_map(tmp_path):
    found = run(tmp_path, fake_set(4), main="msma")
    assert next(iter(found["detectors"])) == found["main"] == "msma"
    assert "detection_auroc" in found["detectors"]["msma"]
    assert "localization_auroc" in found["detectors"]["klip"]
    assert "difference_localization" not in found["detectors"]["klip"]
    assert maps.TEMPLATE not in found["detectors"] and "pixel" not in found


def test_images_of_which_nothing_is_known(tmp_path):
    found = run(tmp_path, fake_set(3, ("",)), known=())
    assert found["counts"]["unknown"] == 3
    for entry in found["detectors"].values():
        assert not {"localization_auroc", "detection_auroc", "aupr"} & entry.keys()
    assert "pixel" not in found and "psnr" in found
    for word in ("Localization", "Detection"):
        assert any(s.startswith(word) for s in found["left_out"])


def test_without_data_or_scanner(tmp_path):
    images = fake_set(3)
    for image in images:
        image["misfit"] = np.nan
        for name in ("mean", "std", "naive"):
            del image["arrays"][f"reconstruction/{name}"]
    store, data = write(tmp_path / "run", images)
    found = plain(evaluate(store, data))
    assert "psnr" not in found and "misfit" not in found
    assert any(s.startswith("PSNR") for s in found["left_out"])
    blind = plain(evaluate(store, None, "the disk is gone"))
    assert "Localization and PSNR: the disk is gone." in blind["left_out"]
    for name, entry in found["detectors"].items():
        same = blind["detectors"][name].get("detection_auroc")
        assert same == entry.get("detection_auroc")


def test_nothing_at_all(tmp_path):
    assert run(tmp_path, [])["counts"]["images"] == 0


def test_images_that_failed_are_counted_and_excluded(tmp_path):
    images = fake_set(6)
    whole = run(tmp_path / "whole", images)
    bad, worse = fake_image("bad_1", "lesion"), fake_image("bad_2", "lesion")
    bad["score"]["klip"] = np.nan
    worse["arrays"]["klip/heatmap"] = np.full((32, 32), np.nan)
    found = run(tmp_path / "bad", [*images, bad, worse])
    assert found["bad_images"] == 2
    assert "bad_1, bad_2" in found["left_out"][0]
    for name, entry in whole["detectors"].items():
        for key in ("detection_auroc", "localization_auroc"):
            assert found["detectors"][name].get(key) == entry.get(key)


def test_unknown_tissue_falls_back_and_says_so(tmp_path):
    found = run(tmp_path, fake_set(4), known=("masks", "body"))
    assert found["localization_region"] == "body"
    assert any("eligible tissue" in s for s in found["left_out"])
    assert any("intervals" in s for s in found["left_out"])


def test_patients_widen_the_interval(tmp_path):
    rng = np.random.default_rng(0)
    images = []
    for group in ("id", "lesion"):
        for patient in range(4):
            score = rng.normal(group == "lesion")  # all images of a patient share it
            for k in range(6):
                image = fake_image(f"{group}_{patient}_{k}", group, size=16)
                image["score"] = image["score"] | {"klip": score}
                images.append(image)
    by_image = run(tmp_path / "images", images)
    for image in images:
        image["patient"] = image["image_id"].rsplit("_", 1)[0]
    by_patient = run(tmp_path / "patients", images)

    def width(found):
        interval = found["detectors"]["klip"]["detection_auroc"]
        return interval["high"] - interval["low"]

    assert by_patient["counts"]["patients"] == 8
    assert width(by_patient) > 1.5 * width(by_image)


def test_batches_change_nothing(tmp_path, monkeypatch):
    store, data = write(tmp_path / "run", fake_set(5))
    whole = evaluate(store, data)
    monkeypatch.setattr(maps, "_BATCH_PIXELS", 3 * 32 * 32)
    parts = evaluate(store, data)
    assert numbers(parts) == pytest.approx(numbers(whole), abs=1e-12)


def test_too_many_pixels_are_drawn_by_lot(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "POOLED_PIXELS", 8 * 32 * 32)
    found = run(tmp_path, fake_set(8))
    assert any("8 images drawn by lot, 50 %" in s for s in found["left_out"])
    assert 0.5 < found["pixel"]["auroc"] < 1


def test_an_image_that_lacks_a_detector_is_refused(tmp_path):
    images = fake_set(2)
    store, data = write(tmp_path / "run", images)
    store.meta["detectors"]["ghost"] = store.meta["detectors"]["klip"]
    with pytest.raises(ValueError, match="0 rows of detector 'ghost'"):
        evaluate(store, data)
