"""Two detectors or more as one: their evidence fused by a rule that needs no labels.

    p_i = (1 + #{draws >= s_i}) / (M + 1),  z_i = (s_i - mean_i) / std_i  over M draws,

    fisher   -sum_i log p_i       any of them may speak, and they add up
    min_p    max_i (-log p_i)     the one that is most surprised decides
    mean_z   mean_i z_i           all are believed alike

The draws are those it is fitted to: of the model, or of healthy images. Beyond the
largest of M draws p_i goes on as that of an exponential tail, p_i = exp(-(s_i - max) /
std_i) / (M + 1), so that of two images that both exceed all draws the stronger is still
above. The fused score is no p-value, because the parts depend on each other; its own
reference law makes it one. Maps are standardised by mean and spread of their pixels
over the draws and added.

Where a part is itself fitted, it is fitted to the first half of the draws and judged on
the second, so that no draw is judged by itself.

Reference: Fisher 1932; Tippett 1931 (the smallest p); docs/theory.md, section 12.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_fit import fitted, spread
from klip_jax.detectors.base_settings import check_count
from klip_jax.types import Detection, Given, PRNGKey


@struct.dataclass
class Usual:
    """Mean and spread of some numbers; std is never 0."""

    mean: Float[Array, ""]
    std: Float[Array, ""]

    @classmethod
    def of(cls, values: Float[Array, " n"]) -> "Usual":
        """Take them of at least 2 numbers."""
        return cls(values.mean(), spread(values))

    def z_score(self, values: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """Return (values - mean) / std, without unit."""
        return (values - self.mean) / self.std


@struct.dataclass
class PartLaw:
    """What one part says of M draws.

    Attributes:
      scores: in increasing order.
      score: how they are usually.
      pixel: how a pixel of its maps is usually; None where it has none.
    """

    scores: Float[Array, " m"]
    score: Usual
    pixel: Usual | None

    @classmethod
    def of(cls, said: Detection) -> "PartLaw":
        """Fit to the detections of M >= 2 draws, stacked."""
        pixel = None if said.heatmap is None else Usual.of(said.heatmap.ravel())
        return cls(jnp.sort(said.score), Usual.of(said.score), pixel)

    def surprise(self, score: Float[Array, ""]) -> Float[Array, ""]:
        """Return -log p in nats; NaN for a NaN."""
        m = len(self.scores)
        p = (1 + jnp.sum(self.scores >= score)) / (m + 1)
        beyond = jnp.maximum(score - self.scores[-1], 0) / self.score.std
        return beyond - jnp.log(p)


def _surprises(said):
    return jnp.stack([law.surprise(score) for law, score in said])


RULES: dict[str, Callable[[list[tuple[PartLaw, Array]]], Array]] = {
    "fisher": lambda said: _surprises(said).sum(),
    "min_p": lambda said: _surprises(said).max(),
    "mean_z": lambda said: jnp.stack([law.score.z_score(s) for law, s in said]).mean(),
}


@struct.dataclass
class Combined(Detector):
    """Detectors that look at the same image, and one score of what they say.

    Attributes:
      detectors: the parts by name, at least two.
      rule: how they are fused, one of `RULES`.
      block: side of the blocks that localization counts, pixels.
      laws: of each part, filled by `fit`.

    Raises:
      ValueError: if there are fewer than two parts, or no such rule.
    """

    detectors: Mapping[str, Detector]
    rule: str = struct.field(pytree_node=False, default="fisher")
    block: int = struct.field(pytree_node=False, default=4)
    laws: Mapping[str, PartLaw] | None = None

    fits = True

    def __post_init__(self):
        check_count(block=self.block)
        if self.rule not in RULES:
            raise ValueError(f"rule={self.rule!r}: choose one of {sorted(RULES)}")
        if isinstance(self.detectors, Mapping) and len(self.detectors) < 2:
            raise ValueError(
                f"detectors={list(self.detectors)}: need at least two to combine"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        every = (need for part in self.detectors.values() for need in part.needs)
        return tuple(dict.fromkeys(every))

    @property
    def network_calls(self) -> int:
        return sum(part.network_calls for part in self.detectors.values())

    @property
    def classifier_calls(self) -> int:
        return sum(part.classifier_calls for part in self.detectors.values())

    def calls(self, samples: int) -> int:
        return sum(part.calls(samples) for part in self.detectors.values())

    def look(self, key: PRNGKey, given: Given) -> dict[str, Any]:
        """Return what each part sees; part i, by name, uses fold_in(key, i)."""
        return {
            name: self.detectors[name].look(jax.random.fold_in(key, i), given)
            for i, name in enumerate(sorted(self.detectors))
        }

    def fit(self, looked: Mapping[str, Any]) -> "Combined":
        """Fit the parts and the law of what each says.

        Raises:
          ValueError: if there are too few draws: 2, or 4 if a part is fitted too.
        """
        half = len(jax.tree.leaves(looked)[0]) // 2
        any_fits = any(part.fits for part in self.detectors.values())
        parts, laws = {}, {}
        for name, part in self.detectors.items():
            draws = jax.tree.map(jnp.asarray, looked[name])
            if any_fits:
                first, draws = (
                    jax.tree.map(lambda a, cut=cut: a[cut], draws)
                    for cut in (slice(half), slice(half, None))
                )
                part = part.fit(first)
            parts[name] = part
            laws[name] = PartLaw.of(jax.vmap(part.judge)(draws))
        return dataclasses.replace(self, detectors=parts, laws=laws)

    def unseen(self, looked: Mapping[str, Any], record: Mapping[str, Any]) -> dict:
        """Return each part's view of draws as its own, before the laws are fitted.

        The fused score is no square of errors that a factor could multiply.
        """
        parts = self.detectors.items()
        return {name: part.unseen(looked[name], record) for name, part in parts}

    def judge(self, looked: Mapping[str, Any]) -> Detection:
        """Fuse the scores by the rule; the map is the sum of the standardised maps."""
        laws = fitted(self, self.laws)
        pairs = [(laws[n], d.judge(looked[n])) for n, d in self.detectors.items()]
        score = RULES[self.rule]([(law, said.score) for law, said in pairs])
        maps = [
            law.pixel.z_score(said.heatmap)
            for law, said in pairs
            if law.pixel is not None and said.heatmap is not None
        ]
        heatmap = jnp.stack(maps).sum(0) if maps else None
        return Detection(score, jnp.full((), jnp.nan), heatmap)
