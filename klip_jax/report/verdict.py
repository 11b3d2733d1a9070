"""How the main detector stands beside the others, and whether the model fits, in words.

A p-value by healthy images is a rate of false alarms whatever the model is. One by
draws of the model tests the model: where the prior is wrong, healthy images are flagged
too. The misfit of posterior samples, |y - A x|^2 over its expectation, tests mostly the
scanner: under the model it is 1 on average, because y and A x + n have the same law.
"""

from typing import Any

from klip_jax.calibration import ALARM, LAWS
from klip_jax.report.laws import KEYS
from klip_jax.report.questions import QUESTIONS
from klip_jax.report.text import interval, name_of

FITS = (0.8, 1.25)
"""Range of the median misfit that calls for no check."""

_SIDES = {
    "id": "in-distribution images",
    "ood": "anomalous images",
    "unknown": "images",
}


def lines(metrics: dict[str, Any]) -> list[str]:
    """Return what the terminal says of a run."""
    main = metrics["detectors"][metrics["main"]]
    keys = {f"{question}_auroc": f"{question} AUROC" for question in QUESTIONS}
    said = [f"{words}: {interval(main[k])}" for k, words in keys.items() if k in main]
    said += [verdict(metrics, question)[0] for question in QUESTIONS]
    said += [others(metrics, question) for question in QUESTIONS]
    said = [needs_look(metrics), *said, *alarms(metrics), misfit(metrics)]
    return [line for line in said if line]


def verdict(metrics: dict[str, Any], question: str) -> tuple[str, bool]:
    """Return (a sentence on main detector and controls, whether a control wins)."""
    controls = _rivals(metrics, question, control=True)
    if not controls:
        return "", False
    best, numbers, open_ = _closest(metrics, question, controls)
    wins = [name for name in metrics["wins"][question] if name in controls]
    subject = _subject(metrics, question)
    sentence = f"{question.capitalize()}: "
    if wins:
        sentence += f"{best} beats {subject} {numbers}"
    else:
        sentence += f"no control beats {subject}; the closest is {best} {numbers}"
    if len(wins) > 1:
        sentence += f"; {len(wins)} of {len(controls)} controls do"
    return f"{sentence}{open_}.", bool(wins)


def others(metrics: dict[str, Any], question: str) -> str:
    """Say how the main detector stands beside those that are no controls."""
    rivals = _rivals(metrics, question, control=False)
    if not rivals:
        return ""
    best, numbers, open_ = _closest(metrics, question, rivals)
    wins = [name for name in metrics["wins"][question] if name in rivals]
    side = "above" if wins else "below"
    many = f"the best of {len(rivals)} other detectors, " if len(rivals) > 1 else ""
    said = f"{best} is {many}{side} {_subject(metrics, question)} {numbers}"
    return f"{question.capitalize()}: {said}{open_}."


def needs_look(metrics: dict[str, Any]) -> str:
    """Say how many images are flagged by the law that counts; "" without one."""
    look = metrics.get("needs_look")
    if look is None:
        return ""
    expected = look["alpha"] * look["of"]
    return (
        f"{look['count']} of {look['of']} images need a look: p <= {look['alpha']} by "
        f"{LAWS[look['law']]} ({expected:.1f} would, if nothing were wrong)."
    )


def alarms(metrics: dict[str, Any]) -> list[str]:
    """Count p <= 0.05 of the main detector on both sides, one sentence a law.

    In-distribution images are a check of the law: 5 % of them should be flagged. A law
    that does not describe the data is told.
    """
    said = []
    entry = metrics["detectors"][metrics["main"]]
    for law, counts in entry.get("alarms", {}).items():
        parts = []
        for side, (flagged, count) in counts.items():
            expected = f" ({ALARM * count:.1f} expected)" if side == "id" else ""
            parts.append(f"{flagged} of {count} {_SIDES[side]}{expected}")
        main = name_of(metrics["main"])
        said.append(
            f"At p <= {ALARM} by {LAWS[law]} {main} flags {' and '.join(parts)}."
        )
        if (own := entry.get("laws", {}).get(KEYS[law], {})).get("warning"):
            said.append(own["sentence"])
    return said


def misfit(metrics: dict[str, Any]) -> str:
    """Say how far the reconstructions miss the measurements, and what to check."""
    ratio = metrics.get("misfit")
    if ratio is None:
        return ""
    sentence = (
        f"The reconstructions miss the measurements by {ratio['value']:.2f} times the "
        f"energy of the noise (median; 90 % of the images: {ratio['low']:.2f} to "
        f"{ratio['high']:.2f}). 1 is expected where prior, operator and noise are right"
    )
    if ratio["value"] > FITS[1]:
        sentence += (
            "; so much more says that the operator's geometry, noise_std or the prior "
            "is not that of these data"
        )
    elif ratio["value"] < FITS[0]:
        sentence += "; so much less says that noise_std is larger than the data's noise"
    return f"{sentence}."


def _rivals(metrics, question, *, control):
    paired = f"difference_{question}"
    entries = metrics["detectors"].items()
    return {n: e for n, e in entries if paired in e and e["control"] is control}


def _subject(metrics, question):
    thing = "map" if question == "localization" else "score"
    return f"the {thing} of {name_of(metrics['main'])}"


def _closest(metrics, question, rivals):
    """Return the best of `rivals`: its name, the numbers, whether it is settled."""
    key = f"{question}_auroc"
    best = max(rivals, key=lambda name: rivals[name][key]["value"])
    theirs, difference = rivals[best][key], rivals[best][f"difference_{question}"]
    main = metrics["main"]
    own = metrics["detectors"][main][key]
    numbers = (
        f"({theirs['value']:.2f} against {own['value']:.2f}; {name_of(main)} minus "
        f"{name_of(best)} {interval(difference)})"
    )
    unsettled = difference["low"] <= 0 <= difference["high"]
    said = "; these images do not settle it" if unsettled else ""
    return name_of(best), numbers, said
