"""Tables of `detection.py`, from the numbers of every image and detector."""

import methods
import numpy as np
import tables

from klip_jax import metrics


def leaders(found, settings):
    """Return the table of the best of each family, in either question, beside ours."""
    asked = [q for q in ("localization", "detection") if q in found[methods.OURS]]

    def value(name, question):
        return found[name].get(question, {"value": 0.0})["value"]

    best = {}
    for question in asked:
        for name in sorted(found, key=lambda name: value(name, question)):
            best[question, family(name)] = name
    names = sorted({*best.values()}, key=lambda name: -value(name, asked[0]))
    names.remove(methods.OURS)

    def cells(name, question):
        keys = question, f"ours minus this, {question}"
        numbers = [found[name].get(key) for key in keys]
        return ["" if n is None else tables.interval(n) for n in numbers]

    body = [
        [
            f"**{name}**" if name == methods.OURS else name,
            str(methods.network_calls(name, settings)),
            *(cell for question in asked for cell in cells(name, question)),
        ]
        for name in (methods.OURS, *names)
    ]
    head = [column for q in asked for column in (q, "ours minus this")]
    return tables.markdown(["best of each family", "network calls", *head], body)


def family(name):
    """Return what a detector is compared among; smoothed or not, it is the same."""
    if name == methods.OURS or "(x)" in name:
        return name if name == methods.OURS else "the true image is given"
    own = methods.RELEASED, "KL", "control: random", "control"
    known = [start for start in own if name.startswith(start)]
    return known[0] if known else name.split(" (")[0].rstrip("0.12345678 ")


def by_group(found, settings, groups):
    """Return the table of all methods, best localization (or detection) first."""
    asked = [q for q in ("localization", "detection") if q in found[methods.OURS]]
    columns = [f"{q} {g}".strip() for q in asked for g in ("", *groups) if g != "id"]

    def value(name):
        return found[name].get(asked[0], {"value": 0.0})["value"]

    def cell(number, by_group):
        if number is None:
            return ""
        return f"{number['value']:.3f}" if by_group else tables.interval(number)

    rows = [
        [
            f"**{name}**" if name == methods.OURS else name,
            str(methods.network_calls(name, settings)),
            *(cell(found[name].get(column), " " in column) for column in columns),
        ]
        for name in sorted(found, key=value, reverse=True)
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


def by_image(rows):
    """Return the table of OpenOOD's metrics between images, best AUPR first."""
    kinds = {
        "AUPR": metrics.aupr,
        "FPR95, anomalous positive": metrics.fpr95_ood_pos,
        "FPR95, in-distribution positive": metrics.fpr95_id_pos,
    }
    found = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        is_ood = np.array([row["group"] != "id" for row in mine])
        scores = np.array([row["score"] for row in mine])
        found[name] = [metric(scores, is_ood) for metric in kinds.values()]
    share = f"images, {is_ood.mean():.0%} anomalous"
    best = sorted(found, key=lambda name: -found[name][0])
    body = [[name, *(f"{value:.3f}" for value in found[name])] for name in best]
    return tables.markdown([share, *kinds], body)


def by_kind(rows, names):
    """Return localization of lesions by size and sign, "" where no size is known.

    Args:
      rows: with `pixels` and `contrast` of what is to be found.
      names: of the detectors to show.
    """
    whole = ("streak", "texture")  # neither brighter nor darker
    known = [r for r in rows if r["pixels"] > 0 and r["group"] not in whole]
    if not known:
        return ""
    middle = np.median([row["pixels"] for row in known])
    kinds = {
        f"up to {middle:.0f} pixels": lambda row: row["pixels"] <= middle,
        "more": lambda row: row["pixels"] > middle,
        "darker than around": lambda row: row["contrast"] < 0,
        "brighter": lambda row: row["contrast"] >= 0,
    }

    def cell(name, is_kind):
        mine = [r for r in known if r["method"] == name and is_kind(r)]
        if not mine:
            return ""
        mean = metrics.mean_of(np.array([r["localization"] for r in mine]))
        found = metrics.bootstrap(mean, [r["patient"] for r in mine])
        return f"{tables.interval(found)} ({len(mine)})"

    body = [[name, *(cell(name, kind) for kind in kinds.values())] for name in names]
    return tables.markdown(["localization of lesions (images)", *kinds], body)
