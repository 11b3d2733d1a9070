"""The conditional Gaussian: p(x0 | x_sigma) is taken to be N(D, v I).

With v = E||x0 - D||^2 / d, x0 given x_sigma and y is Gaussian too, with mean

    D_y = D + v A^T (v A A^T + s^2 I)^-1 (y - A D),

the score is (D_y - D) / sigma^2, and x0 can be drawn exactly. It equals `PiGDM` with
the network's Jacobian replaced by its mean, v / sigma^2 (for an exact denoiser J =
Cov / sigma^2), and needs no derivative of the network. v is the prior's own expected
error at that level. Exact for a white Gaussian prior; on the smooth G16 of the tests
its integrand at many noise levels sums to .654 of the KL.

With a network's v draws trust the prior too much: they miss the measurements by more
than the noise. `prior_inflation` times v mends the mean of that, as in ensemble filters
(Anderson and Anderson 1999).

Reference: Zhu et al. 2023 (DiffPIR) and Zhang et al. 2024 (DAPS), with v measured
instead of chosen.
"""

import math

import jax

from klip_jax import struct
from klip_jax.scan import conditional_shift, perturbed
from klip_jax.types import Denoiser, Image, PRNGKey, Scalar, Scan


@struct.dataclass
class ConditionalGaussian:
    """The score without the network's Jacobian, and draws of x0 given x_sigma and y.

    Attributes:
      prior_inflation: factor > 0 on the prior's expected error.

    Raises:
      ValueError: if it is not positive and finite.
    """

    prior_inflation: Scalar = 1.0

    def __post_init__(self):
        inflation = self.prior_inflation
        if isinstance(inflation, int | float) and not 0 < inflation < math.inf:
            raise ValueError(
                f"prior_inflation={inflation}: must be positive and finite; 1 takes "
                "the prior's own expected error"
            )

    def variance(self, denoiser: Denoiser, sigma: Scalar) -> Scalar:
        """Return v at `sigma`, squared image units."""
        return self.prior_inflation * denoiser.variance(sigma)

    def score(
        self, denoiser: Denoiser, scan: Scan, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, (D_y - D) / sigma^2); see `types.Guidance`."""
        x0 = denoiser(x, sigma)
        shift = conditional_shift(scan, x0, self.variance(denoiser, sigma))
        return x0, shift / sigma**2

    def draw(
        self,
        key: PRNGKey,
        denoiser: Denoiser,
        scan: Scan,
        x0: Image,
        sigma: Scalar,
    ) -> tuple[Image, Image]:
        """Draw from N(x0, v I) given y, exactly where the solve is exact.

        A draw of the prior and one of the noise are moved by the shift that the mean
        would take: x = x' + v A^T (v A A^T + s^2)^-1 (y + s e - A x').

        Args:
          key: of the draw.
          denoiser: the prior, for v.
          scan: what was measured.
          x0: D at `sigma`, image units.
          sigma: noise level, image units.

        Returns:
          (draw, shift): the draw, and the move D_y - D of the mean, image units.

        Reference: Papandreou and Yuille 2010, section 2.
        """
        variance = self.variance(denoiser, sigma)
        key_x, key_y = jax.random.split(key)
        z = jax.random.normal(key_x, x0.shape, x0.dtype)
        x = x0 + variance**0.5 * z
        draw = x + conditional_shift(perturbed(key_y, scan), x, variance)
        return draw, conditional_shift(scan, x0, variance)
