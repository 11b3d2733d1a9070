"""What a table of scores says: AUROCs of every detector, with intervals, and ours."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from checks import at_least

from klip_jax import bootstrap
from lab import scores
from lab.detectors import BOUND, OURS, RELEASED

QUESTIONS = "localization", "detection"
BELOW_BOUND = {"localization": 0.03, "detection": 0.05}


def summary(table: scores.Table) -> dict[str, dict[str, Any]]:
    """Return {detector: AUROCs with intervals, by group, and ours minus theirs}."""
    statistics = statistics_of(table)
    own = scores.of(table, OURS)
    numbers = values_of(statistics, len(own["patient"]))
    patients = own["patient"].tolist()
    for name, asked in statistics.items():
        # Groups are shown without intervals.
        for question in set(asked) & set(QUESTIONS):
            numbers[name][question] = bootstrap.bootstrap(asked[question], patients)
            if name != OURS:
                pair = statistics[OURS][question], asked[question]
                difference = bootstrap.paired_difference(*pair, patients)
                numbers[name][f"ours minus this, {question}"] = difference
        calls = scores.of(table, name)["network_calls"][0]
        numbers[name]["network_calls"] = int(calls)
    return numbers


def values_of(statistics: dict, count: int) -> dict:
    """Return {detector: {question: {"value"}}} of `statistics_of` so many images."""
    once = np.ones((1, count))
    return {
        name: {q: {"value": float(s(once)[0])} for q, s in asked.items()}
        for name, asked in statistics.items()
    }


def statistics_of(table: scores.Table) -> dict[str, dict[str, Callable]]:
    """Return {detector: {question: AUROC as a function of the images' weights}}."""
    groups = scores.of(table, OURS)["group"]
    ood = groups != "id"
    parts = {
        g: np.where((groups == g) | ~ood, 1.0, 0.0) for g in sorted({*groups[ood]})
    }

    def within(statistic, part):
        return lambda weights: statistic(weights * part)

    statistics = {}
    for name in scores.detectors(table):
        own = scores.of(table, name)
        asked = {"detection": bootstrap.auroc_of(own["score"], ood)}
        if np.isfinite(own["localization"]).any():
            asked["localization"] = bootstrap.mean_of(own["localization"])
        statistics[name] = asked | {
            f"{question} {group}": within(statistic, part)
            for question, statistic in asked.items()
            for group, part in parts.items()
        }
    return statistics


def best(numbers: dict, question: str, most: int | None = None) -> list[str]:
    """Return our detector and the best others that look at y, by `question`."""
    fair = [n for n in numbers if "(x)" not in n and question in numbers[n]]
    ranked = sorted(fair, key=lambda name: -numbers[name][question]["value"])
    return [OURS, *(name for name in ranked if name != OURS)][:most]


def compare(numbers: dict) -> Iterator[dict]:
    """Yield the checks: ours above all that works from y, not far below the bound."""
    for name, own in numbers.items():
        fair = "(y)" in name or "(x^)" in name
        fair = (fair and not name.startswith("KL")) or name.startswith(RELEASED)
        fair |= name.startswith("control")
        for question in QUESTIONS:
            difference = own.get(f"ours minus this, {question}")
            if name == BOUND and difference:
                what = f"{question} minus that of the supervised bound"
                yield at_least(what, difference["value"], -BELOW_BOUND[question])
            elif fair and difference:
                what = f"{question} above {name}, 95 % low"
                yield at_least(what, difference["low"], 0.0)
