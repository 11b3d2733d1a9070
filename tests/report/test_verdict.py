import numpy as np
import pytest

from klip_jax.report import strengths, verdict
from klip_jax.report.text import plus_minus, where_it_broke


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


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def compared(*differences, own=(0.82, 0.75, 0.9)):
    """Metrics of a main detector and others, each with its difference from it."""
    key = "detection_auroc"
    detectors = {"mine": {"control": False, key: estimate(*own)}}
    for i, (value, low, high) in enumerate(differences):
        entry = {"control": True, key: estimate(own[0] - value, 0, 1)}
        entry["difference_detection"] = estimate(value, low, high)
        detectors[f"other_{i}"] = entry
    return {"main": "mine", "detectors": detectors}


def test_what_is_settled_is_good_what_is_not_is_open():
    said = strengths.strengths(
        compared((0.2, 0.1, 0.3), (0.05, -0.1, 0.2), (-0.1, -0.2, -0.02))
    )
    assert said == {
        "good": [
            "Telling which image: AUROC 0.82 [0.75, 0.90].",
            "Detection: above 1 of 3 compared detectors, beyond what chance explains; "
            "the closest of these is other 0 (0.62).",
        ],
        "open": [
            "Detection: whether it is above other 1, these images do not settle.",
            "Detection: below other 2.",
        ],
    }


@pytest.mark.parametrize(
    ("own", "kind", "end"),
    [
        ((0.82, 0.75, 0.9), "good", "0.90]."),
        ((0.82, 0.45, 0.95), "open", "which may be chance."),
        ((0.7, 0.6, 0.8), "open", "0.80]."),
    ],
)
def test_what_is_called_good(own, kind, end):
    said = strengths.strengths(compared(own=own))
    other = {"good": "open", "open": "good"}[kind]
    assert said[kind][0].endswith(end) and not said[other]


def test_groups_and_alarms_name_both_ends():
    metrics = compared()
    metrics["detectors"]["mine"] |= {
        "groups": {
            g: {"detection_auroc": estimate(v, 0, 1)}
            for g, v in {"faint": 0.55, "big": 0.9}.items()
        },
        "alarms": {"p_value": {"id": [6, 40], "ood": [5, 16]}},
    }
    said = strengths.strengths(metrics)
    assert "Detection by group: best on big (0.90)." in said["good"]
    assert said["open"] == [
        "Detection by group: weakest on faint (0.55).",
        "At p \N{LESS-THAN OR EQUAL TO} 0.05 it flags 5 of 16 anomalous images; 11 "
        "pass unflagged.",
        "It flags 6 of 40 healthy images, where 2.0 would be by chance.",
    ]


def test_nothing_known_says_nothing():
    metrics = {"main": "a", "detectors": {"a": {"alarms": {"p": {"unknown": [1, 2]}}}}}
    assert strengths.strengths(metrics) == {"good": [], "open": []}


def test_what_broke_says_where():
    assert where_it_broke(np.nan, 3) == "not finite from step 3"
    assert where_it_broke(np.nan, -1) == where_it_broke(np.inf, -1)
    assert where_it_broke(np.nan, -1) == "not finite in the detector"
    assert where_it_broke(1.0, -1) == ""


def test_plus_minus():
    assert plus_minus(12.3456, 0.4567) == "12.35 \N{PLUS-MINUS SIGN} 0.46"
    assert plus_minus(1234.5, 45.6) == "1234 \N{PLUS-MINUS SIGN} 46"
    assert plus_minus(1.5, 0.0) == "1.5"
    assert plus_minus(float("nan"), 1.0) == "nan"
