"""The vocabulary of `klip_jax` on one screen.

Everything lives in one coordinate, x_sigma = x0 + sigma * z with z ~ N(0, I) (Karras et
al. 2022): a variance-preserving state is divided by alpha, and sigma := sigma_t /
alpha_t. In it a prior is a denoiser D(x, sigma) = E[x0 | x_sigma = x], its score is
(D - x) / sigma^2, and what the measurements add is

    KL(p(x|y) || p(x)) = 1/2 * integral E|| grad log p(y | x_sigma) ||^2 d(sigma^2).

Ranges: images are float32 [H, W, C] in [0, 1] outside the networks; sigma has the unit
of the image; y and noise_std have the operator's own unit, per real component. A
function takes ONE image; the caller vmaps. Whatever holds arrays or numbers is a frozen
`flax.struct.dataclass` and enters `jit` as an argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Num

PRNGKey: TypeAlias = Key[Array, ""]
Scalar: TypeAlias = Num[Array, ""] | float | int | np.floating
"""A number that may be traced: noise levels, windows, widths."""
Image: TypeAlias = Float[Array, "h w c"]
Heatmap: TypeAlias = Float[Array, "h w"]
Mask: TypeAlias = Bool[Array, "h w"]


@runtime_checkable
class Denoiser(Protocol):
    """A prior over images: the mean D(x, sigma) = E[x0 | x0 + sigma z = x]."""

    def __call__(self, x: Image, sigma: Scalar, /) -> Image:
        """Denoise `x` at noise level `sigma`, image units."""
        ...

    def variance(self, sigma: Scalar, /) -> Scalar:
        """Return its own expected squared error per pixel, squared image units."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """A prior that knows classes."""

    def given(self, label: Int[Array, ""] | int | None, /) -> Denoiser:
        """Return the denoiser of one class; None is the null label, no class."""
        ...


@runtime_checkable
class LinearOperator(Protocol):
    """A scanner: y = A x + n; `operators.base.Operator` gives all but `__call__`."""

    @property
    def in_shape(self) -> tuple[int, ...]: ...
    @property
    def out_shape(self) -> tuple[int, ...]: ...
    @property
    def out_dtype(self) -> Any: ...

    def __call__(self, x: Float[Array, "..."], /) -> Num[Array, "..."]:
        """Apply A to `x` [in_shape]; returns [out_shape]."""
        ...

    def adjoint(self, y: Num[Array, "..."], /) -> Float[Array, "..."]:
        """Apply the conjugate transpose of A to `y` [out_shape]; returns [in_shape]."""
        ...

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar, /
    ) -> Num[Array, "..."]:
        """Return u with (variance * A A^T + noise_var * I) u = r [out_shape]."""
        ...

    def naive_inverse(self, y: Num[Array, "..."], /) -> Float[Array, "..."]:
        """Return a quick picture of `y` [in_shape], image units."""
        ...


class Scan(NamedTuple):
    """What was measured: y = A x0 + n, n ~ N(0, noise_std^2 I).

    Attributes:
      operator: A.
      y: the measurements [operator.out_shape].
      noise_std: > 0, in the unit of y, per real component; one number, or one a
        measurement [operator.out_shape].
    """

    operator: LinearOperator
    y: Num[Array, "..."]
    noise_std: Float[Array, "..."] | float


@runtime_checkable
class Guidance(Protocol):
    """An approximation of grad log p(y | x_sigma); holds hyper-parameters only.

    One that can also draw x0 given x and y has `draw(key, denoiser, scan, x0, sigma)`;
    see `guidance.conditional_gaussian`.
    """

    def score(
        self, denoiser: Denoiser, scan: Any, x: Image, sigma: Scalar, /
    ) -> tuple[Image, Image]:
        """Return (x0, g): the denoised image and g = grad_x log p(y | x_sigma = x)."""
        ...


class StepInfo(NamedTuple):
    """What one sampler step did, for the reducers.

    Attributes:
      sigma: noise level before the step, image units.
      sigma_next: noise level after it.
      x: the state before the step.
      x0: the prior's denoised image.
      shift: displacement the guidance caused, in image units.
      noise_var: variance of the step's own Gaussian noise; 0 where the step is
        deterministic, and then it has no path KL.
    """

    sigma: Scalar
    sigma_next: Scalar
    x: Image
    x0: Image
    shift: Image
    noise_var: Scalar


@runtime_checkable
class Sampler(Protocol):
    """How to go down the noise levels; holds hyper-parameters only."""

    @property
    def calls_per_step(self) -> int:
        """Network calls of one step."""
        ...

    def init(self, key: PRNGKey, shape: tuple[int, ...], sigma: Scalar, /) -> Image:
        """Draw the first state, N(0, sigma^2 I)."""
        ...

    def step(
        self,
        key: PRNGKey,
        x: Image,
        denoiser: Denoiser,
        guidance: Guidance,
        scan: Any,
        sigma: Scalar,
        sigma_next: Scalar,
        /,
    ) -> tuple[Image, StepInfo]:
        """Go from `sigma` to `sigma_next`."""
        ...


class Reducer(NamedTuple):
    """A fold over the steps of a chain, carried by the scan so that memory is constant.

    Attributes:
      init: (shape) -> accumulator.
      update: (accumulator, StepInfo) -> accumulator.
      finalize: (accumulator) -> result.
    """

    init: Callable[[tuple[int, ...]], Any]
    update: Callable[[Any, StepInfo], Any]
    finalize: Callable[[Any], Any]


class Posterior(NamedTuple):
    """Draws of p(x|y) of one scan, made once for all detectors.

    Attributes:
      samples: the draws, image units.
      mean, std: their mean and standard deviation.
      misfit: mean over samples and measurements of |y - A x|^2 / noise_std^2; 1 on
        average where prior, operator and noise are right.
      first_bad_step: first step of any chain that was not finite, -1 if none.
    """

    samples: Float[Array, "n h w c"]
    mean: Image
    std: Image
    misfit: Float[Array, ""]
    first_bad_step: Int[Array, ""]


class Given(NamedTuple):
    """What a detector may look at, of one image; what is not there is None.

    Attributes:
      prior: a denoiser, or a `Conditional`.
      scan, posterior: what was measured, and draws of its posterior.
      image: the image itself, where no scanner is between [H, W, C].
      classifier: a network that names classes; see `classifiers`.
      eligible: where an anomaly could be [H, W].
    """

    prior: Any
    scan: Scan | None = None
    posterior: Posterior | None = None
    image: Image | None = None
    classifier: Any = None
    eligible: Mask | None = None

    @property
    def picture(self) -> Image:
        """The image itself, or the mean of the posterior samples.

        Raises:
          ValueError: if there is neither.
        """
        if self.image is not None:
            return self.image
        if self.posterior is None:
            raise ValueError("there is neither an image nor a posterior to look at")
        return self.posterior.mean


class Detection(NamedTuple):
    """What a detector says of one image; bigger is more out-of-distribution.

    Attributes:
      score: of the image.
      stderr: its Monte Carlo standard error, NaN where the detector has none.
      heatmap: where the evidence lies; None where the detector has no map.
    """

    score: Float[Array, ""]
    stderr: Float[Array, ""]
    heatmap: Heatmap | None = None


@runtime_checkable
class Detector(Protocol):
    """One shape for KLIP, every baseline and every control; see `detectors.base`.

    `look` is all that is expensive; `judge` is cheap, so that tables, laws and
    combinations are made from what was looked at once.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of `Given` that must be there; "picture" is image or posterior."""
        ...

    @property
    def fits(self) -> bool:
        """Whether `judge` works only after `fit`."""
        ...

    @property
    def network_calls(self) -> int:
        """Network calls of one `look`, those of the shared posterior not counted."""
        ...

    def look(self, key: PRNGKey, given: Given, /) -> Any:
        """Return what was seen, a pytree of arrays. Pure: jit, vmap, shard it."""
        ...

    def judge(self, looked: Any, /) -> Detection:
        """Turn what was seen into a `Detection`, without a network. Pure."""
        ...

    def fit(self, looked: Any, /) -> "Detector":
        """Return the detector fitted to what it saw of N in-distribution images."""
        ...

    def extras(self, looked: Any, /) -> dict[str, jax.Array]:
        """Return named arrays beside the detection, to be stored and shown."""
        ...
