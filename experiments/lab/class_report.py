"""A benchmark with a classifier: computed where it is not there, and its tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from klip_jax.files import write_atomically
from lab import (
    class_benchmarks,
    class_runs,
    class_summary,
    class_tables,
    scores,
)
from lab import class_detectors as known
from lab.class_sets import seed_of
from lab.class_summary import parts_of

INTRODUCTION = """# {benchmark}

`python experiments/detection.py --benchmark={benchmark}{more}` writes this file.

{images}
{tuned}

- near: {near}; far: {far}. Bigger scores are more out-of-distribution.
- Brackets: 95 % of 1000 paired resamplings of the images of all seeds. A seed is other
  test images, and other keys with them.
- FPR95 has two readings. Anomalous positive: the share of in-distribution images
  flagged where 95 % of the others are. In-distribution positive: the share of the
  others accepted where 95 % of the in-distribution ones are.
- network calls, of one image, means over those that stop early; a classifier call is
  forward or backward. Images a second: median of the run on a CPU of two cores that had
  other work; of DiffGuard's variants by their share of the calls of one run.
{oracle}- Combinations compare each part with its own on {held} in-distribution images
  that no table counts. "fisher" was fixed before; {score}. The rates of false
  alarms by so few held images are themselves uncertain by {alarm:.2f} (one standard
  deviation over other held ones).

"""


OF_ORACLE = f"""- "{known.ORACLE}" is told which images are in-distribution: guided to
  the right label, or, where none is right, to any but the one that is seen. It is the
  released protocol, and no detector.
"""


def of(benchmark: str, folder: Path, *, again: bool, few: int) -> tuple[dict, str]:
    """Return the report of a benchmark, with `checks`, and its tables.

    Args:
      benchmark: of `class_benchmarks.BENCHMARKS`.
      folder: of the workdirs.
      again: compute even where numbers are kept.
      few: images of each group and seed, 0 for its own number; then nothing is kept.
    """
    own = class_benchmarks.BENCHMARKS[benchmark]
    kept = scores.FOLDER / f"{own.tuned}_tuned.json"
    tuned = known.DEFAULTS
    if kept.is_file():
        tuned = tuned | json.loads(kept.read_text())["chosen"]
    path = folder / "few.parquet" if few else scores.path_of(benchmark)
    about = path.with_suffix(".json")
    if again or few or not path.is_file():
        results = class_runs.everything(own, tuned, folder, few=few)
        scores.write(path, class_runs.rows(results))
        costs = {name: list(cost) for name, cost in results.costs.items()}
        notes = dict(tuned=tuned, costs=costs, notes=results.notes)
        write_atomically(about, json.dumps(notes, indent=1).encode())
    saved = json.loads(about.read_text())
    return _report(benchmark, own, scores.read(path), saved)


def _report(benchmark, own, table, saved) -> tuple[dict, str]:
    score = saved["tuned"]["score"]
    if score not in scores.detectors(table):
        score = "energy"  # from measurements no score is fitted
    whole = class_summary.with_combinations(table, score)
    sets = dict(near=tuple(own.near), far=tuple(own.far))
    sets = {what: groups for what, groups in sets.items() if groups}
    numbers = class_summary.summary(whole, tuple(own.near), tuple(own.far))
    more = class_summary.differences(whole, sets)
    judged = [known.OURS, score, *more]
    judged += [known.KLIP] if known.KLIP in numbers else []
    flagged = class_summary.false_alarms(whole, judged)
    held = int((seed_of(scores.of(table, known.OURS)["image_id"]) < 0).sum())
    parts = (
        class_tables.leaders(numbers, _costs(numbers, saved["costs"])),
        class_tables.by_metric(numbers),
        class_tables.gains(more),
        class_tables.alarms(flagged, held),
    )
    text = _introduction(benchmark, own, table, saved, score, held)
    scanned, published = own.operator is not None, own.tuned == "cifar10"
    report = dict(
        checks=list(
            class_summary.checks(numbers, more, scanned=scanned, published=published)
        ),
        detectors=numbers,
        combinations=more,
        alarms=flagged,
        **saved,
    )
    return report, text + "\n".join(part for part in parts if part)


def _introduction(benchmark, own, table, saved, score, held) -> str:
    mine = scores.of(table, known.OURS)
    counted = mine["group"][seed_of(mine["image_id"]) >= 0].tolist()
    counts = ", ".join(f"{counted.count(g)} {g}" for g in dict.fromkeys(counted))
    notes: dict[str, Any] = saved["notes"]
    images = (
        f"Images of all seeds: {counts}. Weights {own.prior} and {own.classifier}, "
    )
    images += f"which names {notes['accuracy']:.1%} of the id images right."
    if own.operator is not None:
        drawn = notes["posterior"]
        images += (
            f"\nMeasured by {own.operator}, noise {own.noise_std:g}; the posterior "
        )
        images += (
            f"({drawn['network_calls']} calls, {drawn['seconds']:.2g} s an image, "
        )
        images += (
            f"misfit {drawn['misfit']:.2f}) is shared, and not in the calls below."
        )
    tuned = saved["tuned"]
    words = f"{score} was the best score of the classifier on training images"
    if score != tuned["score"]:
        words = f"{score} stands for the classifier, as none that is fitted was run"
    return INTRODUCTION.format(
        benchmark=benchmark,
        more=" --recompute",
        images=images,
        tuned=f"DiffGuard: {describe(tuned)}.",
        near=", ".join(own.near) or "none",
        far=", ".join(own.far),
        oracle=OF_ORACLE if known.ORACLE in table["detector"] else "",
        held=held,
        alarm=(0.05 * 0.95 / (held + 2)) ** 0.5,
        score=words,
    )


def _costs(numbers, costs) -> dict:
    """Add what combinations cost: the calls of their parts."""
    fused = {
        name: np.sum([costs[part] for part in parts_of(name)], 0).tolist()
        for name in numbers
        if name not in costs
    }
    return costs | fused


def describe(tuned: dict[str, Any]) -> str:
    """Return the settings of DiffGuard in words."""
    own = known.diffguard(tuned)
    climbed = own["steps"] - own["skipped"]
    where = "everywhere" if tuned["cut"] is None else f"where the map > {tuned['cut']}"
    return (
        f"classifier-free guidance of weight {tuned['weight']:g} {where}, "
        f"{climbed} of {own['steps']} noise levels, up to {own['stop_psnr']:.3g} dB, "
        f"{own['distance']}, against {own['against']}"
    )
