"""How our map and score stand beside the controls, in one sentence and in a table."""

from klip_jax.page import interval, paragraph, section, table, text, whisker

QUESTIONS = {
    "localization": "Localization: where inside an image?",
    "detection": "Detection: which image?",
}
REGIONS = {
    "eligible": "eligible tissue",
    "body": "the body",
    "image": "the whole image",
}

_OURS, _CONTROL = "#c0392b", "#8793a0"


def name_of(control: str) -> str:
    """Return the name of a control as it is read: "posterior std"."""
    return control.replace("_", " ")


def verdict(metrics: dict, question: str) -> tuple[str, bool]:
    """Return (a sentence on how ours compares with the controls, whether one wins)."""
    key, paired = f"{question}_auroc", f"difference_{question}"
    controls = {n: c for n, c in metrics["controls"].items() if key in c}
    if key not in metrics or not controls:
        return "", False
    subject = "map" if question == "localization" else "score"
    best = max(controls, key=lambda name: controls[name][key]["value"])
    theirs, difference = controls[best][key]["value"], controls[best][paired]
    numbers = (
        f"({theirs:.2f} against {metrics[key]['value']:.2f}; ours minus theirs "
        f"{interval(difference)})"
    )
    wins = metrics["control_wins"][question]
    sentence = f"{question.capitalize()}: "
    if wins:
        sentence += f"{name_of(best)} beats the {subject} {numbers}"
    else:
        sentence += f"no control beats the {subject}; the closest is {name_of(best)} "
        sentence += numbers
    if len(wins) > 1:
        sentence += f"; {len(wins)} of {len(controls)} controls do"
    if difference["low"] <= 0 <= difference["high"]:
        sentence += "; these images do not settle it"
    return f"{sentence}.", bool(wins)


def tables(metrics: dict) -> str:
    """Return the section of two tables, ours above the controls by their value."""
    found = []
    for question, title in QUESTIONS.items():
        key, body = f"{question}_auroc", "localization_auroc_body"
        if key not in metrics:
            continue
        with_body = question == "localization" and body in metrics
        wins = metrics["control_wins"][question]
        entries = {n: c for n, c in metrics["controls"].items() if key in c}
        entries = sorted(entries.items(), key=lambda item: -item[1][key]["value"])
        rows = []
        for name, entry in [("KLIP", metrics), *entries]:
            ours = entry is metrics
            difference = entry.get(f"difference_{question}")
            cells = [
                text(name_of(name)),
                whisker(entry[key], _OURS if ours else _CONTROL),
                interval(entry[key]),
                interval(difference) if difference else "",
            ]
            cells += [f"{entry[body]['value']:.2f}"] if with_body else []
            rows.append(("ours" if ours else "won" if name in wins else "", cells))
        head = ["", "from 0 to 1, chance dashed", "AUROC", "ours minus theirs"]
        head += ["whole body"] if with_body else []
        content = table(head, rows, numeric=(2, 3, 4), kind="wide")
        found += [f"<h3>{text(title)}</h3>", content]
    note = paragraph(
        "Controls are simple maps of the same reconstructions; while one wins (in red) "
        "ours is no evidence. The position template is the mean map of the other "
        "in-distribution images. Intervals are 95 %, by bootstrap; differences are on "
        "the same resamples.",
        "quiet",
    )
    return section("Beside the controls", note, *found) if found else ""
