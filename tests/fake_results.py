"""Results as a run writes them, drawn instead of computed."""

import numpy as np
from scipy import ndimage

from klip_jax.results import ImageResult

SIGMAS = np.geomspace(0.015, 0.6, 8)


def fake_result(
    name="id_000", group="id", *, size=32, block=4, seed=0, effect=1.0, **known
):
    """Return an `ImageResult` with a disc as body and, unless "id", a blob in it.

    `known` overrides arrays; one that is None is left out.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    rows, columns = np.mgrid[:size, :size] / size - 0.5

    def noise(width):
        field = ndimage.gaussian_filter(rng.normal(size=(size, size)), width * size)
        return field / field.std()

    body = rows**2 + (columns / 1.3) ** 2 < 0.14
    eligible = rows**2 + (columns / 1.3) ** 2 < 0.09
    truth = np.where(body, 0.5 + 0.08 * noise(0.04), 0.02) + 0.2 * (body ^ eligible)
    mask = np.zeros_like(body)
    if group not in ("id", ""):
        centre = rng.uniform(-0.15, 0.15, 2)
        blob = np.hypot(rows - centre[0], columns - centre[1])
        mask = blob < 0.07
        truth = truth + 0.2 / (1 + np.exp((blob - 0.06) * 80))
    truth = np.clip(truth, 0, 1)
    mean = ndimage.gaussian_filter(truth, 0.012 * size) + 0.01 * noise(0.02)
    excess = ndimage.gaussian_filter(mask * 1.0, 0.02 * size)
    heatmap = 0.4 * body * np.abs(noise(0.015)) + 0.6 * effect * excess
    heatmap = heatmap + 0.02 * noise(0.01)
    side = size // block
    blocks = heatmap.reshape(side, block, side, block).sum((1, 3))
    bump = np.exp(-0.5 * (np.log(SIGMAS / 0.1)) ** 2)
    gain = np.array([2.0, 0.5, 1.0])[:, None, None]
    score = np.sort(blocks.ravel())[-3:].mean()
    arrays = {
        "heatmap": heatmap,
        "levels": SIGMAS,
        "blocks": bump[:, None, None, None] * gain * blocks,
        "mean": np.clip(mean, 0, 1)[..., None],
        "misfit": rng.chisquare(500) / 500,
        "std": 0.02 * np.abs(noise(0.02))[..., None],
        "naive": (truth + 0.08 * noise(0.006))[..., None],
        "control_intensity": mean,
        "control_gradient": np.hypot(*np.gradient(mean)),
        "control_score_intensity": np.sort(mean.ravel())[-20:].mean(),
        "control_score_gradient": np.hypot(*np.gradient(mean)).max(),
        "truth": truth[..., None],
        "mask": mask,
        "eligible": eligible,
        "body": body,
    }
    arrays = {k: v for k, v in (arrays | known).items() if v is not None}
    p_value = float(rng.uniform() if group == "id" else rng.uniform() ** 4)
    return ImageResult(
        name, group, float(score), 0.1 * score, p_value, 328, 4.2, -1, arrays
    )


def fake_set(count=6, groups=("id", "lesion"), **settings):
    """Return `count` results of each group."""
    return [
        fake_result(f"{group}_{i:03d}", group, **settings)
        for group in groups
        for i in range(count)
    ]
