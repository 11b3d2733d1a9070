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
    "churn": dict(sampler=dict(name="heun.Heun", churn=0.2), steps=25),
    "churn_40": dict(sampler=dict(name="heun.Heun", churn=0.4), steps=40),
    "ancestral_50": dict(sampler=dict(name="ancestral.Ancestral"), steps=50),
    "ancestral_100": dict(sampler=dict(name="ancestral.Ancestral"), steps=100),
    "ancestral_200": dict(sampler=dict(name="ancestral.Ancestral"), steps=200),
}
"""{name: settings of calibration}."""
CACHED = {"slices": "A", "brains": "B_all", "faces": "C"}
"""Tables of `detection.py` that hold healthy images of the test sets."""
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
    chosen["calibration"] = chosen["calibration"] | calibration
    if name == "slices":
        # It looks at eligible tissue, which nobody has marked in held-out slices.
        chosen["detectors"].pop("intensity_distance")
    return chosen | ({} if data is None else {"data": data})


def covered(name: str, count: int = 0) -> dict[str, dict[str, Any]]:
    """Return, as data of configs, healthy images that no law has seen.

    Args:
      name: of the set.
      count: of the first ones alone; 0 for all.
    """
    more = {"phantoms": 300, "slices": 101, "brains": 0, "faces": 0}[name]
    held = dict(name=f"lab.held_out:{name}", first=HEALTHY, measurements="")
    if name == "phantoms":
        return {"held": held | dict(count=count or more)}
    data = problems.settings(SETS[name][0])["data"]
    tests = {"slices": 200, "brains": 190, "faces": 150}[name]
    data |= dict(groups=("id",), per_group=min(count or tests, tests))
    rest = min(more, count - tests) if count else more
    return {"test": data} | ({"held": held | dict(count=rest)} if rest > 0 else {})


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
        for law, known in laws_of(name).items():
            found = numbers[f"{name}, {law}"] = coverage(law, known, *judged)
            rows.append([name, law, *written(found)])
            checks += checks_of(name, law, found)
    head = ["healthy images", "law", "images (patients)", "scores in the law", "KS"]
    head += [f"p <= {a:g}" for a in ALPHAS]
    text = tables.markdown(head, rows)
    if drawn := draws(kept):
        quantiles = ["5 %", "25 %", "50 %", "75 %", "95 %"]
        head = ["scores of", "images", "calls a draw", *quantiles, "KS from healthy"]
        text += "\n" + tables.markdown(head, drawn)
    return {"checks": checks, "laws": numbers}, text


def covered_scores(name, kept):
    """Return (scores, patients) of healthy images that no law has seen; None if none.

    Those of `laws.py --cover`, else those of a table of `detection.py`.
    """
    rows = kept.get("covered", {}).get(name)
    if rows is None and name in CACHED:
        table = scores.of(scores.read(scores.path_of(CACHED[name])), OURS)
        rows = {k: v[table["group"] == "id"] for k, v in table.items()}
    if rows is None:
        return None
    names = zip(rows["patient"], rows["image_id"], strict=True)
    return np.array(rows["score"]), np.array([p or i for p, i in names])


def laws_of(name) -> dict[str, np.ndarray]:
    """Return the scores of the main detector that each law of a set is made of."""
    path, chosen = path_of(name), settings(name)
    law = reference_law.load_law(path)
    _, record = hub.load(chosen["prior"]["weights"])
    detector, laws = build("detectors", chosen["detectors"]["klip"]), {}
    if "klip" in law.healthy:
        laws["healthy images"] = law.healthy["klip"]
    if "klip" in law.scores:
        widened = calibration.widened(law.scores["klip"], detector, record)
        laws["draws of the model"] = widened
    return laws


def coverage(law, known, judged, patients) -> dict[str, Any]:
    """Return how p-values of healthy images are spread under a law."""
    p = calibration.p_value(judged, known)
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
        size=len(known),
        ks=calibration.departure(p).ks,
        flagged=flagged,
    )


def checks_of(name, law, found):
    """Yield the checks of a law: its false alarms, and for draws their distance.

    With m healthy images in the law and n judged, the number flagged is beta-binomial:
    both are samples. Its range of 99 % is asked for.
    """
    sizes = found["images"], found["size"]
    for alpha in ALPHAS:
        count, n, size = found["flagged"][f"{alpha:g}"]["count"], *sizes
        title = f"{name}, {law}, flagged at {alpha:g}"
        if law == "healthy images":
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
    if law != "healthy images":
        ks, ok = found["ks"], found["ks"] <= FAR
        yield dict(name=f"{name}, {law}, KS", value=ks, target=0, tolerance=FAR, ok=ok)


def written(found) -> list[str]:
    """Return a law's cells of the table."""
    many = str(found["images"])
    if found["patients"] < found["images"]:
        many += f" ({found['patients']})"
    flagged = (tables.interval(f, 3) for f in found["flagged"].values())
    return [many, str(found["size"]), f"{found['ks']:.3f}", *flagged]


def draws(kept) -> list[list[str]]:
    """Return the rows of the table of samplers, on phantoms."""
    law = reference_law.load_law(path_of("phantoms"))
    judged = covered_scores("phantoms", kept)
    parts = [law.healthy.get("klip", np.zeros(0)), *(judged or ())[:1]]
    healthy = np.concatenate(parts)
    if not len(healthy):
        return []
    rows = [["healthy phantoms", str(len(healthy)), "", *_quantiles(healthy), ""]]
    for name, own in SAMPLERS.items():
        values = kept.get("draws", {}).get(f"phantoms {name}")
        if values is not None:
            calls = own["steps"] * build("samplers", own["sampler"]).calls_per_step
            ks = f"{stats.ks_2samp(values, healthy).statistic:.3f}"
            rows.append([name, str(len(values)), str(calls), *_quantiles(values), ks])
    return rows


def _quantiles(values) -> list[str]:
    return [f"{q:.2f}" for q in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])]


def _low(count, n) -> float:
    """Return the lower end of the 95 % interval of Clopper and Pearson."""
    return float(stats.beta.ppf(0.025, count, n - count + 1)) if count else 0.0
