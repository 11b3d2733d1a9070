"""Variance over random subsets of the measurements: does the answer hold still?

    V = 1/(K - 1) sum_k |x^_k - mean|^2,   x^_k reconstructed from m_k A and m_k y,

m_k a random diagonal of 0 and 1 that keeps a share of the measurements. Where the prior
knows the image, any subset gives the same; where it does not, the image follows the
measurements that are left. Nothing is calibrated.

A dropped measurement has a forward operator of zero and the value zero: its residual is
zero at any image, so it has no say, exactly as if its row were not there.

Departures: a diffusion prior and a sampler with the conditional Gaussian in place of a
learned proximal network. All chains start from the same noise, so that as in the paper
only the subset varies.

Reference: Kim and Fridovich-Keil 2025, arXiv 2510.10947; docs/theory.md, section 12.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Num

from klip_jax import sde, struct
from klip_jax.detectors.base import scan_of
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_settings import check_count, check_increasing
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.base import Operator
from klip_jax.operators.base_ct import Beam
from klip_jax.operators.mri import Cartesian
from klip_jax.posterior import at_null_label
from klip_jax.sample import sample
from klip_jax.samplers.resampling import Resampling
from klip_jax.types import (
    Denoiser,
    Detection,
    Given,
    Heatmap,
    Image,
    LinearOperator,
    PRNGKey,
    Sampler,
    Scalar,
    Scan,
)

SLICES = {Beam: 0, Cartesian: 1}
"""Axis of y along which the scanner measures: whole views, whole lines of k-space."""


@struct.dataclass
class SubsetVariance(MapDetector):
    """The variance of K reconstructions, each from a share of the measurements.

    Attributes:
      subsets: K >= 2.
      share: of the measurements that a subset keeps, in (0, 1).
      whole_slices: drop whole views of CT and whole lines of MRI (`SLICES`), as a
        scanner would; other operators, or all if False, lose single measurements.
      sampler: of every chain.
      steps: T noise levels of a chain.
      sigma_max, sigma_min: the highest and the lowest, image units.
    """

    subsets: int = struct.field(pytree_node=False, default=8)
    share: float = struct.field(pytree_node=False, default=0.5)
    whole_slices: bool = struct.field(pytree_node=False, default=True)
    sampler: Sampler = Resampling()
    steps: int = struct.field(pytree_node=False, default=20)
    sigma_max: Scalar = 20.0
    sigma_min: Scalar = 0.01

    needs = ("scan",)

    def __post_init__(self):
        super().__post_init__()
        check_count(2, subsets=self.subsets, steps=self.steps)
        check_increasing(sigma_min_and_max=(self.sigma_min, self.sigma_max))
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share}: must be in (0, 1)")

    @property
    def network_calls(self) -> int:
        return self.subsets * self.steps * self.sampler.calls_per_step

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        """Return the variance, squared image units."""
        scan, rising = scan_of(given), (self.steps, self.sigma_min, self.sigma_max)
        reconstructed = reconstructions(
            key,
            scan,
            at_null_label(given.prior),
            jnp.append(sde.log_levels(*rising)[::-1], 0.0),
            subsets=self.subsets,
            share=self.share,
            axis=slices(scan.operator) if self.whole_slices else None,
            sampler=self.sampler,
        )
        return reconstructed.variance

    def judge(self, looked: Heatmap) -> Detection:
        return self.of_map(looked)


class Reconstructions(NamedTuple):
    """Moments of the K reconstructions.

    Attributes:
      variance: the map, squared image units, summed over channels.
      mean: image units.
    """

    variance: Heatmap
    mean: Image


def reconstructions(
    key: PRNGKey,
    scan: Scan,
    prior: Denoiser,
    sigmas: Float[Array, " t"],
    *,
    sampler: Sampler,
    subsets: int = 8,
    share: float = 0.5,
    axis: int | None = 0,
) -> Reconstructions:
    """Reconstruct one image from K random subsets of its measurements.

    Args:
      key: split into one that all chains share and one for the subsets.
      scan: what was measured.
      prior: a denoiser.
      sigmas: noise levels of the chains [T + 1], decreasing, the last 0, image units.
      sampler: of every chain. `DDIM()` draws nothing; `Resampling()` errs less, and its
        draws are the same for all subsets.
      subsets: K >= 2.
      share: of the measurements that a subset keeps, in (0, 1).
      axis: of y along which whole slices stay or go (0: the views of CT); None takes
        each measurement alone. With few slices, as of coils, subsets coincide, and
        their variance is 0.

    Returns:
      A `Reconstructions`.

    Raises:
      ValueError: if there are under 2 subsets, or `share` keeps nothing or everything.

    Reference: Kim and Fridovich-Keil 2025; see the module for departures.
    """
    check_count(2, subsets=subsets)
    operator, y, noise_std = scan
    key_chain, key_subsets = jax.random.split(key)
    real = jnp.finfo(y.dtype).dtype

    def chain(k):
        key_k = jax.random.fold_in(key_subsets, k)
        keep = random_subset(key_k, y.shape, share=share, axis=axis)
        # A `where`, so that not even a NaN of a dropped measurement gets through.
        kept = Scan(
            Subset(operator, keep.astype(real)), jnp.where(keep, y, 0), noise_std
        )
        guidance, shape = ConditionalGaussian(), operator.in_shape
        return sample(
            key_chain, sampler, prior, sigmas, shape, guidance=guidance, scan=kept
        ).x

    x = jax.vmap(chain)(jnp.arange(subsets))
    return Reconstructions(jnp.sum(x.var(0, ddof=1), -1), x.mean(0))


def slices(operator: LinearOperator) -> int | None:
    """Return the axis of y that holds whole slices of a scanner, None if none is."""
    axes = (axis for kind, axis in SLICES.items() if isinstance(operator, kind))
    return next(axes, None)


def random_subset(
    key: PRNGKey, shape: tuple[int, ...], *, share: float, axis: int | None
) -> Bool[Array, "..."]:
    """Draw which measurements stay [shape], exactly round(share * n) of n.

    Raises:
      ValueError: if that is none or all.
    """
    n = math.prod(shape) if axis is None else shape[axis]
    count = round(share * n)
    if not 0 < count < n:
        raise ValueError(
            f"share={share} keeps {count} of {n} measurements along axis={axis}; it "
            "must keep some and drop some"
        )
    keep = jax.random.permutation(key, n) < count
    if axis is None:
        return keep.reshape(shape)
    ones = [1] * len(shape)
    ones[axis] = n
    return jnp.broadcast_to(keep.reshape(ones), shape)


class Subset(Operator):
    """keep * A: some rows of an operator, the others zero.

    `solve_gram` is conjugate gradients, stopped early: the exact solution of A does not
    solve the subset's, and the prior's error is larger than the iteration's.

    Args:
      inner: A.
      keep: 1 where a measurement stays, 0 where it is dropped [inner.out_shape].
    """

    tolerance = 1e-3
    most_iterations = 100

    def __init__(self, inner: LinearOperator, keep: Float[Array, "..."]):
        self.inner, self.keep = inner, keep
        self.in_shape, self.out_shape = inner.in_shape, inner.out_shape
        self.out_dtype = inner.out_dtype

    def __call__(self, x: Float[Array, "..."]) -> Num[Array, "..."]:
        return self.keep * self.inner(x)

    def adjoint(self, y: Num[Array, "..."]) -> Float[Array, "..."]:
        return self.inner.adjoint(self.keep * y)
