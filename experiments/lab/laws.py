"""The laws of `laws.py`: of which sets, by which samplers, and how well they cover."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from klip_jax import calibration, hub, reference_law
from klip_jax.config import build
from lab import problems, scores, tables
from lab.detectors import OURS

HEALTHY = 199
"""Images of a law: 0.01, 0.05 and 0.10 are p-values then, and coverage is exact."""
SETS = {
    "phantoms": ("phantoms", "klip_jax/assets/phantom_ct_law.npz"),
    "slices": ("slices", "checkpoints/abdomen_ct_64_law.npz"),
    "brains": ("brain", "checkpoints/brain_mri_64_law.npz"),
    "faces": ("faces", "checkpoints/faces_gray_64_blur_law.npz"),
}
"""{set: (problem, law that ships)}."""
SAMPLERS: dict[str, dict[str, Any]] = {
    "heun": dict(sampler=dict(name="heun.Heun"), steps=25),
    "heun_60": dict(sampler=dict(name="heun.Heun"), steps=60),
    "churn_25": dict(sampler=dict(name="heun.Heun", churn=0.4), steps=25),
    "churn_60": dict(sampler=dict(name="heun.Heun", churn=0.4), steps=60),
    "ancestral_50": dict(sampler=dict(name="ancestral.Ancestral"), steps=50),
    "ancestral_100": dict(sampler=dict(name="ancestral.Ancestral"), steps=100),
    "ancestral_200": dict(sampler=dict(name="ancestral.Ancestral"), steps=200),
}
"""{name: settings of calibration}."""
USED = "churn_60"
"""That of the default config."""
CONFORMAL = "healthy images"
CACHED = {"slices": "A", "brains": "B_all", "faces": "C"}
"""Tables of `detection.py` that hold healthy images of the test sets."""
PARTS = "test", "held"
COLUMNS = "image_id", "patient", "score"
ALPHAS = 0.01, 0.05, 0.10
ALARMS = 0.02, 0.10
"""Range that false alarms of the law without data should be in, at 0.05."""
FAR = 0.15
"""Kolmogorov-Smirnov distance that it should not exceed."""
ROOT = Path(__file__).resolve().parents[2]


def path_of(name: str) -> Path:
    """Return where the law of a set ships."""
    return ROOT / SETS[name][1]


def settings(name: str, *, data=None, **calibration) -> dict[str, Any]:
    """Return the config of a set as plain data, with these settings of calibration."""
    chosen = problems.settings(SETS[name][0])
    chosen["calibration"] |= SAMPLERS[USED] | calibration
    if name == "slices":
        # It looks at eligible tissue, which nobody has marked in held-out slices.
        chosen["detectors"].pop("intensity_distance")
    return chosen | ({} if data is None else {"data": data})


def covered(name: str, part: str, count: int) -> dict[str, Any]:
    """Return, as data of a config, healthy images that no law has seen.

    Args:
      name: of the set.
      part: "test", of the test set, or "held", held-out ones behind those of the law.
      count: of the first ones.
    """
    if part == "held":
        held = dict(name=f"lab.held_out:{name}", first=HEALTHY, count=count)
        return held | dict(measurements="")
    data = problems.settings(SETS[name][0])["data"]
    return data | dict(groups=("id",), per_group=count)


def rounded(kept):
    """Return scores to six digits."""
    if isinstance(kept, dict):
        return {k: rounded(v) for k, v in kept.items()}
    if isinstance(kept, list):
        return [rounded(v) for v in kept]
    return float(f"{kept:.6g}") if isinstance(kept, float) else kept


def report(kept) -> tuple[dict[str, Any], str]:
    """Return (what `laws.py` prints, the tables in markdown)."""
    checks: list[dict[str, Any]] = []
    rows, numbers = [], {}
    for name in SETS:
        judged = covered_scores(name, kept)
        if judged is None:
            continue
        for law, known in laws_of(name, kept).items():
            images = judged if law == CONFORMAL else all_healthy(name, *judged)
            result = numbers[f"{name}, {law}"] = coverage(known, *images)
            rows.append([name, law, *written(result)])
            checks += checks_of(name, law, result)
    rows.append(["brains", "the other patients", *written(by_patient())])
    head = ["healthy images", "law", "images (patients)", "scores in the law", "KS"]
    head += [f"p <= {a:g}" for a in ALPHAS]
    text = tables.markdown(head, rows)
    if drawn := draws(kept):
        quantiles = ["5 %", "25 %", "50 %", "75 %", "95 %"]
        head = ["scores of", "images", "calls a draw", *quantiles, "KS from healthy"]
        text += "\n" + tables.markdown(head, drawn)
    if known := kept.get("exact"):
        head = ["draws of known law", "calls a draw", *next(iter(known.values()))]
        values = (
            [n, _calls(n), *(f"{v:.3f}" for v in e.values())] for n, e in known.items()
        )
        text += "\n" + tables.markdown(head, values)
    return {"checks": checks, "laws": numbers}, text


def covered_scores(name, kept):
    """Return (scores, patients) of healthy images that no law has seen; None if none.

    Those of `laws.py --cover`, else those of a table of `detection.py`.
    """
    parts = [kept[part][name] for part in PARTS if name in kept.get(part, {})]
    if not parts and name in CACHED:
        table = scores.of(scores.read(scores.path_of(CACHED[name])), OURS)
        parts = [{k: v[table["group"] == "id"] for k, v in table.items()}]
    if not parts:
        return None
    rows = {k: np.concatenate([part[k] for part in parts]) for k in COLUMNS}
    names = zip(rows["patient"], rows["image_id"], strict=True)
    return rows["score"], np.array([p or i for p, i in names])


def by_patient() -> dict[str, Any]:
    """Return the coverage in brains by a law of the other patients of the test set."""
    judged, patients = covered_scores("brains", {})
    p = np.array(
        [
            calibration.p_value(score, judged[patients != own])
            for score, own in zip(judged, patients, strict=True)
        ]
    )
    return spread(p, patients, len(judged))


def all_healthy(name, judged, patients):
    """Return (scores, patients) of these and of the law's images, unseen by draws."""
    law = reference_law.load_law(path_of(name))
    own = law.healthy.get("klip", np.zeros(0))
    of = np.arange(len(own)) % (law.patients or max(len(own), 1))
    names = [f"law {i}" for i in of]
    return np.concatenate([judged, own]), np.array([*patients, *names])


def laws_of(name, kept) -> dict[str, np.ndarray]:
    """Return the scores of the main detector that each law of a set is made of."""
    chosen, laws = settings(name), {}
    _, record = hub.load(chosen["prior"]["weights"])
    detector = build("detectors", chosen["detectors"]["klip"])
    healthy = reference_law.load_law(path_of(name)).healthy
    if "klip" in healthy:
        laws[CONFORMAL] = healthy["klip"]
    for sampler in SAMPLERS:
        drawn = kept.get("draws", {}).get(f"{name} {sampler}")
        if drawn is not None:
            widened = calibration.widened(np.array(drawn), detector, record)
            laws[f"draws, {sampler}"] = widened
    return laws


def coverage(known, judged, patients) -> dict[str, Any]:
    """Return how p-values of healthy images are spread under a law."""
    return spread(calibration.p_value(judged, known), patients, len(known))


def spread(p, patients, size) -> dict[str, Any]:
    """Return how p-values are spread: flagged with intervals, distance from uniform."""
    flagged = {}
    for alpha in ALPHAS:
        count, n = int((p <= alpha).sum()), len(p)
        flagged[f"{alpha:g}"] = dict(
            count=count,
            value=count / n,
            low=_low(count, n),
            high=1 - _low(n - count, n),
        )
    return dict(
        images=len(p),
        patients=len(set(patients)),
        size=size,
        ks=calibration.departure(p).ks,
        flagged=flagged,
    )


def checks_of(name, law, result):
    """Yield the checks of a law that is in use: false alarms, and for draws distance.

    With m healthy images in the law and n judged, the number flagged is beta-binomial:
    both are samples. Its range of 99 % is asked for.
    """
    if law not in (CONFORMAL, f"draws, {USED}"):
        return
    sizes = result["images"], result["size"]
    for alpha in ALPHAS:
        count, n, size = result["flagged"][f"{alpha:g}"]["count"], *sizes
        title = f"{name}, {law}, flagged at {alpha:g}"
        if law == CONFORMAL:
            most = np.floor(alpha * (size + 1))
            low, high = stats.betabinom(n, most, size + 1 - most).interval(0.99)
        elif alpha == 0.05:
            low, high = (n * share for share in ALARMS)
        else:
            continue
        ok = bool(low <= count <= high)
        yield dict(
            name=title, value=count, target=alpha * n, tolerance=[low, high], ok=ok
        )
    if law != CONFORMAL:
        ks, ok = result["ks"], result["ks"] <= FAR
        yield dict(name=f"{name}, {law}, KS", value=ks, target=0, tolerance=FAR, ok=ok)


def written(result) -> list[str]:
    """Return a law's cells of the table."""
    many = str(result["images"])
    if result["patients"] < result["images"]:
        many += f" ({result['patients']})"
    flagged = (tables.interval(f, 3) for f in result["flagged"].values())
    return [many, str(result["size"]), f"{result['ks']:.3f}", *flagged]


def draws(kept) -> list[list[str]]:
    """Return the rows of the table of samplers, on phantoms."""
    judged = covered_scores("phantoms", kept)
    if judged is None:
        return []
    healthy, _ = all_healthy("phantoms", *judged)
    rows = [["healthy phantoms", str(len(healthy)), "", *_quantiles(healthy), ""]]
    for name in SAMPLERS:
        values = kept.get("draws", {}).get(f"phantoms {name}")
        if values is not None:
            ks = f"{stats.ks_2samp(values, healthy).statistic:.3f}"
            cells = [name, str(len(values)), _calls(name), *_quantiles(values), ks]
            rows.append(cells)
    return rows


def _calls(name) -> str:
    own = SAMPLERS[name]
    return str(own["steps"] * build("samplers", own["sampler"]).calls_per_step)


def _quantiles(values) -> list[str]:
    return [f"{q:.2f}" for q in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])]


def _low(count, n) -> float:
    """Return the lower end of the 95 % interval of Clopper and Pearson."""
    return float(stats.beta.ppf(0.025, count, n - count + 1)) if count else 0.0
