"""DiffGuard: guided toward the class an image looks like, does it stay what it is?

    y = argmax f(x),   x_T = DDIM up from x,   guided = DDIM down from x_T with g(y),
    score = d(reference, guided),   reference = the same without g, or x itself,

by a classifier f and a prior that need not know it. Of an image of that class guidance
has nothing to change. How guidance works is one object: `classifier.AtBlend` on any
prior of images (the release), `classifier.ThroughNetwork` (the paper's eq. 7), or
`classifier_free.ClassifierFree` on one that knows classes, with the classifier's own
map as a mask. With an autoencoder the chain is one of latents.

The way up ends early, for each image at its own level, where it has become too
different from what it was; the extra `calls` says what an image cost, and a batch takes
as long as its longest image. What the release calls 48.5 dB is 6.39 dB.

Departures: the map |guided - reference| is ours. One network call a step and chain: the
release makes a further one for the estimate that it has.

Reference: Gao et al. 2023 (DiffGuard), section 3 and the release; docs/theory.md,
section 15.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from klip_jax import struct
from klip_jax.detectors.base_classifier import check_classes, classifier_of
from klip_jax.detectors.base_difference import (
    DISTANCES,
    classifier_calls,
    difference,
)
from klip_jax.detectors.base_inversion import (
    Inverted,
    Ladder,
    check_thresholds,
    generate,
    invert,
    latent_ladder,
    pixel_ladder,
    released_decibels,
)
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_settings import check_count
from klip_jax.distances import pixel
from klip_jax.guidance.classifier import AtBlend
from klip_jax.guidance.none import NoGuidance
from klip_jax.posterior import at_null_label
from klip_jax.priors.clipped import Clipped
from klip_jax.resize import bilinear
from klip_jax.types import Detection, Given, Image, PRNGKey, Scalar

REFERENCES = ("unguided", "input")


class Looked(NamedTuple):
    """What was seen of one image.

    Attributes:
      distance: of reference and guided.
      stop: index of the last step up.
      inverted: the variance-preserving state where the way up ended; an image of the
        prior, or a latent.
      guided, reference: images, not clipped, image units.
    """

    distance: Float[Array, "*n"]
    stop: Float[Array, "*n"]
    inverted: Float[Array, "*n p q d"]
    guided: Float[Array, "*n h w c"]
    reference: Float[Array, "*n h w c"]


@struct.dataclass
class DiffGuard(MapDetector):
    """The distance between what guidance makes of an image and what it was.

    The defaults are the paper's. The release on ImageNet differs by `side` 256, against
    "unguided", `distance` "perceptual" with DISTS and `stop_distance` 0.62; its latent
    variant by steps 25, skipped 0, ahead 0, `stop_psnr` -inf, and the guidance
    ClassifierFree(10.0, 0.3).

    Attributes:
      guidance: of `guidance.classifier` or `guidance.classifier_free`.
      steps: noise levels; see `base_inversion.pixel_ladder`, `latent_ladder`.
      skipped: of them are never climbed; the release takes 10 of 100.
      ahead: the way down starts at index stop + ahead: 1 is where the way up ended; the
        release takes 2, one level noisier. (Latents: 0 is where it ended.)
      stop_psnr: the way up ends below this PSNR of state and image, dB; -inf never.
      released_stop_psnr: in place of it, on the release's scale, where 48.5 is 6.39.
      stop_distance: it ends above this `perceptual` distance too; inf never.
      perceptual: `distances.perceptual.DISTS` or LPIPS.
      distance: of reference and guided, one of `DISTANCES`.
      against: the reference: "input" (the paper's text), or "unguided", in which the
        error of inverting cancels (its tables).
      side: of the prior's images, pixels, where it differs; 0 is the picture's own.
      autoencoder: `priors.autoencoder.Autoencoder` of a prior of latents.
      boxes: crops of each step, the same for all images; None draws them by key.

    Raises:
      ValueError: naming the first setting that is out of range.
    """

    guidance: Any = AtBlend()
    steps: int = struct.field(pytree_node=False, default=100)
    skipped: int = struct.field(pytree_node=False, default=10)
    ahead: int = struct.field(pytree_node=False, default=2)
    stop_psnr: Scalar = 6.39
    released_stop_psnr: Scalar | None = None
    stop_distance: Scalar = math.inf
    perceptual: Any = None
    distance: str = struct.field(pytree_node=False, default="logits.l1")
    against: str = struct.field(pytree_node=False, default="input")
    side: int = struct.field(pytree_node=False, default=0)
    autoencoder: Any = None
    boxes: Any = None

    needs = ("picture", "classifier")

    def __post_init__(self):
        super().__post_init__()
        check_count(0, skipped=self.skipped, ahead=self.ahead, side=self.side)
        for name, known in (("distance", DISTANCES), ("against", REFERENCES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be of {known}")
        if not hasattr(self.guidance, "aim"):
            raise ValueError(
                f"guidance={type(self.guidance).__name__}: looks at no label; take one "
                "of guidance.classifier or guidance.classifier_free"
            )
        if self.perceptual is None and (
            self.distance == "perceptual" or self.stop_distance != math.inf
        ):
            raise ValueError(
                "perceptual=None: the distance 'perceptual' and stop_distance need "
                "one, such as distances.perceptual.DISTS"
            )
        check_thresholds(self.stop_psnr, self.released_stop_psnr, self.stop_distance)
        if self.climbed < 1:
            raise ValueError(
                f"skipped={self.skipped}: leaves none of steps={self.steps} to climb"
            )

    @property
    def ladder(self) -> Ladder:
        """The noise levels."""
        of = pixel_ladder if self.autoencoder is None else latent_ladder
        return of(self.steps)

    @property
    def climbed(self) -> int:
        """Steps of the longest way up."""
        ladder = self.ladder
        return min(len(ladder.above), len(ladder.sigmas) - self.skipped)

    @property
    def longest(self) -> int:
        """Steps of the longest way down."""
        return min(len(self.ladder.sigmas), self.climbed + self.ahead)

    @property
    def network_calls(self) -> int:
        """Of an image that never stops; see `calls_of`."""
        return self.climbed + self.longest * self._calls_down

    def calls_of(self, stop: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Return the network calls of an image whose way up ended with step `stop`."""
        down = jnp.minimum(stop + self.ahead, self.longest - 1) + 1
        return stop + 1 + down * self._calls_down

    @property
    def classifier_calls(self) -> int:
        guided = self.longest * self.guidance.calls_of_score()
        compared = classifier_calls(self.distance)
        return 1 + self.guidance.classifier_calls + guided + compared

    def look(self, key: PRNGKey, given: Given) -> Looked:
        """Guide to the class that the classifier sees."""
        classifier = classifier_of(given)
        seen = classifier.of_features(classifier.features(given.picture))
        if self.guidance.conditional:
            check_classes(given.prior, len(seen))
        return self.look_as(key, given, jnp.argmax(seen).astype(jnp.int32))

    def look_as(
        self, key: PRNGKey, given: Given, label: Int[Array, ""] | int
    ) -> Looked:
        """Guide to a class that is known otherwise, as of an oracle.

        Args:
          key: of the crops, where they are drawn.
          given: picture, classifier, prior.
          label: of the class.
        """
        classifier, picture = classifier_of(given), given.picture
        x = self.encode(picture)
        up = self.invert(given, x)
        target = self.guidance.aim(key, classifier, label, picture, x.shape[:2])
        guided = self.decode(self.generate(given, up, target), picture)
        reference = picture
        if self.against == "unguided":
            reference = self.decode(self.generate(given, up, None), picture)
        distance = self.compare(classifier, reference, guided)
        stop = up.stop.astype(jnp.float32)
        return Looked(distance, stop, up.latent, guided, reference)

    def judge(self, looked: Looked) -> Detection:
        """Score the distance; the map is of |guided - reference|."""
        gap = jnp.abs(looked.guided - looked.reference).sum(-1)
        return self.of_map(gap)._replace(score=looked.distance)

    def extras(self, looked: Looked) -> dict[str, Array]:
        calls = self.calls_of(looked.stop)
        return {
            "inverted": looked.inverted,
            "guided": looked.guided,
            self.against: looked.reference,
            "stop": looked.stop,
            "calls": calls,
        }

    def prior_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape (H, W, C) of what the prior sees of a picture of `shape`."""
        picture = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.eval_shape(self.encode, picture).shape

    def encode(self, picture: Image) -> Float[Array, "p q d"]:
        """Return what the prior is of: the picture at its size, or a latent."""
        side = self.side or None
        x = picture if side is None else bilinear(picture, (side, side))
        return x if self.autoencoder is None else self.autoencoder.encode(x)

    def decode(self, x: Float[Array, "p q d"], picture: Image) -> Image:
        """Return the image of what the prior is of, at the picture's size."""
        x = x if self.autoencoder is None else self.autoencoder.decode(x)
        same = x.shape == picture.shape
        return x if same else bilinear(x, (picture.shape[0], picture.shape[1]))

    def invert(self, given: Given, x: Image) -> Inverted:
        """Go up from `x` to where it stops; see `base_inversion.invert`."""
        threshold = self.stop_psnr
        if self.released_stop_psnr is not None:
            threshold = released_decibels(self.released_stop_psnr)

        def stop(state):
            ends = pixel.psnr(state, x) < threshold
            if self.perceptual is None:
                return ends
            return ends | (self.perceptual(state, x) > self.stop_distance)

        denoiser = self._clipped(at_null_label(given.prior))
        return invert(denoiser, x, self.ladder, steps=self.climbed, stop=stop)

    def generate(self, given: Given, up: Inverted, target: Any) -> Image:
        """Go down from where `up` ended, to a target, or to none; see
        `base_inversion.generate`.
        """
        conditional = target is not None and self.guidance.conditional
        prior = given.prior if conditional else at_null_label(given.prior)

        def scan_at(step):
            return target if self.boxes is None else self._recorded(target, step)

        return generate(
            self._clipped(prior),
            NoGuidance() if target is None else self.guidance,
            scan_at,
            up.latent,
            self.ladder,
            first=jnp.minimum(up.stop + self.ahead, self.longest - 1),
        )

    def compare(self, classifier: Any, a: Image, b: Image) -> Float[Array, ""]:
        """Return the distance of two images, clipped to [0, 1]."""
        both = dict(classifier=classifier, perceptual=self.perceptual)
        return difference(self.distance, a, b, **both)

    @property
    def _calls_down(self):
        """Of one step down, of all chains."""
        return self.guidance.network_calls + (self.against == "unguided")

    def _clipped(self, prior):
        return Clipped(prior) if self.autoencoder is None else prior

    def _recorded(self, target, step):
        return target and target._replace(boxes=jnp.asarray(self.boxes)[step])
