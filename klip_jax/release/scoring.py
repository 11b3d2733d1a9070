"""How the KLIP release scores an image: a mean over steps of squared updates.

    S[block] = mean_{k in [k0, k1)} mean_samples sum_{pixels, channels} (u_k / g_k)^2,

u_k the displacement that the measurements caused in step k, g_k^2 the squared diffusion
there, k in stored steps, 0 the noisiest. It lacks the 1/2 and the length of the step
that would make it a KL (`kl.path_kl` has both), so its unit is none.

What follows has names elsewhere: the sum over a block is `blocks.block_sum`; an image's
score is its largest block, `blocks.top_mean(map, 0)`; the AUROC between images is
`metrics.auroc` of it over all of them; that within images is `localization`: a
block is positive if it holds any OOD pixel, counts if it holds any pixel of the body,
and an image with blocks of one class is left out.

Reference: Kheirandish, Hong and Fridovich-Keil 2026, section 4, as released.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from klip_jax.types import Reducer, Scalar


def klip_reference(
    window: tuple[int, int],
    g: Callable[[Scalar], Scalar],
    *,
    every: int = 1,
    runs_axis: str | None = None,
) -> Reducer:
    """Average (shift / g)^2 over a window of a chain's steps, as the release does.

    With stored step k = i / every where that is whole:
    map = mean_{k0 <= k < k1} sum_channels (shift_k / g(sigma_k))^2. The mean over
    samples is the caller's: over the first axis of what the vmapped chains return.

    Args:
      window: (k0, k1), stored steps, half-open; sampling order, 0 is the noisiest.
      g: sigma -> g, image units; each backend's file has its own.
      every: steps i that are its multiples are stored, >= 1.
      runs_axis: name of the vmapped axis of samples whose mean update is squared, as
        for PaDIS, so that every sample returns the same map; None squares each one's.

    Returns:
      A `Reducer` whose result is the map [H, W]; NaN if no step was in the window.

    Raises:
      ValueError: unless 0 <= k0 < k1 and every >= 1.

    Reference: the release's `klip_score_map`; there the updates of all steps are kept.
    """
    first, last = window
    if not 0 <= first < last:
        raise ValueError(f"window={window}: need 0 <= first < last; stored steps")
    if every < 1:
        raise ValueError(f"every={every}: must be >= 1; 1 stores every step")

    def init(shape):
        return jnp.int32(0), jnp.zeros(()), jnp.zeros(shape[:2])

    def update(acc, info):
        i, count, total = acc
        stored, rest = i // every, i % every
        counts = (rest == 0) & (stored >= first) & (stored < last)
        shift = info.shift
        if runs_axis is not None:
            shift = jax.lax.pmean(shift, runs_axis)
        energy = jnp.sum((shift / g(info.sigma)) ** 2, -1)
        return i + 1, count + counts, total + jnp.where(counts, energy, 0)

    return Reducer(init, update, lambda acc: acc[2] / acc[1])
