"""What a table of scores with a classifier says, and the combinations made from it."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from checks import at_least

from klip_jax import bootstrap, metrics
from klip_jax.calibration import conformal_p_value
from klip_jax.detectors.combined import RULES, PartLaw
from klip_jax.types import Detection
from lab import class_detectors as known
from lab import scores
from lab.class_sets import seed_of

NEAR_TARGET, ORACLE_TARGET = 0.88, 0.97
EXCLUDED = 1e-6  # the least low end of an interval that does not hold 0
RULE = "fisher"  # of the combinations that are checked; the default, fixed before
METRICS = {
    "AUPR": metrics.aupr,
    "FPR95, anomalous positive": metrics.fpr95_ood_pos,
    "FPR95, in-distribution positive": metrics.fpr95_id_pos,
}


def with_combinations(table: scores.Table, score: str) -> scores.Table:
    """Add the fused scores; each part is compared with its own of the held images.

    Args:
      table: with the held images.
      score: of the classifier, the best on training images.
    """
    names = scores.detectors(table)
    asked = [(known.OURS, score)]
    if known.KLIP in names:
        asked += [(known.OURS, known.KLIP), (known.OURS, known.KLIP, score)]
    parts = [(name, rule) for name in asked for rule in RULES]
    return scores.joined([table, *(_fused(table, *part) for part in parts)])


def combination(names: tuple[str, ...], rule: str = RULE) -> str:
    """Return the name of a combination in the tables."""
    return " + ".join(names) + f" ({rule})"


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a combination by its name in the tables."""
    return tuple(name.rpartition(" (")[0].split(" + "))


def summary(
    table: scores.Table, near: tuple[str, ...], far: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Return {detector: its numbers for near and far sets, and for each}.

    Args:
      table: of all detectors, held images too; these do not count.
      near, far: groups.
    """
    table = scores.where(table, seed_of(table["image_id"]) >= 0)
    own = scores.of(table, known.OURS)
    groups, seeds = own["group"], seed_of(own["image_id"])
    asked = {"near": near, "far": far} | {g: (g,) for g in (*near, *far)}
    said = {name: scores.of(table, name)["score"] for name in scores.detectors(table)}
    return {
        name: {
            what: _numbers(values, said[known.OURS], groups, seeds, some)
            for what, some in asked.items()
            if some
        }
        for name, values in said.items()
    }


def differences(table: scores.Table, groups_of: Mapping[str, tuple]) -> dict:
    """Return {combination: {part: {near or far: AUROC more than the part's}}}."""
    table = scores.where(table, seed_of(table["image_id"]) >= 0)
    names, gains = scores.detectors(table), {}
    for name in (n for n in names if n.endswith(f"({RULE})")):
        gains[name] = {
            part: {
                what: _difference(table, name, part, some)
                for what, some in groups_of.items()
                if some
            }
            for part in parts_of(name)
        }
    return gains


def false_alarms(table: scores.Table, names: list[str]) -> dict:
    """Return {detector: {group: share with p <= 0.05}}, by the held images.

    Of fewer than 19 no p-value is so small, and there is nothing to tell: {}.
    """
    held, flagged = seed_of(table["image_id"]) < 0, {}
    if held.sum() / len(scores.detectors(table)) < 19:
        return flagged
    for name in names:
        mine = table["detector"] == name
        law = table["score"][mine & held]
        rest = scores.where(table, mine & ~held)
        alarm = conformal_p_value(rest["score"], law) <= 0.05
        flagged[name] = {
            group: bootstrap.bootstrap(
                bootstrap.mean_of(alarm[some]), rest["image_id"][some].tolist()
            )
            for group in dict.fromkeys(rest["group"].tolist())
            for some in [rest["group"] == group]
        }
    return flagged


def checks(
    numbers: dict, more: dict, *, scanned: bool, published: bool
) -> Iterator[dict]:
    """Yield the targets: of DiffGuard, with oracle labels too, and of combinations.

    Args:
      numbers: of `summary`.
      more: of `differences`.
      scanned: from measurements.
      published: the images are those that the paper has numbers for.
    """
    sets = "near" if "near" in numbers[known.OURS] else "far"
    ours = numbers[known.OURS][sets]
    if published and not scanned:
        yield at_least("near-OOD AUROC", ours["auroc"]["value"], NEAR_TARGET)
        oracle = numbers[known.ORACLE][sets]["auroc"]["value"]
        yield at_least("near-OOD AUROC with oracle labels", oracle, ORACLE_TARGET)
    if known.DIFFNB in numbers:
        more_than = numbers[known.DIFFNB][sets]["ours minus this"]["value"]
        yield at_least(f"{sets}: at least that of DiffNB", more_than, 0.0)
    for name, parts in more.items():
        if scanned and known.KLIP not in parts:
            continue
        for part, difference in parts.items():
            what = f"{sets}: {name} above {part}, 95 % low"
            yield at_least(what, difference[sets]["low"], EXCLUDED)


def _numbers(values, ours, groups, seeds, some) -> dict[str, Any]:
    kept = np.isin(groups, ("id", *some))
    ood, values, ours = groups[kept] != "id", values[kept], ours[kept]
    clusters = np.arange(len(values)).tolist()
    statistic, own = (bootstrap.auroc_of(v, ood) for v in (values, ours))
    numbers = {
        "auroc": bootstrap.bootstrap(statistic, clusters),
        "ours minus this": bootstrap.paired_difference(own, statistic, clusters),
        "seeds": [
            metrics.auroc(values[one], ood[one])
            for seed in sorted({*seeds.tolist()})
            for one in [seeds[kept] == seed]
        ],
    }
    return numbers | {name: f(values, ood) for name, f in METRICS.items()}


def _difference(table, name, part, some):
    one, other = scores.of(table, name), scores.of(table, part)
    kept = np.isin(one["group"], ("id", *some))
    ood = one["group"][kept] != "id"
    a, b = (bootstrap.auroc_of(t["score"][kept], ood) for t in (one, other))
    return bootstrap.paired_difference(a, b, np.arange(int(kept.sum())).tolist())


def _fused(table, names, rule):
    """Return the rows of a combination."""
    own = [scores.of(table, name) for name in names]
    held = seed_of(own[0]["image_id"]) < 0

    def law(values):
        return PartLaw.of(Detection(jnp.asarray(values), jnp.zeros(len(values))))

    laws = [law(one["score"][held]) for one in own]

    def fuse(values):
        return RULES[rule](list(zip(laws, values, strict=True)))

    values = jax.vmap(fuse)(tuple(jnp.asarray(one["score"]) for one in own))
    count = len(own[0]["score"])
    return own[0] | {
        "detector": np.array([combination(names, rule)] * count),
        "score": np.asarray(values),
        "network_calls": sum(one["network_calls"] for one in own),
    }
