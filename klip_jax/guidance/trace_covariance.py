"""Trace-covariance guidance: p(x0 | x_sigma) is taken to be N(D, v I), v = tr C / d.

    grad_x log p(y | x) ~ J^T A^T (v A A^T + s^2 I)^-1 (y - A D),    J = dD/dx.

An exact denoiser has C = Cov(x0 | x_sigma = x) = sigma^2 J, so v = sigma^2 tr J / d at
this x, from the network itself: no table, no prior variance. tr J is estimated by
Hutchinson's rule, E z^T J z = tr J for random signs z. Exact for a white Gaussian
prior; on a smooth one v is too small for the strong directions of C, the score too
large, and its energy at many noise levels twice the KL (docs/theory.md, section 8). On
any Gaussian prior it is `PiGDM` with the prior's own expected error.

Reference: Finzi et al. 2023 and Peng et al. 2024 (covariances in guidance); Hutchinson
1990 (the trace).
"""

import jax
import jax.numpy as jnp

from klip_jax import struct
from klip_jax.scan import data_score
from klip_jax.types import Denoiser, Image, Scalar, Scan


@struct.dataclass
class TraceCovariance:
    """The score through the network's Jacobian, and its trace.

    Attributes:
      probes: random signs that estimate the trace, one derivative of the network each;
        0 takes all d unit vectors, exact but for small images only.
      seed: of the signs. They are the same at every x, so that the guidance is
        deterministic and the path KL of its chain a bound.

    Raises:
      ValueError: if `probes` is negative.
    """

    probes: int = struct.field(pytree_node=False, default=4)
    seed: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self):
        if self.probes < 0 or self.probes % 1:
            raise ValueError(
                f"probes={self.probes}: must be an integer >= 0; 0 is the exact trace"
            )

    def score(
        self, denoiser: Denoiser, scan: Scan, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, J^T A^T (v A A^T + s^2)^-1 (y - A D)); see `types.Guidance`."""
        x0, pullback = jax.vjp(lambda x: denoiser(x, sigma), x)
        variance = sigma**2 * self._mean_jacobian(pullback, x)
        return x0, pullback(data_score(scan, x0, variance))[0]

    def _mean_jacobian(self, pullback, x):
        """Return tr J / d, at least 0, which a network's own J need not have."""
        if self.probes:
            shape, key = (self.probes, *x.shape), jax.random.key(self.seed)
            z, weight = jax.random.rademacher(key, shape, x.dtype), 1 / self.probes
        else:
            z, weight = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape), 1.0
        # One after another: the memory of one derivative.
        traces = jax.lax.map(lambda z: jnp.vdot(z, pullback(z)[0]), z)
        return jnp.maximum(weight * traces.sum() / x.size, 0)
