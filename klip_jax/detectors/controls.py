"""The dumb controls: what a detector must beat before it is believed.

Each is a map [H, W] from the same reconstruction, bigger = more anomalous. Lesions
placed inside bodies give any map that is bright inside bodies a score for nothing.
"""

import jax.numpy as jnp
from jax import Array

from klip_jax.kl import smooth
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
    sigma: float = 0.1,
) -> dict[str, Array]:
    """Return {name: map [H, W]}.

    intensity, intensity_inverted: the reconstruction and its negative;
    intensity_distance: |reconstruction - its median over eligible tissue|;
    gradient: its squared gradient; residual: (A^T (y - A x))^2; posterior_std: the
    samples' spread; denoised_distance: (x - D(x, sigma))^2, what the prior alone would
    move. The last and the residual are filtered like our map before they are squared.

    Args:
      y: measurements [operator.out_shape].
      operator: A.
      prior: a denoiser.
      mean, std: of the posterior samples [H, W, C].
      eligible: where an anomaly could be [H, W]; where it is empty, the whole image.
      scale: of `kl.smooth`, pixels; the one that the detector uses.
      sigma: noise level of `denoised_distance`, image units.
    """
    grey = mean.mean(-1)
    tissue = jnp.where(eligible.any(), eligible, True)
    median = jnp.nanmedian(jnp.where(tissue, grey, jnp.nan))
    rows, columns = jnp.gradient(grey)
    residual = smooth(operator.adjoint(y - operator(mean)), scale)
    moved = smooth(mean - prior(mean, jnp.asarray(sigma, mean.dtype)), scale)
    return {
        "intensity": grey,
        "intensity_inverted": -grey,
        "intensity_distance": jnp.abs(grey - median),
        "gradient": rows**2 + columns**2,
        "residual": jnp.sum(residual**2, -1),
        "posterior_std": jnp.sqrt(jnp.mean(std**2, -1)),
        "denoised_distance": jnp.sum(moved**2, -1),
    }
