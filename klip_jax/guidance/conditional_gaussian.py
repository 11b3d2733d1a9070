"""The conditional Gaussian: p(x0 | x_sigma) is taken to be N(D, v I).

With v = E||x0 - D||^2 / d, x0 given x_sigma and y is Gaussian too, with mean

    D_y = D + v A^T (v A A^T + s^2 I)^-1 (y - A D),

the score is (D_y - D) / sigma^2, and x0 can be drawn exactly. It equals `PiGDM` with
the network's Jacobian replaced by its mean, v / sigma^2 (for an exact denoiser J =
Cov / sigma^2), and needs no derivative of the network. v is the prior's own expected
error at that level. Exact for a white Gaussian prior; on the smooth G16 of the tests
its integrand at many noise levels sums to .654 of the KL.

With a network's v draws trust the prior too much: they miss the measurements by more
than the noise. `inflation` times v mends the mean of that, as in ensemble filters
(Anderson and Anderson 1999).

Reference: Zhu et al. 2023 (DiffPIR) and Zhang et al. 2024 (DAPS), with v measured
instead of chosen.
"""

import jax
from flax import struct
from jax import Array

from klip_jax.guidance.base import Measured
from klip_jax.types import Denoiser


@struct.dataclass
class ConditionalGaussian(Measured):
    """The score without the network's Jacobian, and draws of x0 given x_sigma and y.

    Attributes:
      operator, y, noise_std: see `Measured`.
      inflation: factor > 0 on the prior's expected error.
    """

    inflation: float = 1.0

    def variance(self, denoiser: Denoiser, sigma: Array) -> Array:
        """Return v at `sigma`, scalar, squared image units."""
        return self.inflation * denoiser.variance(sigma)

    def score(self, denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Array, Array]:
        """Return (D, (D_y - D) / sigma^2); see `types.Likelihood`."""
        x0 = denoiser(x, sigma)
        return x0, self.conditional_shift(x0, self.variance(denoiser, sigma)) / sigma**2

    def sample(self, key: Array, x0: Array, variance: Array) -> Array:
        """Draw x ~ N(x0, variance I) given y, exactly where `solve_gram` is exact.

        A draw of the prior and one of the noise are moved by the shift that the mean
        would take: x = x' + v A^T (v A A^T + s^2)^-1 (y + s e - A x').

        Reference: Papandreou and Yuille 2010, section 2.
        """
        key_x, key_y = jax.random.split(key)
        z = jax.random.normal(key_x, x0.shape, x0.dtype)
        e = jax.random.normal(key_y, self.y.shape, self.y.dtype)
        perturbed = self.replace(y=self.y + self.noise_std * e)
        draw = x0 + variance**0.5 * z
        return draw + perturbed.conditional_shift(draw, variance)
