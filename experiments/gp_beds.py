"""GP32: where an anomaly shows in a KLIP map, and how often none is called one.

A zero-mean Gaussian process on 32 x 32 pixels, seen through an inpainting mask or a
scanner of 12 views; exact posterior samples; maps of 4 x 4 blocks, as z-scores against
the same estimator on images drawn from the prior itself (T11, T12 of the theory).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from checks import at_least, check

from klip_jax import kl
from klip_jax.guidance.exact import Exact
from klip_jax.priors.analytic import Gaussian

SIDE, BLOCK, ANOMALY = 32, 4, 8
SAMPLES, LEVELS = 16, np.geomspace(0.05, 5, 10)
SIMULATED, IMAGES = 256, 150


def prior_covariance():
    """exp(-r^2 / (2 4^2)) + .1 (1 + q) exp(-q) + 1e-3 [r = 0], q = sqrt(3) r / 1.5."""
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    r = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    q = np.sqrt(3) * r / 1.5
    smooth = np.exp(-(r**2) / 32) + 0.1 * (1 + q) * np.exp(-q)
    return smooth + 1e-3 * np.eye(SIDE**2)


def inpainting(rng):
    """Keep 30 % of the pixels; noise .1."""
    kept = rng.permutation(SIDE**2)[: round(0.3 * SIDE**2)]
    return np.eye(SIDE**2)[np.sort(kept)], 0.1


def tomography():
    """12 views, 45 bins of pitch 1, a pixel's shadow is a triangle; noise .05."""
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE) - np.array(SIDE - 1)[None] / 2
    angles = np.arange(12)[:, None, None] * np.pi / 12
    bins = np.arange(45)[:, None] - 22
    lands = columns * np.cos(angles) + rows * np.sin(angles)
    matrix = np.maximum(0, 1 - np.abs(lands - bins)).reshape(-1, SIDE**2)
    return matrix[matrix.sum(-1) > 0.5] / np.sqrt(SIDE), 0.05


def offsets(rng, n):
    """Draw n squares of +-1, aligned to the blocks: images [n, d], block masks."""
    images = np.zeros((n, SIDE, SIDE))
    corners = BLOCK * rng.integers(0, (SIDE - ANOMALY) // BLOCK + 1, (n, 2))
    signs = rng.choice([-1.0, 1.0], n)
    for image, (i, j), sign in zip(images, corners, signs, strict=True):
        image[i : i + ANOMALY, j : j + ANOMALY] = sign
    return images.reshape(n, -1), np.abs(images[:, ::BLOCK, ::BLOCK]) > 0


def block_maps(prior, covariance, matrix, noise_std, images, rng):
    """Measure `images` [n, d] and estimate their block maps [n, 3, H/b, W/b]."""
    y = images @ matrix.T + noise_std * rng.standard_normal((len(images), len(matrix)))
    cross = covariance @ matrix.T
    gram = matrix @ cross + noise_std**2 * np.eye(len(matrix))
    means = (y @ np.linalg.solve(gram, cross.T)).reshape(-1, SIDE, SIDE, 1)
    posterior = prior.posterior(jnp.asarray(matrix), jnp.asarray(y[0]), noise_std)
    # The levels are >= .05: float32 is enough, and twice as fast.
    single = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, jnp.float32))
    prior, posterior, levels = single((prior, posterior, LEVELS))

    @jax.jit
    def estimate(prior, posterior, inputs):
        def one(inputs):
            key, mean = inputs
            key_x0, key_levels = jax.random.split(key)
            own = posterior.replace(mean=mean)
            x0 = jax.vmap(own.sample)(jax.random.split(key_x0, SAMPLES))
            return kl.levels_kl(
                key_levels, prior, Exact(own), None, x0, levels, block=BLOCK
            ).block_map

        return jax.lax.map(one, inputs, batch_size=8)

    keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), len(means))
    return np.asarray(estimate(prior, posterior, (keys, single(means))), np.float64)


def auroc(maps, inside):
    """Mean over images of the AUROC between blocks, and its standard error."""
    values = []
    for scores, mask in zip(maps, inside, strict=True):
        gaps = scores[mask][:, None] - scores[~mask]
        values.append(np.mean(gaps > 0) + np.mean(gaps == 0) / 2)
    return np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))


def z_scores(maps, reference):
    """Standardise `maps` by the mean and spread of `reference` at each block."""
    return (maps - reference.mean(0)) / reference.std(0, ddof=1)


def false_alarms(maps, reference):
    """Return how often a block's p <= .05, and an image's max z passes its 95 %."""
    m = len(reference)
    above = (reference[:, None] >= maps).sum(0)
    blocks = np.mean((1 + above) / (m + 1) <= 0.05)
    # Each reference map is judged by the others: its own would flatter it.
    left = [z_scores(reference[i], np.delete(reference, i, 0)).max() for i in range(m)]
    highest = z_scores(maps, reference).max((1, 2))
    return blocks, np.mean(highest > np.quantile(left, 0.95))


def gp_checks():
    """T11 and T12."""
    covariance = prior_covariance()
    prior = Gaussian.from_covariance(
        jnp.zeros((SIDE, SIDE, 1)), jnp.asarray(covariance)
    )
    root = np.linalg.cholesky(covariance)
    for seed, (name, target) in enumerate((("inpaint", 0.797), ("CT", 0.760))):
        rng = np.random.default_rng(seed)
        matrix, noise_std = inpainting(rng) if name == "inpaint" else tomography()
        images = rng.standard_normal((SIMULATED + 2 * IMAGES, SIDE**2)) @ root.T
        added, inside = offsets(rng, IMAGES)
        images[-IMAGES:] += added
        maps = block_maps(prior, covariance, matrix, noise_std, images, rng)
        guided, coherent = maps[:, 0], maps[:, 1]
        ood, fit = slice(-IMAGES, None), slice(192)

        value, stderr = auroc(z_scores(coherent[ood], coherent[fit]), inside)
        yield check(
            f"T11 {name}: z of the guidance-free coherent map, block AUROC",
            *(value, target, 0.04),
            stderr=stderr,
            raw=auroc(coherent[ood], inside)[0],
        )
        raw = auroc(guided[ood], inside)[0]
        z = auroc(z_scores(guided[ood], guided[fit]), inside)[0]
        yield at_least(f"T11 {name}: full map, z - raw", z - raw, 0.04, raw=raw, z=z)
        normal = coherent[SIMULATED:-IMAGES]
        blocks, whole = false_alarms(normal, coherent[:SIMULATED])
        yield check(f"T12 {name}: block FPR at p <= .05", blocks, 0.05, 0.02)
        yield check(f"T12 {name}: image FPR at 5 %", whole, 0.06, 0.06)
