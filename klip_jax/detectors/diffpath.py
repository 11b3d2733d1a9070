"""DiffPath: how the path from an image to noise runs and bends.

DDIM backwards, from x_0 = x at the lowest level, with eps_i = (x_i - D(x_i, s_i))/s_i:

    x_{i+1} = x_i + (s_{i+1} - s_i) eps_i,   d eps_i = K (eps_{i+1} - eps_i),
    six sums over steps and pixels: of eps, eps^2, eps^3, d eps, (d eps)^2, (d eps)^3.

1D: sqrt of the sum of (d eps)^2, and a kernel density of it. 6D: all six, and a mixture
of Gaussians. Either is fitted to features of in-distribution images; the score is the
negative log-likelihood of the standardised features, nats. It says which image, not
where in it.

Departures: D is not clipped to the range of images, so that eps is the network's own.
The kernel's width is relative to the spread of the features: the paper's 5 is absolute
and belongs to its image size, because the features are sums over pixels. The mixtures
tried are smaller: 50 and 100 components want tens of thousands of images.

Reference: Heng, Thiery and Soh 2024 (DiffPath); docs/theory.md, section 12.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_density import Mixture, kernels, mixture
from klip_jax.detectors.base_fit import fitted
from klip_jax.detectors.base_settings import check_count, check_increasing
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, Image, PRNGKey, Scalar

FEATURES = ("eps", "eps^2", "eps^3", "d eps", "(d eps)^2", "(d eps)^3")
LEVELS = tuple(float(s) for s in np.geomspace(0.01, 20.0, 10))
"""Noise levels of the path, image units: from almost none to almost no image."""


@struct.dataclass
class _Path(Detector):
    """What both share: the features of the path, one network call a level.

    Attributes:
      levels: noise levels, > 0, increasing, image units.
      law: of the features, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = LEVELS
    law: Mixture | None = None

    unit: ClassVar[str] = "nats"
    fits = True

    def __post_init__(self):
        check_increasing(levels=self.levels)

    @property
    def network_calls(self) -> int:
        return len(self.levels)

    def look(self, key: PRNGKey, given: Given) -> Float[Array, "6"]:
        """Return the six sums of `FEATURES`."""
        prior, levels = at_null_label(given.prior), jnp.asarray(self.levels)
        return features(given.picture, prior, levels)


@struct.dataclass
class DiffPath1D(_Path):
    """How unusual sqrt(sum (d eps)^2) is, by a kernel density.

    Attributes:
      bandwidth: of the Gaussian kernel in standard deviations of the fitted values; 0
        takes Silverman's rule for their number.
    """

    bandwidth: Scalar = 0.0

    def fit(self, looked: Float[Array, "n 6"]) -> "DiffPath1D":
        return dataclasses.replace(self, law=kernels(speed(looked), self.bandwidth))

    def judge(self, looked: Float[Array, "6"]) -> Detection:
        score = -fitted(self, self.law).log_prob(speed(looked))
        return Detection(score, jnp.full((), jnp.nan))


@struct.dataclass
class DiffPath6D(_Path):
    """How unusual all six features are, by a mixture of Gaussians.

    Attributes:
      components: numbers of components to try.
      folds: of the cross-validated likelihood that chooses among them.
      seed: of the mixture's first guess.
    """

    components: tuple[int, ...] = struct.field(pytree_node=False, default=(1, 2, 5))
    folds: int = struct.field(pytree_node=False, default=10)
    seed: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self):
        super().__post_init__()
        check_count(2, folds=self.folds)

    def fit(self, looked: Float[Array, "n 6"]) -> "DiffPath6D":
        """Fit on the host; raises a ValueError where a fold has too few images."""
        counts = self.components
        law = mixture(looked, components=counts, folds=self.folds, seed=self.seed)
        return dataclasses.replace(self, law=law)

    def judge(self, looked: Float[Array, "6"]) -> Detection:
        score = -fitted(self, self.law).log_prob(looked)
        return Detection(score, jnp.full((), jnp.nan))


def features(
    x: Image, prior: Denoiser, levels: Float[Array, " level_count"]
) -> Float[Array, "6"]:
    """Return the six sums along the path from the image to noise.

    Args:
      x: image, image units, taken to be at levels[0].
      prior: a denoiser.
      levels: K noise levels, increasing, image units; the paper has K = 10, from almost
        no noise to almost no image.

    Returns:
      In the order of `FEATURES`, without unit.

    Reference: Heng, Thiery and Soh 2024; differences as in their code, the path one
    unit of time long, however the levels are spaced.
    """

    def powers(v):
        return jnp.stack([jnp.sum(v**p) for p in (1, 2, 3)])

    def noise_of(x, sigma):
        return (x - prior(x, sigma)) / sigma

    def step(carry, inputs):
        x, eps, sums, rates = carry
        sigma, sigma_next = inputs
        x = x + (sigma_next - sigma) * eps
        new = noise_of(x, sigma_next)
        rate = len(levels) * (new - eps)
        return (x, new, sums + powers(new), rates + powers(rate)), None

    eps = noise_of(x, levels[0])
    carry = (x, eps, powers(eps), jnp.zeros(3, x.dtype))
    (_, _, sums, rates), _ = jax.lax.scan(step, carry, (levels[:-1], levels[1:]))
    return jnp.concatenate([sums, rates])


def speed(path_features: Float[Array, "*n 6"]) -> Float[Array, "*n 1"]:
    """Return sqrt(sum (d eps)^2), the one feature of DiffPath-1D."""
    return jnp.sqrt(jnp.asarray(path_features)[..., FEATURES.index("(d eps)^2"), None])
