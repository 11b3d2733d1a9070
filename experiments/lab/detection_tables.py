"""Tables of `detection.py`, from the numbers of every image and detector."""

import numpy as np

from klip_jax import bootstrap, metrics
from lab import scores, tables
from lab.detectors import OURS, RELEASED


def leaders(numbers):
    """Return the table of the best of each family, in either question, beside ours."""
    asked = [q for q in ("localization", "detection") if q in numbers[OURS]]

    def value(name, question):
        return numbers[name].get(question, {"value": 0.0})["value"]

    best = {}
    for question in asked:
        for name in sorted(numbers, key=lambda name: value(name, question)):
            best[question, family(name)] = name
    names = sorted({*best.values()}, key=lambda n: (*(-value(n, q) for q in asked), n))
    names.remove(OURS)

    def cells(name, question):
        keys = question, f"ours minus this, {question}"
        both = [numbers[name].get(key) for key in keys]
        return ["" if n is None else tables.interval(n) for n in both]

    body = [
        [
            f"**{name}**" if name == OURS else name,
            str(numbers[name]["network_calls"]),
            *(cell for question in asked for cell in cells(name, question)),
        ]
        for name in (OURS, *names)
    ]
    head = [column for q in asked for column in (q, "ours minus this")]
    return tables.markdown(["best of each family", "network calls", *head], body)


def family(name):
    """Return what a detector is compared among; smoothed or not, it is the same."""
    if name == OURS or "(x)" in name:
        return name if name == OURS else "the true image is given"
    own = RELEASED, "KL", "control: random", "control"
    known = [start for start in own if name.startswith(start)]
    return known[0] if known else name.split(" (")[0].rstrip("0.12345678 ")


def by_group(numbers, groups):
    """Return the table of all methods, best localization (or detection) first."""
    asked = [q for q in ("localization", "detection") if q in numbers[OURS]]
    columns = [f"{q} {g}".strip() for q in asked for g in ("", *groups) if g != "id"]

    def value(name):
        return numbers[name].get(asked[0], {"value": 0.0})["value"]

    def cell(number, by_group):
        if number is None:
            return ""
        return f"{number['value']:.3f}" if by_group else tables.interval(number)

    rows = [
        [
            f"**{name}**" if name == OURS else name,
            str(numbers[name]["network_calls"]),
            *(cell(numbers[name].get(column), " " in column) for column in columns),
        ]
        for name in sorted(numbers, key=value, reverse=True)
    ]
    return tables.markdown(["detector (looks at)", "network calls", *columns], rows)


def by_pixel(pixels):
    """Return the table of pooled pixel metrics, best AP first."""
    if not pixels:
        return ""
    names = [k for k in next(iter(pixels.values())) if k != "prevalence"]
    best = sorted(pixels, key=lambda name: -pixels[name]["ap"])
    rows = [[name, *(f"{pixels[name][k]:.3f}" for k in names)] for name in best]
    prevalence = next(iter(pixels.values()))["prevalence"]
    head = [f"pixels of all images, {prevalence:.1%} anomalous", *names]
    return tables.markdown(head, rows)


def by_image(table):
    """Return the table of OpenOOD's metrics between images, best AUPR first."""
    kinds = {
        "AUPR": metrics.aupr,
        "FPR95, anomalous positive": metrics.fpr95_ood_pos,
        "FPR95, in-distribution positive": metrics.fpr95_id_pos,
    }
    is_ood = scores.of(table, OURS)["group"] != "id"
    numbers = {
        name: [kind(scores.of(table, name)["score"], is_ood) for kind in kinds.values()]
        for name in scores.detectors(table)
    }
    share = f"images, {is_ood.mean():.0%} anomalous"
    best = sorted(numbers, key=lambda name: -numbers[name][0])
    body = [[name, *(f"{value:.3f}" for value in numbers[name])] for name in best]
    return tables.markdown([share, *kinds], body)


def by_kind(table, names):
    """Return localization of lesions by size and sign, "" where no size is known.

    Args:
      table: with `pixels` and `contrast` of what is to be found.
      names: of the detectors to show.
    """
    whole = ("streak", "texture")  # neither brighter nor darker
    known = (table["pixels"] > 0) & ~np.isin(table["group"], whole)
    if not known.any():
        return ""
    lesions = scores.where(table, known)
    middle = np.median(lesions["pixels"])
    small, dark = lesions["pixels"] <= middle, lesions["contrast"] < 0
    kinds = {
        f"up to {middle:.0f} pixels": small,
        "more": ~small,
        "darker than around": dark,
        "brighter": lesions["contrast"] >= 0,
    }

    def cell(name, is_kind):
        mine = scores.where(lesions, (lesions["detector"] == name) & is_kind)
        if not len(mine["score"]):
            return ""
        mean = bootstrap.mean_of(mine["localization"])
        numbers = bootstrap.bootstrap(mean, mine["patient"].tolist())
        return f"{tables.interval(numbers)} ({len(mine['score'])})"

    body = [[name, *(cell(name, kind) for kind in kinds.values())] for name in names]
    return tables.markdown(["localization of lesions (images)", *kinds], body)
