"""Estimators of KL(p(x|y) || p(x)), whole, by noise level and by block of pixels.

    KL = 1/2 int E||grad log p(y|x_s)||^2 d(s^2) = int I(s) d ln s,
    I(s) = E||D_y - D||^2 / s^2,   expectations over x_s = x0 + s z with x0 ~ p(x|y).

(A) `path_kl` follows the trajectory of a sampler. (B) `levels_kl` draws x0 once and
visits many noise levels at once; the quadrature is the trapezoid in ln s. The isotropic
noise makes both sums over pixels, so a map of the integrand sums to the KL.

Two maps show where. `guided` is E (D_y - D)^2 / s^2, all that y says there: mostly
where the scanner looks. `coherent` is (E[x0 - D(x_s) | y])^2 / s^2, what y says beyond
that; with a Gaussian prior it holds all dependence on y, and it needs no likelihood
score, because E[x0 - D_y] = 0. `coherent_guided` is (E[D_y - D])^2 / s^2, the same with
a score. Both are U-statistics over the samples, unbiased, so they can be negative. With
`filter_weight` a they count changes of a size `filter_width` more than others: |E v|^2
becomes (1 - a) |E v|^2 + a |E G v|^2 / g, with G a Gaussian filter of that width and g
the share of white noise that passes it, so that both terms count noise alike. All maps
may be pooled at the end over neighbouring pixels, which keeps their sum (`filters`).

Reference: docs/theory.md, sections 4 to 7; Kheirandish, Hong and Fridovich-Keil 2026
(KLIP); Kong et al. 2024 (pixel-wise information); Verdu 2010 (mismatched estimation).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.blocks import block_sum, check_block
from klip_jax.filters import pool, smooth, white_noise_passed
from klip_jax.types import Denoiser, Guidance, PRNGKey, Reducer, Scalar

MAPS = ("guided", "coherent", "coherent_guided")


class LevelMaps(NamedTuple):
    """What `levels_kl` returns; the leading axis of 3 is `MAPS`, values are nats.

    Attributes:
      heatmap: [3, H, W], integrated over the levels.
      blocks: [K, 3, H/b, W/b], block sums of the integrand at each level.
      samples: [N, H/b, W/b], the guided block map of each sample; their mean is the
        guided block map.
      left_out: [N, 3, H/b, W/b], the block maps without one sample (jackknife).
    """

    heatmap: Float[Array, "3 h w"]
    blocks: Float[Array, "k 3 hb wb"]
    samples: Float[Array, "n hb wb"]
    left_out: Float[Array, "n 3 hb wb"]

    @property
    def block_map(self) -> Float[Array, "3 hb wb"]:
        """The integrated block maps [3, H/b, W/b]."""
        # Each jackknife replicate is unbiased, and so is their mean; for U-statistics
        # of order two and for means it equals the estimate itself.
        return self.left_out.mean(0)


def trapezoid(levels: Float[Array, " k"]) -> Float[Array, " k"]:
    """Return weights [K] of the trapezoid rule in ln s for increasing `levels` [K]."""
    gaps = jnp.diff(jnp.log(levels))
    return (jnp.pad(gaps, (0, 1)) + jnp.pad(gaps, (1, 0))) / 2


def levels_kl(
    key: PRNGKey,
    denoiser: Denoiser,
    guidance: Guidance,
    scan: Any,
    samples: Float[Array, "n h w c"],
    levels: Float[Array, " k"],
    *,
    block: int = 1,
    filter_width: Scalar = 0.0,
    filter_weight: Scalar = 0.0,
    pool_width: Scalar = 0.0,
    chunk: int = 1,
    signs: tuple[float, ...] = (1.0, -1.0),
) -> LevelMaps:
    """Estimate the KL and its maps at many noise levels from posterior samples.

    For sample n, level k and noise z: u = x0_n + s_k z, d = D_y(u) - D(u) = s_k^2 times
    the likelihood score, r = x0_n - D(u), both averaged over `signs` of z.
    guided: sum_k w_k / s_k^2 mean_n d^2; coherent: sum_k w_k / s_k^2 (|S|^2 - Q) /
    (N (N - 1)) with S = sum_n r_n, Q = sum_n r_n^2; coherent_guided with d for r; both
    with `filter_weight` as above. All are pooled at the end (`pool`).

    Args:
      key: level k uses fold_in(key, k), sample n of it fold_in(., n).
      denoiser: the prior.
      guidance: gives (D, grad log p(y | x_s)).
      scan: what was measured; only the guidance looks at it.
      samples: draws of p(x|y) [N, H, W, C], N >= 3 for the jackknife.
      levels: noise levels [K], increasing, image units: the window.
      block: side of a block, pixels; divides H and W.
      filter_width: standard deviation in pixels of the Gaussian filter on d and r; see
        `filters.smooth`.
      filter_weight: a in [0, 1], weight of what passes the filter in the coherent maps;
        0 for the coherent KL itself, 1 for nothing but what passes.
      pool_width: standard deviation in pixels of the Gaussian over which the maps are
        pooled; see `filters.pool`.
      chunk: levels evaluated at once; divides K. Memory grows with it, not with K.
      signs: multipliers of each noise draw. An antithetic pair (1, -1) removes the
        part of r that is linear in z; (1,) is cheaper for the guided total alone.

    Returns:
      A `LevelMaps`.

    Raises:
      ValueError: if `block` or `chunk` do not divide, or there are under 3 samples.
    """
    n, height, width, _ = samples.shape
    check_block(block, (height, width))
    if n < 3:
        raise ValueError(f"{n} samples: the jackknife needs at least 3")
    if len(levels) % chunk:
        raise ValueError(f"chunk={chunk} does not divide {len(levels)} levels")

    def at(index, sigma):
        key_level = jax.random.fold_in(key, index)
        energy, r, d = differences(
            key_level, denoiser, guidance, scan, samples, sigma, signs
        )
        maps, left_out = zip(
            _mean_and_left_out(energy),
            *(coherent(v, filter_width, filter_weight) for v in (r, d)),
            strict=True,
        )
        maps, left_out, own = (
            pool(jnp.sum(m, -1), pool_width) / sigma**2
            for m in (jnp.stack(maps), jnp.stack(left_out, 1), energy)
        )
        return maps, block_sum(left_out, block), block_sum(own, block)

    def accumulate(carry, inputs):
        index, sigma, weight = inputs
        maps, left_out, own = jax.vmap(at)(index, sigma)
        added = [jnp.tensordot(weight, a, 1) for a in (maps, left_out, own)]
        return jax.tree.map(jnp.add, carry, added), block_sum(maps, block)

    grid = (height // block, width // block)
    dtype = samples.dtype
    carry = [
        jnp.zeros((3, height, width), dtype),
        jnp.zeros((n, 3, *grid), dtype),
        jnp.zeros((n, *grid), dtype),
    ]
    chunks = [
        a.reshape(-1, chunk)
        for a in (jnp.arange(len(levels)), levels, trapezoid(levels))
    ]
    (heatmap, left_out, own), blocks = jax.lax.scan(accumulate, carry, tuple(chunks))
    return LevelMaps(heatmap, blocks.reshape(-1, 3, *grid), own, left_out)


def differences(
    key: PRNGKey,
    denoiser: Denoiser,
    guidance: Guidance,
    scan: Any,
    samples: Float[Array, "n h w c"],
    sigma: Scalar,
    signs: tuple[float, ...] = (1.0, -1.0),
) -> tuple[Float[Array, "n h w c"], Float[Array, "n h w c"], Float[Array, "n h w c"]]:
    """Return what the maps of `levels_kl` are made of at one level, sample by sample.

    With u = x0_n + sigma z: d = D_y(u) - D(u) and r = x0_n - D(u), image units.

    Args:
      key: sample n uses fold_in(key, n).
      denoiser, guidance, scan, samples, signs: of `levels_kl`.
      sigma: the level, image units.

    Returns:
      mean d^2, mean r and mean d over `signs`, each [N, H, W, C].
    """

    def of_one(i, x0):
        z = jax.random.normal(jax.random.fold_in(key, i), x0.shape, x0.dtype)
        noised = [x0 + sign * sigma * z for sign in signs]
        pairs = [guidance.score(denoiser, scan, x, sigma) for x in noised]
        d = [sigma**2 * g for _, g in pairs]
        r = [x0 - denoised for denoised, _ in pairs]
        energy = sum(di**2 for di in d) / len(signs)
        return energy, sum(r) / len(signs), sum(d) / len(signs)

    return jax.vmap(of_one)(jnp.arange(len(samples)), samples)


def coherent(
    v: Float[Array, "n h w c"],
    filter_width: Scalar = 0.0,
    filter_weight: Scalar = 0.0,
) -> tuple[Float[Array, "h w c"], Float[Array, "n h w c"]]:
    """Return (|S|^2 - Q) / (N (N - 1)), unbiased for |E v|^2, and without each sample.

    S and Q are the sums over the samples of v [N, H, W, C] and of its squares; results
    are [H, W, C] and [N, H, W, C]. With a filter G and its weight a,

        (1 - a) |E v|^2 + a |E G v|^2 / g,   g = `filters.white_noise_passed`.

    Args:
      v: differences of N >= 3 samples, image units.
      filter_width, filter_weight: those of `levels_kl`.
    """
    # Without a filter there is nothing to weigh: exactly the plain statistic.
    weight = jnp.where(filter_width > 0, filter_weight, 0.0).astype(v.dtype)
    passed = white_noise_passed(filter_width).astype(v.dtype)
    filtered = _u_statistic(smooth(v, filter_width))
    whole, left_out = (
        (1 - weight) * plain + weight / passed * f
        for plain, f in zip(_u_statistic(v), filtered, strict=True)
    )
    return whole, left_out


def path_kl(window: tuple[Scalar, Scalar] = (0.0, math.inf)) -> Reducer:
    """Sum |shift|^2 / (2 noise_var) along a chain: KL between the paths, in nats.

    With a true likelihood score it estimates KL(p(x|y) || p(x)) to first order in the
    step, if the steps have the noise of the reverse SDE (ancestral, Euler-Maruyama;
    DDIM(eta) gives (1 + eta^2)^2 / (4 eta^2) times it). With any other deterministic
    guidance it still bounds KL(what the guided sampler draws || what the unguided one
    draws) from above. Steps without noise of their own (deterministic samplers, the
    last step to 0) do not count.

    Args:
      window: (lowest, highest) sigma of the steps that count, image units.

    Returns:
      A `Reducer` whose result is the map [H, W], summed over channels.

    Raises:
      ValueError: unless 0 <= lowest < highest; traced ends are not checked.

    Reference: Girsanov's theorem for discrete Gaussian chains; Ho et al. 2020, eq. 8.
    """
    low, high = window
    known = all(isinstance(end, int | float) for end in window)
    if known and not 0 <= low < high:
        raise ValueError(f"window={window}: need 0 <= lowest < highest sigma")

    def init(shape):
        return jnp.zeros(shape[:2])

    def update(acc, info):
        counts = (info.noise_var > 0) & (info.sigma >= low) & (info.sigma <= high)
        weight = jnp.where(counts, 0.5 / jnp.where(counts, info.noise_var, 1), 0)
        return acc + weight * jnp.sum(info.shift**2, -1)

    return Reducer(init, update, lambda acc: acc)


def mean_stderr(
    values: Float[Array, "n ..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Return the mean of independent `values` [N] and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(values.shape[0])


def jackknife_stderr(left_out: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """Return the jackknife standard error from leave-one-out values [N, ...]."""
    n = left_out.shape[0]
    return jnp.sqrt((n - 1) / n * jnp.sum((left_out - left_out.mean(0)) ** 2, 0))


def _mean_and_left_out(energy):
    total, n = energy.sum(0), energy.shape[0]
    return total / n, (total - energy) / (n - 1)


def _u_statistic(v):
    """U-statistic of |E v|^2 and its leave-one-out values, per pixel and channel."""
    n = v.shape[0]
    total, squares = v.sum(0), (v**2).sum(0)
    whole = (total**2 - squares) / (n * (n - 1))
    without = (total - v) ** 2 - (squares - v**2)
    return whole, without / ((n - 1) * (n - 2))
