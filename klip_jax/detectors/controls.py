"""The dumb controls: what a detector must beat before it is believed.

Each is a map [H, W] from the same reconstruction, bigger = more anomalous. Lesions
placed inside bodies give any map that is bright inside bodies a score for nothing.
"""

import jax.numpy as jnp
from jax import Array

from klip_jax.filters import pool, smooth, white_noise_passed
from klip_jax.types import Denoiser, LinearOperator


def controls(
    y: Array,
    operator: LinearOperator,
    prior: Denoiser,
    mean: Array,
    std: Array,
    eligible: Array,
    *,
    scale: float = 0.0,
    emphasis: float = 0.0,
    pooling: float = 0.0,
    sigma: float = 0.1,
) -> dict[str, Array]:
    """Return {name: map [H, W]}.

    intensity, intensity_inverted: the reconstruction and its negative;
    intensity_distance: |reconstruction - its median over eligible tissue|;
    gradient: its squared gradient; residual: (A^T (y - A x))^2; posterior_std: the
    samples' spread; denoised_distance: (x - D(x, sigma))^2, what the prior alone would
    move. The last and the residual emphasise the same scale as our map and are
    pooled like it.

    Args:
      y: measurements [operator.out_shape].
      operator: A.
      prior: a denoiser.
      mean, std: of the posterior samples [H, W, C].
      eligible: where an anomaly could be [H, W]; where it is empty, the whole image.
      scale, emphasis, pooling: of `kl.levels_kl`; those that the detector uses.
      sigma: noise level of `denoised_distance`, image units.
    """
    grey = mean.mean(-1)
    tissue = jnp.where(eligible.any(), eligible, True)
    median = jnp.nanmedian(jnp.where(tissue, grey, jnp.nan))
    rows, columns = jnp.gradient(grey)
    residual = operator.adjoint(y - operator(mean))
    moved = mean - prior(mean, jnp.asarray(sigma, mean.dtype))

    def energy(v):
        filtered = smooth(v, scale) ** 2 / white_noise_passed(scale)
        return pool(jnp.sum((1 - emphasis) * v**2 + emphasis * filtered, -1), pooling)

    return {
        "intensity": grey,
        "intensity_inverted": -grey,
        "intensity_distance": jnp.abs(grey - median),
        "gradient": rows**2 + columns**2,
        "residual": energy(residual),
        "posterior_std": jnp.sqrt(jnp.mean(std**2, -1)),
        "denoised_distance": energy(moved),
    }
