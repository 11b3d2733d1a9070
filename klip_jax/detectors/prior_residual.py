"""What the prior takes away from the picture, at one noise level or at several.

    v_s = E_z [x - D(x + s z, s)] / s,   map = sum over s of the energy of v_s

v_s is -s times the prior's score, averaged over noise: the part of a score test that
needs no measurements. One family, by its members:

    no noise (pairs 0), one level     `controls.DenoisedDistance`, up to a factor
    no noise, many levels             what `msma` takes the lengths of
    noise, one level (the default)    a reconstruction noised once
    noise, many levels in a window    KLIP's coherent map but for what y still pulls
                                      (`klip.KLIP`, which averages over samples too)

An even number of draws in pairs z, -z leaves of D's first order nothing, so that on a
Gaussian prior one pair is exact. Weights 1 / s^2 of the levels, as in the KL (levels in
geometric progression).

Reference: docs/theory.md, sections 6 and 12; Hammersley and Morton 1956 (antithetic
pairs). The filters are those of `base_filtered`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base_filtered import FilteredDetector
from klip_jax.detectors.base_settings import check_count, check_positive
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, Image, PRNGKey, Scalar


@struct.dataclass
class PriorResidual(FilteredDetector):
    """The energy of what the prior takes away from the noised picture.

    Attributes:
      levels: noise levels, > 0, image units.
      pairs: of antithetic draws a level, two network calls each; 0 adds no noise, one
        call a level.
    """

    levels: tuple[Scalar, ...] = (0.1,)
    pairs: int = struct.field(pytree_node=False, default=4)

    def __post_init__(self):
        super().__post_init__()
        check_positive(levels=self.levels)
        check_count(0, pairs=self.pairs)

    @property
    def network_calls(self) -> int:
        return len(self.levels) * max(2 * self.pairs, 1)

    def look(self, key: PRNGKey, given: Given) -> Float[Array, "k h w c"]:
        """Return v_s of each level, without unit; level k uses fold_in(key, k)."""
        prior, levels = at_null_label(given.prior), jnp.asarray(self.levels)
        return residuals(key, given.picture, prior, levels, pairs=self.pairs)

    def judge(self, looked: Float[Array, "k h w c"]) -> Detection:
        """Score the sum over levels of the energies."""
        return self.of_map(jax.vmap(self.energy)(looked).sum(0))


def residuals(
    key: PRNGKey,
    x: Image,
    prior: Denoiser,
    levels: Float[Array, " k"],
    *,
    pairs: int,
) -> Float[Array, "k h w c"]:
    """Return E_z [x - D(x + s z, s)] / s of each level s.

    Args:
      key: pair n of level k uses fold_in(fold_in(key, k), n).
      x: image, image units.
      prior: a denoiser.
      levels: noise levels, > 0, image units.
      pairs: of draws z, -z, >= 0; 0 takes z = 0.
    """

    def at(inputs):
        index, sigma = inputs
        key_level = jax.random.fold_in(key, index)

        def away(n):
            z = jax.random.normal(jax.random.fold_in(key_level, n), x.shape, x.dtype)
            both = [x - prior(x + sign * sigma * z, sigma) for sign in (1, -1)]
            return (both[0] + both[1]) / 2

        if pairs:
            v = jax.lax.map(away, jnp.arange(pairs)).mean(0)
        else:
            v = x - prior(x, sigma)
        return v / sigma

    return jax.lax.map(at, (jnp.arange(len(levels)), levels))
