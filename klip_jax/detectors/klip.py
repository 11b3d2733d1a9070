"""KLIP: how far the measurements pulled the posterior from the prior, and where.

1. The KL integrand of each posterior sample at K noise levels (`kl.levels_kl`).
2. The map is the chosen one of `kl.MAPS`, by blocks of pixels.
3. The score is the mean of its largest blocks, with a jackknife error over samples.

2 K network calls a posterior sample, no derivative of the network. The defaults were
chosen on real images with anomalies simulated there, CT, MRI and faces of 64 pixels.

Reference: docs/theory.md, sections 5 to 7; Kheirandish, Hong and Fridovich-Keil 2026,
section 4; the estimator is ours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import kl, sde, struct
from klip_jax.blocks import top_mean
from klip_jax.calibration import error_ratio
from klip_jax.detectors.base import Detector, posterior_of, scan_of
from klip_jax.detectors.base_fit import fitted, spread
from klip_jax.detectors.base_settings import (
    check_count,
    check_increasing,
    check_range,
    check_widths,
)
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.posterior import PosteriorSampler, at_null_label
from klip_jax.types import Detection, Given, Guidance, Heatmap, PRNGKey, Scalar, Scan

POSTERIOR = PosteriorSampler()
"""Of `KLIP.__call__`."""


class Looked(NamedTuple):
    """What one look leaves, nats with a true likelihood score and no filter weight.

    Attributes:
      heatmap: the chosen map, integrated over the levels.
      left_out: its block map without one sample; their mean is the block map.
      density: all of `kl.MAPS` at each level, summed over the image.
    """

    heatmap: Heatmap
    left_out: Float[Array, "n hb wb"]
    density: Float[Array, "k 3"]


class Position(NamedTuple):
    """Mean and standard deviation of each block over in-distribution images."""

    mean: Float[Array, "hb wb"]
    std: Float[Array, "hb wb"]


@struct.dataclass
class KLIP(Detector):
    """The KL between posterior and prior, over a window of noise levels.

    Attributes:
      guidance: gives the likelihood score at each level; see `types.Guidance`.
      level_count: K noise levels, >= 2.
      window: their lowest and highest, image units.
      chunk: levels evaluated at once, memory for speed; divides K.
      map: one of `kl.MAPS`, what is shown and scored.
      filter_width: size of the changes that coherent maps count more, pixels.
      filter_weight: how far they do, in [0, 1]; see `kl.coherent`.
      pool_width: width over which the map is pooled, pixels; see `filters.pool`.
      block: side of a block, pixels; divides the image.
      top_share: share of the blocks whose mean is the score, in [0, 1); 0 takes the
        largest block.
      per_position: score z-scores of blocks, by position. Right for images aligned to
        pixels only: on anatomy, which is not, it removes nothing and adds noise.
      law: of the blocks by position, filled by `fit`.

    Raises:
      ValueError: naming the first setting that cannot work.
    """

    guidance: Guidance = ConditionalGaussian(3.0)
    level_count: int = struct.field(pytree_node=False, default=6)
    window: tuple[Scalar, Scalar] = (0.02, 0.8)
    chunk: int = struct.field(pytree_node=False, default=1)
    map: str = struct.field(pytree_node=False, default="coherent_guided")
    filter_width: Scalar = 2.0
    filter_weight: Scalar = 0.05
    pool_width: Scalar = 3.0
    block: int = struct.field(pytree_node=False, default=4)
    top_share: float = struct.field(pytree_node=False, default=0.02)
    per_position: bool = struct.field(pytree_node=False, default=False)
    law: Position | None = None

    unit = "nats"
    curves = ("guided", "coherent", "coherent guided")

    def __post_init__(self):
        if len(self.window) != 2:
            raise ValueError(f"window={self.window}: give (lowest, highest)")
        object.__setattr__(self, "window", tuple(self.window))
        check_increasing(window=self.window)
        check_count(2, level_count=self.level_count)
        check_count(chunk=self.chunk, block=self.block)
        if self.level_count % self.chunk:
            raise ValueError(
                f"chunk={self.chunk}: must divide level_count={self.level_count}"
            )
        if self.map not in kl.MAPS:
            raise ValueError(f"map={self.map!r}: choose one of {kl.MAPS}")
        check_range(0, 1, filter_weight=self.filter_weight)
        check_widths(filter_width=self.filter_width, pool_width=self.pool_width)
        if not 0 <= self.top_share < 1:
            raise ValueError(f"top_share={self.top_share}: a share in [0, 1)")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("scan", "posterior")

    @property
    def fits(self) -> bool:
        return self.per_position

    @property
    def levels(self) -> Float[Array, " k"]:
        """The K noise levels, increasing, image units."""
        return sde.log_levels(self.level_count, *self.window)

    def calls(self, samples: int) -> int:
        """Return the network calls of one look at so many posterior samples."""
        return 2 * self.level_count * samples

    @property
    def network_calls(self) -> int:
        """Network calls of one look at as many samples as are drawn by default."""
        return self.calls(POSTERIOR.samples)

    def look(self, key: PRNGKey, given: Given) -> Looked:
        """Estimate the maps of one image; level k uses fold_in(key, k)."""
        maps = kl.levels_kl(
            key,
            at_null_label(given.prior),
            self.guidance,
            scan_of(given),
            posterior_of(given).samples,
            self.levels,
            block=self.block,
            filter_width=self.filter_width,
            filter_weight=self.filter_weight,
            pool_width=self.pool_width,
            chunk=self.chunk,
        )
        chosen = kl.MAPS.index(self.map)
        density = maps.blocks.sum((-2, -1))
        return Looked(maps.heatmap[chosen], maps.left_out[:, chosen], density)

    def judge(self, looked: Looked) -> Detection:
        """Score the largest blocks, with a jackknife error over the samples.

        Raises:
          ValueError: if it scores by position and was not fitted.
        """
        heatmap, left_out = looked.heatmap, looked.left_out
        # Each jackknife replicate is unbiased, and so is their mean: the block map.
        block_map = left_out.mean(0)
        if self.per_position:
            law = fitted(self, self.law)
            block_map, left_out = (
                (m - law.mean) / law.std for m in (block_map, left_out)
            )
            heatmap = jnp.kron(block_map, jnp.ones((self.block, self.block)))
        score = top_mean(block_map, self.top_share)
        replicates = jax.vmap(lambda m: top_mean(m, self.top_share))(left_out)
        return Detection(score, kl.jackknife_stderr(replicates), heatmap)

    def fit(self, looked: Looked) -> "KLIP":
        """Return it with the law of each block over N in-distribution images."""
        if not self.per_position:
            return self
        block_maps = looked.left_out.mean(1)
        law = Position(block_maps.mean(0), spread(block_maps))
        return dataclasses.replace(self, law=law)

    def extras(self, looked: Looked) -> dict[str, Array]:
        """Return the levels [K] and what each map holds there [K, 3]."""
        return {"levels": self.levels, "density": looked.density}

    def unseen_factor(self, record: Mapping[str, Any]) -> float:
        """Return how much larger the prior's squared error is on unseen images.

        Over the window. z-scores by position are not multiplied: their blocks are,
        before they are fitted (`unseen`), which changes mean and spread alike.
        """
        return 1.0 if self.per_position else error_ratio(record, self.window)

    def unseen(self, looked: Looked, record: Mapping[str, Any]) -> Looked:
        """Multiply all that was seen of draws, squares of errors, by that ratio."""
        ratio = error_ratio(record, self.window)
        return jax.tree.map(lambda a: ratio * a, looked)

    def __call__(  # type: ignore[override]
        self,
        key: PRNGKey,
        scan: Scan,
        prior: Any,
        posterior_sampler: PosteriorSampler = POSTERIOR,
    ) -> Detection:
        """Draw the posterior of one scan, look and judge. Pure: jit it, vmap it.

        >>> import jax, jax.numpy as jnp
        >>> import klip_jax
        >>> from klip_jax.operators.mask import Half
        >>> def denoise(x, sigma):  # E[x0 | x] for white pixels, N(1/2, 1/4)
        ...     return (x + 2 * sigma**2) / (1 + 4 * sigma**2)
        >>> scan = klip_jax.Scan(Half((8, 8, 1)), jnp.ones((32, 1)), 0.1)
        >>> prior, key = klip_jax.prior(denoise), jax.random.key(0)
        >>> klip_jax.KLIP()(key, scan, prior).heatmap.shape
        (8, 8)

        Args:
          key: split into that of the samples and that of the levels.
          scan: what was measured.
          prior: a denoiser; a prior that knows classes is taken at its null label.
          posterior_sampler: how the posterior is drawn, N >= 3 samples.

        Returns:
          A `Detection`; in nats with a true likelihood score and no filter weight.
        """
        key_samples, key_levels = jax.random.split(key)
        posterior = posterior_sampler(key_samples, scan, prior)
        given = Given(prior, scan, posterior)
        return self.judge(self.look(key_levels, given))
