"""Scores of a classifier and metrics against those of OpenOOD, dg_openood.npz."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from checks import check

from klip_jax import metrics
from klip_jax.detectors.base_classifier import Seen
from klip_jax.detectors.classifier_features import KNN, ViM, origin
from klip_jax.detectors.classifier_logits import MSP, Energy, MaxLogit
from lab.golden_diffguard import gap

# Of OpenOOD's confidence, and how far two float32 programs may be, by the largest.
SCORES = {
    "msp": (MSP(), 3e-7),
    "mls": (MaxLogit(), 0),
    "ebo_T1": (Energy(), 3e-7),
    "ebo_T2": (Energy(2.0), 3e-7),
    "knn_K50": (KNN(), 6e-7),
    "knn_K5": (KNN(5), 6e-7),
    "vim_dim32": (ViM(32), 2e-5),
    "vim_dim12": (ViM(12), 2e-5),
}
SETS = "id", "near", "far"
COLUMNS = (
    "AUROC_v15",
    "FPR95_v15_ood_positive",
    "AUPR_IN_v15",
    "AUPR_OUT_v15",
    "AUROC_v10",
    "FPR95_v10_id_positive",
    "AUPR_IN_v10",
)
judge = jax.jit(jax.vmap(lambda detector, looked: detector.judge(looked), (None, 0)))


def openood(folder: Path):
    """Yield the differences of scores, and of metrics in both polarities."""
    saved = opened(folder)
    for name in SCORES:
        yield from of_detector(saved, name)
    yield from of_ties(saved)


def opened(folder: Path) -> dict[str, np.ndarray]:
    """Return the saved arrays by name."""
    with np.load(folder / "dg_openood.npz") as archive:
        return {name: archive[name] for name in archive.files}


def of_detector(saved, name):
    """Yield the differences of one detector's scores and of their metrics."""
    rows, columns = (list(saved[f"metric_{axis}"]) for axis in ("rows", "columns"))
    ours, shift = scores(saved, name), name == "msp"  # 1 - max p
    theirs = {of: -np.float64(saved[f"score_{name}_{of}"]) for of in SETS}
    for of in SETS:
        worst = gap(ours[of] - float(shift), theirs[of])
        bound = SCORES[name][1] * np.abs(theirs[of]).max()
        yield check(f"{name}: scores of {of}", worst, 0, bound)
    # Of their own scores to the last digit; ours may swap two that are close.
    for whose, score, bound in (("their", theirs, 1e-12), ("our", ours, 5e-5)):
        for of in ("near", "far"):
            row = saved["metrics"][rows.index(f"{name}|{of}")]
            expected = dict(zip(columns, row, strict=True))
            worst = difference(expected, score["id"], score[of])
            label = f"{name}: metrics of {of}, {whose} scores"
            yield check(label, worst, 0, bound)


def of_ties(saved):
    """Yield the differences of metrics where scores tie, or are few."""
    for name, row in zip(saved["edge_names"], saved["edge_metrics"], strict=True):
        own, ood = (-saved[f"edge_{name}_{of}"] for of in ("id", "ood"))
        expected = dict(zip(saved["edge_columns"], row, strict=True))
        if name == "staircase_ties":
            # There scikit-learn leaves the point of the definition out.
            expected = {c: v for c, v in expected.items() if "FPR95" not in c}
        yield check(f"metrics: {name}", difference(expected, own, ood), 0, 1e-12)


def scores(saved, name):
    """Return the scores of the three sets, bigger is more out-of-distribution."""
    detector, _ = SCORES[name]
    head = jnp.asarray(saved["fc_weight"]).T, jnp.asarray(saved["fc_bias"])
    about = origin(*head) if isinstance(detector, ViM) else 0.0
    fitted = detector.fit(seen(saved, "train", about))
    return {of: np.float64(judge(fitted, seen(saved, of, about)).score) for of in SETS}


def seen(saved, of, about=0.0):
    """Return features, from `about` on, and logits of a set."""
    features = jnp.asarray(saved[f"feat_{of}"] - np.asarray(about))
    return Seen(features, jnp.asarray(saved[f"logits_{of}"]))


def difference(expected, own, ood):
    """Return the largest difference of the metrics that both have."""
    both = np.concatenate([own, ood])
    is_ood = np.arange(len(both)) >= len(own)
    ours = {
        "AUROC": metrics.auroc(both, is_ood),
        "FPR95_v15": metrics.fpr95_ood_pos(both, is_ood),
        "FPR95_v10": metrics.fpr95_id_pos(both, is_ood),
        "AUPR_OUT": metrics.aupr(both, is_ood),
        "AUPR_IN": metrics.aupr(-both, ~is_ood),
    }
    gaps = [
        abs(value - expected[column])
        for column in COLUMNS
        for name, value in ours.items()
        if column.startswith(name) and column in expected
    ]
    return max(gaps)
