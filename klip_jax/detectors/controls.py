"""The dumb controls: what a detector must beat before it is believed.

Each is a map [H, W] of the same reconstruction x, bigger = more anomalous. Lesions
placed inside bodies give any map that is bright inside bodies a score for nothing.

    Intensity             x                     IntensityInverted    -x
    EqualisedIntensity    rank of x             IntensityDistance    |x - median|
    Gradient              |grad x|^2            Random               uniform
    PosteriorSpread       sd of the samples
    Residual              (A^T (y - A x))^2     DenoisedDistance     (x - D(x, sigma))^2

x is the mean over channels where a grey is wanted. The last two emphasise changes of
the same size as KLIP's map and are pooled like it.

Reference: docs/theory.md, section 12.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import posterior_of, scan_of
from klip_jax.detectors.base_filtered import FilteredDetector
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_settings import check_positive
from klip_jax.posterior import at_null_label
from klip_jax.types import Detection, Given, Heatmap, Image, PRNGKey, Scalar


@struct.dataclass
class _Control(MapDetector):
    """What controls share: `look` returns the map."""

    control = True

    def judge(self, looked: Heatmap) -> Detection:
        return self.of_map(looked)


@struct.dataclass
class Intensity(_Control):
    """The grey of the picture."""

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        return _grey(given)


@struct.dataclass
class IntensityInverted(_Control):
    """The negative grey of the picture."""

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        return -_grey(given)


@struct.dataclass
class EqualisedIntensity(_Control):
    """The rank of the grey among all pixels, in [0, 1)."""

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        grey = _grey(given)
        rank = jnp.argsort(jnp.argsort(grey.ravel())) / grey.size
        # Ranks of NaN are numbers; what is not finite must stay so.
        return rank.reshape(grey.shape) + 0 * grey


@struct.dataclass
class IntensityDistance(_Control):
    """|grey - its median over eligible tissue|; where that is empty, over all."""

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        grey, eligible = _grey(given), given.eligible
        if eligible is None:
            return jnp.abs(grey - jnp.median(grey))
        tissue = eligible | ~eligible.any()
        return jnp.abs(grey - jnp.nanmedian(jnp.where(tissue, grey, jnp.nan)))


@struct.dataclass
class Gradient(_Control):
    """The squared gradient of the grey, by central differences."""

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        rows, columns = jnp.gradient(_grey(given))
        return rows**2 + columns**2


@struct.dataclass
class PosteriorSpread(_Control):
    """The standard deviation of the posterior samples, root mean square of channels."""

    needs = ("posterior",)

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        return jnp.sqrt(jnp.mean(posterior_of(given).std ** 2, -1))


@struct.dataclass
class Random(_Control):
    """Uniform numbers: what no information gives."""

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        return jax.random.uniform(key, given.picture.shape[:2])


@struct.dataclass
class Residual(FilteredDetector):
    """What the picture leaves of the measurements, projected back, squared."""

    control = True
    needs = ("picture", "scan")

    def look(self, key: PRNGKey, given: Given) -> Image:
        operator, y, _ = scan_of(given)
        return operator.adjoint(y - operator(given.picture))


@struct.dataclass
class DenoisedDistance(FilteredDetector):
    """How far the prior alone would move the picture, squared; one network call.

    Attributes:
      sigma: noise level of the denoiser, image units.
    """

    control = True
    sigma: Scalar = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_positive(sigma=self.sigma)

    @property
    def network_calls(self) -> int:
        return 1

    def look(self, key: PRNGKey, given: Given) -> Image:
        x, prior = given.picture, at_null_label(given.prior)
        return x - prior(x, jnp.asarray(self.sigma, x.dtype))


def _grey(given: Given) -> Float[Array, "h w"]:
    return given.picture.mean(-1)
