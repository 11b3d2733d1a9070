"""Tables of the benchmarks with a classifier, from the numbers of `class_summary`."""

from lab import class_detectors as known
from lab import tables
from lab.class_summary import METRICS

FIRST = (known.OURS, known.ORACLE)


def leaders(numbers: dict, costs: dict) -> str:
    """Return the table of all detectors, best near (or far) first, and their costs."""
    sets = [s for s in ("near", "far") if s in numbers[known.OURS]]
    each = [s for s in numbers[known.OURS] if s not in ("near", "far")]
    head = ["detector", "network calls", "classifier calls", "images / s"]
    head += [cell for s in sets for cell in (f"AUROC {s}", "DiffGuard minus this")]
    head += [f"AUROC {s}" for s in each if len(each) > len(sets)]
    body = []
    for name in _order(numbers, sets[0]):
        own = numbers[name]
        cells = [_bold(name), *_costs(costs.get(name))]
        for s in sets:
            cells.append(tables.interval(own[s]["auroc"]))
            same = name == known.OURS
            cells.append("" if same else tables.interval(own[s]["ours minus this"]))
        if len(each) > len(sets):
            cells += [f"{own[s]['auroc']['value']:.3f}" for s in each]
        body.append(cells)
    return tables.markdown(head, body)


def by_metric(numbers: dict) -> str:
    """Return the table of OpenOOD's other metrics, and AUROC by seed."""
    sets = [s for s in ("near", "far") if s in numbers[known.OURS]]
    head = ["detector"]
    head += [f"{s}: {what}" for s in sets for what in ("AUROC by seed", *METRICS)]
    body = []
    for name in _order(numbers, sets[0]):
        cells = [_bold(name)]
        for s in sets:
            own = numbers[name][s]
            cells.append(" ".join(f"{value:.3f}" for value in own["seeds"]))
            cells += [f"{own[what]:.3f}" for what in METRICS]
        body.append(cells)
    return tables.markdown(head, body)


def gains(more: dict) -> str:
    """Return the table of what a combination adds to each of its parts."""
    if not more:
        return ""
    sets = list(next(iter(next(iter(more.values())).values())))
    body = [
        [name, part, *(tables.interval(by_set[s]) for s in sets)]
        for name, parts in more.items()
        for part, by_set in parts.items()
    ]
    return tables.markdown(["AUROC of", "minus that of", *sets], body)


def alarms(flagged: dict, held: int) -> str:
    """Return the table of how often p <= 0.05 by the held images."""
    if not flagged:
        return ""
    groups = list(next(iter(flagged.values())))
    head = [f"p <= 0.05 by {held} held images", *groups]
    body = [
        [name, *(tables.interval(by_group[g], 2) for g in groups)]
        for name, by_group in flagged.items()
    ]
    return tables.markdown(head, body)


def _order(numbers, sets):
    def value(name):
        return -numbers[name][sets]["auroc"]["value"]

    return sorted(numbers, key=value)


def _bold(name):
    return f"**{name}**" if name == known.OURS else name


def _costs(cost):
    if cost is None:
        return ["", "", ""]
    network, classifier, seconds = cost
    speed = "" if seconds is None or seconds != seconds else f"{1 / seconds:.3g}"
    return [f"{network:.4g}", f"{classifier:.4g}", speed]
