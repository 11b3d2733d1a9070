"""Guidance by a classifier that knows clean images only:

    g = s * grad sum_j log p(label | crop_j(z)),
    z = w D(x, sigma) + (1 - w) x_vp,    w = sqrt(1 - alpha^2),

the blend of the estimate and the variance-preserving state, in which the estimate
counts most at high noise; crop_j are random squares, resized (nearest) to one size, as
in guidance by CLIP. Three gradients go by the name:

    AtBlend         with respect to z, taken for that of x_vp: no derivative of the
                    network. What the release of DiffGuard computes.
    ThroughNetwork  of the same with respect to x, through the network. The paper's.
    AtState         with z = x_vp: no estimate is made (the paper's ablation).

The estimate in z is the network's own, not clipped, from the same call as the
sampler's; the release calls the network twice. The `scan` is a `Target`, images are in
[0, 1] and networks are those of [-1, 1]. s is in units of the log likelihood; with J
crops that are summed the guidance is about J s strong.

Reference: Gao et al. 2023 (DiffGuard), section 3.2.1 and eq. 4, 7 and 8, and its
release; Dhariwal and Nichol 2021, algorithm 2; docs/theory.md, section 15.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from klip_jax import struct
from klip_jax.guidance.base_preserving import alpha, preserving
from klip_jax.priors.clipped import before_and_after
from klip_jax.resize import nearest_index
from klip_jax.types import Denoiser, Image, PRNGKey, Scalar

REDUCTIONS = ("sum", "mean")


class Target(NamedTuple):
    """What to guide to.

    Attributes:
      classifier: see `classifiers.base.Classifier`; its features and its head.
      label: of a class.
      boxes: (row, column, side) of each crop, pixels; None draws them.
      key: of the crops that are drawn, anew at each noise level.
    """

    classifier: Any
    label: Int[Array, ""] | int
    boxes: Int[Array, "n 3"] | None = None
    key: PRNGKey | None = None


@struct.dataclass
class ClassifierGuidance:
    """Base of the three; see the module.

    Attributes:
      scale: s.
      crops: how many; 0 shows the whole image to the classifier.
      crop_side: shortest side of a crop, and the size that all are resized to, pixels;
        0 is 7/8 of the image's.
      reduction: of the log likelihoods of crops, "sum" (the release) or "mean".

    Raises:
      ValueError: if a count is negative, or the reduction is another word.
    """

    scale: Scalar = 3.0
    crops: int = struct.field(pytree_node=False, default=8)
    crop_side: int = struct.field(pytree_node=False, default=0)
    reduction: str = struct.field(pytree_node=False, default="sum")

    network_calls = 1
    """Of one score."""
    classifier_calls = 0
    """Of `aim`."""
    conditional = False
    """Whether the denoiser must know classes."""

    def __post_init__(self):
        if self.crops < 0 or self.crop_side < 0:
            raise ValueError(
                f"crops={self.crops}, crop_side={self.crop_side}: must be >= 0; 0 "
                "crops show the whole image, and the side 0 is 7/8 of it"
            )
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction={self.reduction!r}: must be of {REDUCTIONS}")

    def calls_of_score(self) -> int:
        """Return the classifier calls of one score, forward and backward."""
        return 2 * max(self.crops, 1)

    def aim(
        self,
        key: PRNGKey,
        classifier: Any,
        label: Int[Array, ""] | int,
        picture: Image,
        shape: tuple[int, int],
    ) -> Target:
        """Return what guides to a label; the crops come from the key."""
        return Target(classifier, label, key=key)

    def log_likelihood(self, scan: Target, z: Image, sigma: Scalar) -> Float[Array, ""]:
        """Return sum or mean over crops of log p(label | crop(z)), nats."""

        def log_p(image):
            classifier = scan.classifier
            logits = classifier.of_features(classifier.features(image))
            return jax.nn.log_softmax(logits)[scan.label]

        if self.crops == 0:
            return log_p(z)
        side = self.crop_side or 7 * min(z.shape[:2]) // 8
        boxes = scan.boxes
        if boxes is None:
            bits = jax.lax.bitcast_convert_type(jnp.float32(sigma), jnp.uint32)
            key = jax.random.fold_in(_key_of(scan), bits)
            boxes = random_boxes(key, z.shape[:2], self.crops, side=side)
        each = jax.vmap(lambda box: log_p(crop(z, box, side=side)))(boxes)
        return each.sum() if self.reduction == "sum" else each.mean()


@struct.dataclass
class AtBlend(ClassifierGuidance):
    """The gradient at the blend, as the release of DiffGuard has it."""

    def score(
        self, denoiser: Denoiser, scan: Target, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, alpha s grad_z log p(label | z)); see `types.Guidance`."""
        own, x0 = before_and_after(denoiser, x, sigma)
        z = blend(own, x, sigma)
        slope = jax.grad(lambda z: self.log_likelihood(scan, z, sigma))(z)
        return x0, self.scale * alpha(sigma) * slope


@struct.dataclass
class ThroughNetwork(ClassifierGuidance):
    """The gradient through the network, the paper's eq. 7."""

    def score(
        self, denoiser: Denoiser, scan: Target, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, s grad_x log p(label | z(x))); see `types.Guidance`."""

        def of_state(x):
            own, x0 = before_and_after(denoiser, x, sigma)
            return self.log_likelihood(scan, blend(own, x, sigma), sigma), x0

        slope, x0 = jax.grad(of_state, has_aux=True)(x)
        return x0, self.scale * slope


@struct.dataclass
class AtState(ClassifierGuidance):
    """The gradient at the noisy state, without an estimate."""

    def score(
        self, denoiser: Denoiser, scan: Target, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, alpha s grad log p(label | x_vp)); see `types.Guidance`."""
        z = preserving(x, sigma)
        slope = jax.grad(lambda z: self.log_likelihood(scan, z, sigma))(z)
        return denoiser(x, sigma), self.scale * alpha(sigma) * slope


def blend(x0: Image, x: Image, sigma: Scalar) -> Image:
    """Return w x0 + (1 - w) x_vp with w = sqrt(1 - alpha^2), image units."""
    w = 2 * sigma * alpha(sigma)
    return w * x0 + (1 - w) * preserving(x, sigma)


def random_boxes(
    key: PRNGKey, shape: tuple[int, ...], n: int, *, side: int
) -> Int[Array, "n 3"]:
    """Draw n squares (row, column, side) inside an image.

    Sides are floor(side + (shortest - side) u), so that the whole image never occurs,
    as in the release.

    Args:
      key: of the draws.
      shape: (H, W) of the image.
      n: how many.
      side: the shortest side, pixels.

    Raises:
      ValueError: if the side is longer than the image's.
    """
    _check_side(side, shape)
    key_side, key_rows, key_columns = jax.random.split(key, 3)
    u = jax.random.uniform(key_side, (n,))
    sides = jnp.floor(side + (min(shape) - side) * u).astype(jnp.int32)
    rows, columns = (
        jax.random.randint(k, (n,), 0, size - sides + 1)
        for k, size in zip((key_rows, key_columns), shape, strict=True)
    )
    return jnp.stack([rows, columns, sides], 1)


def crop(z: Image, box: Int[Array, "3"], *, side: int) -> Float[Array, "side side c"]:
    """Return a square of an image, resized to side x side by `resize.nearest`.

    Args:
      z: image [H, W, C].
      box: (row, column, side), at least `side`; it may be traced.
      side: of the result, pixels.

    Raises:
      ValueError: if the side is longer than the image's.
    """
    _check_side(side, z.shape[:2])
    longest = min(z.shape[:2])
    table = np.stack([nearest_index(s, side) for s in range(side, longest + 1)])
    index = jnp.asarray(table)[box[2] - side]
    return z[box[0] + index][:, box[1] + index]


def _check_side(side, shape):
    if not 1 <= side <= min(shape):
        raise ValueError(
            f"crop_side={side}: must lie in [1, {min(shape)}], inside an image of "
            f"{shape[0]} x {shape[1]} pixels"
        )


def _key_of(scan):
    if scan.key is None:
        raise ValueError("this target has neither boxes nor a key to draw them from")
    return scan.key
