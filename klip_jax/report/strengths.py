"""What the main detector is good at on these data, and where it is not, in plain words.

Only what is known here is said; a comparison that these images do not settle is said to
be open. An AUROC of 0.5 is chance, 1 is perfect.
"""

from typing import Any

from klip_jax.calibration import ALARM
from klip_jax.report.questions import QUESTIONS
from klip_jax.report.text import interval, name_of, number

_THING = {"localization": "where inside an image", "detection": "which image"}
CHANCE, GOOD = 0.5, 0.8
"""Of AUROCs: what a coin reaches, and what is called good where nothing is compared."""


def strengths(metrics: dict[str, Any]) -> dict[str, list[str]]:
    """Return sentences: `good`, and `open`, where it is not or where nobody knows yet.

    Args:
      metrics: of a run; without groups and masks both lists are empty.
    """
    good: list[str] = []
    open_: list[str] = []
    for question in QUESTIONS:
        _question(metrics, question, good, open_)
        _groups(metrics, question, good, open_)
    _alarms(metrics, good, open_)
    return {"good": good, "open": open_}


def _question(metrics, question: str, good: list[str], open_: list[str]) -> None:
    key, paired = f"{question}_auroc", f"difference_{question}"
    own = metrics["detectors"][metrics["main"]].get(key)
    if own is None:
        return
    said = f"Telling {_THING[question]}: AUROC {interval(own)}"
    (good if own["value"] >= GOOD and own["low"] > CHANCE else open_).append(
        f"{said}{'' if own['low'] > CHANCE else ', which may be chance'}."
    )
    kinds: dict[str, list[str]] = {"below": [], "unsettled": [], "above": []}
    for name, entry in metrics["detectors"].items():
        if paired in entry:
            difference = entry[paired]
            kind = "below" if difference["low"] > 0 else "unsettled"
            kinds["above" if difference["high"] < 0 else kind].append(name)
    of = sum(len(names) for names in kinds.values())
    if kinds["below"]:
        best = max(kinds["below"], key=lambda n: metrics["detectors"][n][key]["value"])
        value = number(metrics["detectors"][best][key]["value"])
        good.append(
            f"{question.capitalize()}: above {_some(kinds['below'], of)} compared "
            f"detectors, beyond what chance explains; the closest of these is "
            f"{name_of(best)} ({value})."
        )
    if kinds["unsettled"]:
        open_.append(
            f"{question.capitalize()}: whether it is above "
            f"{_named(kinds['unsettled'])}, these images do not settle."
        )
    if kinds["above"]:
        open_.append(f"{question.capitalize()}: below {_named(kinds['above'])}.")


def _groups(metrics, question, good, open_):
    key = f"{question}_auroc"
    groups = metrics["detectors"][metrics["main"]].get("groups", {})
    values = {g: entry[key]["value"] for g, entry in groups.items() if key in entry}
    if len(values) < 2:
        return
    best, worst = max(values, key=values.get), min(values, key=values.get)
    said = f"{question.capitalize()} by group"
    good.append(f"{said}: best on {best} ({number(values[best])}).")
    open_.append(f"{said}: weakest on {worst} ({number(values[worst])}).")


def _alarms(metrics, good, open_):
    entry = metrics["detectors"][metrics["main"]]
    counts = next(iter(entry.get("alarms", {}).values()), {})
    holds = not any(law["warning"] for law in entry.get("laws", {}).values())
    if "ood" in counts:
        flagged, of = counts["ood"]
        kind = good if 2 * flagged >= of else open_
        missed = f"; {of - flagged} pass unflagged" if flagged < of else ""
        kind.append(
            f"At p \N{LESS-THAN OR EQUAL TO} {ALARM:g} it flags {flagged} of {of} "
            f"anomalous images{missed}."
        )
    if "id" in counts:
        flagged, of = counts["id"]
        kind = good if holds and flagged <= 2 * ALARM * of else open_
        kind.append(
            f"It flags {flagged} of {of} healthy images, where {ALARM * of:.1f} would "
            "be by chance."
        )


def _some(names, of) -> str:
    return f"all {of}" if len(names) == of else f"{len(names)} of {of}"


def _named(names) -> str:
    named = [name_of(name) for name in names]
    if len(named) > 4:
        named = [*named[:3], f"{len(named) - 3} others"]
    return " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)
