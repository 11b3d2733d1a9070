"""DiffNB: noised and denoised toward the class an image looks like, is it still it?

    y = argmax f(x),   x_t = x + s_t z,   x^_t = DDIM down from x_t with D_y,
    D_y = D_null + w (D_label - D_null),
    score = mean over t and z of |n(f(x^_t)) - n(f(x_0))|_1,   n(v) = v / |v|,

by a classifier f and a prior that knows its classes, with one z for all t. All chains
share one ladder of noise levels and end at its lowest, where x itself is noised to
(x_0) and not denoised. Of an image of class y little is lost on the way. What is
compared is the variance-preserving state, clipped to [0, 1].

Departures: DiffNB has a score of each t; ours is their mean, and one t is `starts` of
one number. Its network is asked a timestep below the state's: `RELEASED_ASKED`.

Reference: Liu et al. 2022, arXiv 2211.11255 (DiffNB), and its release; Ho and Salimans
2022, eq. 6, with w = 1 + beta; docs/theory.md, section 15.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_classifier import check_classes, classifier_of
from klip_jax.detectors.base_settings import check_count, check_increasing
from klip_jax.distances.logits import normalised_l1
from klip_jax.guidance.base_preserving import exploding, preserving
from klip_jax.guidance.classifier_free import ClassifierFree, Label
from klip_jax.guidance.guided import Guided
from klip_jax.types import Denoiser, Detection, Given, Image, PRNGKey, Scalar

COMPARED = ("logits", "features")
REFERENCES = ("clean", "previous")


def timestep_levels(timesteps: Iterable[int]) -> tuple[float, ...]:
    """Return the noise levels of the release at timesteps of 0 .. 999, image units.

    Betas are linear, 1e-4 to 0.02; they and the products of 1 - beta were rounded to
    float32.
    """
    betas = np.linspace(1e-4, 0.02, 1000).astype(np.float32)
    product = np.cumprod((1 - betas).astype(np.float64))
    alphabar = product.astype(np.float32).astype(np.float64)
    sigmas = np.sqrt((1 - alphabar) / alphabar) / 2
    return tuple(float(sigmas[t]) for t in timesteps)


LEVELS = timestep_levels(range(0, 361, 20))
"""Noise levels of the release, image units: timesteps 0, 20, .., 360."""
STARTS = (6, 12, 18)
"""Where chains of the release start: timesteps 120, 240, 360."""
RELEASED_ASKED = timestep_levels(range(19, 360, 20))
"""Levels at which the release asks its network, one timestep below."""


class Looked(NamedTuple):
    """What was seen of one image.

    Attributes:
      distances: of the reference and each chain, by draw of the noise.
    """

    distances: Float[Array, "*n draws starts"]


@struct.dataclass
class DiffNB(Detector):
    """The distance between how images are named before and after noise.

    Attributes:
      levels: of the ladder, image units, increasing; the first is where chains end.
      starts: which of them chains start from; so many steps each has.
      asked: at which level the network is asked in place of levels[1:]; () at those.
      weight: w, of the label against no label.
      draws: of the noise, averaged over.
      compared: what of the classifier, "logits" or "features".
      against: the reference, "clean" (x_0) or "previous" (the next lower start).

    Raises:
      ValueError: naming the first setting that is out of range.
    """

    levels: tuple[Scalar, ...] = LEVELS
    starts: tuple[int, ...] = struct.field(pytree_node=False, default=STARTS)
    asked: tuple[Scalar, ...] = ()
    weight: Scalar = 3.0
    draws: int = struct.field(pytree_node=False, default=4)
    compared: str = struct.field(pytree_node=False, default="logits")
    against: str = struct.field(pytree_node=False, default="clean")

    needs = ("picture", "classifier")

    def __post_init__(self):
        object.__setattr__(self, "starts", tuple(self.starts))  # hashable
        check_increasing(levels=self.levels, asked=self.asked)
        check_count(draws=self.draws)
        if not self.starts or not all(
            isinstance(k, int) and 1 <= k < len(self.levels) for k in self.starts
        ):
            raise ValueError(
                f"starts={self.starts}: must be of 1 .. {len(self.levels) - 1}, "
                "indices of levels"
            )
        if self.asked and len(self.asked) != len(self.levels) - 1:
            raise ValueError(
                f"asked={self.asked}: must be one for each of levels[1:], which are "
                f"{len(self.levels) - 1}, or ()"
            )
        for name, known in (("compared", COMPARED), ("against", REFERENCES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be of {known}")

    @property
    def guidance(self) -> ClassifierFree:
        """What guides to the label."""
        return ClassifierFree(self.weight)

    @property
    def network_calls(self) -> int:
        return self.draws * sum(self.starts) * ClassifierFree.network_calls

    @property
    def classifier_calls(self) -> int:
        return 1 + self.draws * (1 + len(self.starts))

    def look(self, key: PRNGKey, given: Given) -> Looked:
        """Denoise to the class that the classifier sees; draw n uses fold_in(key, n).

        Raises:
          ValueError: if there is no classifier, or the prior does not know its classes.
        """
        classifier, x = classifier_of(given), given.picture
        seen = classifier.of_features(classifier.features(x))
        check_classes(given.prior, len(seen))

        def noise(n):
            return jax.random.normal(jax.random.fold_in(key, n), x.shape, x.dtype)

        z = jax.vmap(noise)(jnp.arange(self.draws))
        return self.look_as(z, given, jnp.argmax(seen).astype(jnp.int32))

    def look_as(
        self,
        z: Float[Array, "draws h w c"],
        given: Given,
        label: Int[Array, ""] | int,
    ) -> Looked:
        """Denoise to a class that is known otherwise, from noise that is given.

        Args:
          z: standard normal noise of each draw.
          given: picture, classifier, prior.
          label: of the class.
        """

        def one(z):
            images = self.reconstruct(given, label, z)
            return self.compare(self.vectors(given, images))

        return Looked(jax.vmap(one)(z))

    def judge(self, looked: Looked) -> Detection:
        """Score the mean over draws and starts; its error is that over draws."""
        each, n = looked.distances.mean(-1), looked.distances.shape[-2]
        stderr = jnp.full((), jnp.nan) if n < 2 else each.std(ddof=1) / n**0.5
        return Detection(each.mean(), stderr)

    def extras(self, looked: Looked) -> dict[str, Array]:
        return {"distances": looked.distances.mean(-2)}

    def reconstruct(
        self, given: Given, label: Int[Array, ""] | int, z: Image
    ) -> Float[Array, "images h w c"]:
        """Return x_0 and the end of each chain, variance-preserving, not clipped."""
        denoiser = Guided(given.prior, self.guidance, Label(label))
        x, levels = given.picture, jnp.asarray(self.levels, z.dtype)
        asked = jnp.asarray(self.asked or self.levels[1:], z.dtype)
        starts = np.asarray(self.starts)
        # One program for all chains: step after step of one, then of the next.
        chain = np.repeat(np.arange(len(starts)), starts)
        index = np.concatenate([np.arange(start, 0, -1) for start in starts])

        def step(states, at):
            chain, k = at
            lower = transfer(
                denoiser, states[chain], levels[k], levels[k - 1], asked[k - 1]
            )
            return states.at[chain].set(lower), None

        states = x + levels[starts][:, None, None, None] * z
        states, _ = jax.lax.scan(step, states, (jnp.asarray(chain), jnp.asarray(index)))
        states = jnp.concatenate([(x + levels[0] * z)[None], states])
        return jax.vmap(lambda state: preserving(state, levels[0]))(states)

    def vectors(
        self, given: Given, images: Float[Array, "images h w c"]
    ) -> Float[Array, "images f"]:
        """Return logits or features of images, clipped to [0, 1]."""
        classifier = classifier_of(given)

        def one(image):
            features = classifier.features(jnp.clip(image, 0, 1))
            if self.compared == "features":
                return features
            return classifier.of_features(features)

        return jax.vmap(one)(images)

    def compare(self, named: Float[Array, "images f"]) -> Float[Array, " starts"]:
        """Return the distance of each image but the first to its reference."""
        first = jnp.broadcast_to(named[:1], named[1:].shape)
        reference = first if self.against == "clean" else named[:-1]
        return jax.vmap(normalised_l1)(reference, named[1:])


def transfer(
    denoiser: Denoiser, x: Image, sigma: Scalar, sigma_next: Scalar, asked: Scalar
) -> Image:
    """Take one DDIM step, with the noise of the level at which the network is asked.

    x' = x + (sigma_next - sigma) z,   z = (u - D(u, asked)) / asked, u the state at
    `asked` that has the same variance-preserving one as x.

    Args:
      denoiser: D.
      x: the state, image units.
      sigma, sigma_next: its level, and that it goes to.
      asked: sigma, or another level.

    Reference: Song, Meng and Ermon 2021, eq. 13.
    """
    shown = exploding(preserving(x, sigma), asked)
    z = (shown - denoiser(shown, asked)) / asked
    return x + (sigma_next - sigma) * z
