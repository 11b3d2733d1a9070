"""What a classifier is for detectors, and where in an image its class is seen.

    logits = W features + b,   features = mean over pixels of maps,   y = argmax logits

Images are in [0, 1]; a network normalises them itself. Where it sees class y is

    c = relu(sum_k a_k maps_k),   a_k = mean over pixels of d logit_y / d maps_k,

of which DiffGuard makes the mask of its guidance,

    c' = relu(c) at the image's size, bilinear without antialiasing
    mask = (c' - min c') / (max c' - min c' + 1e-7) > cut, at the latent's size, nearest

Reference: Selvaraju et al. 2017, eqs. 1 and 2; Gao et al. 2023 (DiffGuard), section 3.3
and its release.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from klip_jax import struct
from klip_jax.resize import bilinear, nearest
from klip_jax.types import Heatmap, Image

_SMALL = 1e-7


@struct.dataclass
class Classifier:
    """A trained network that names classes; one image a call.

    Attributes:
      net: a flax.linen module with the methods `maps`, `features` and `head`, whose
        last layer is a `Dense` of the name "dense"; see `resnet.ResNet`.
      variables: its parameters and statistics.
      image_shape: (H, W, C) of the images it was trained on.
    """

    net: nn.Module = struct.field(pytree_node=False)
    variables: Any
    image_shape: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def classes(self) -> int:
        """How many classes it knows."""
        return self.head[1].shape[-1]

    @property
    def head(self) -> tuple[Float[Array, "f k"], Float[Array, " k"]]:
        """W and b of the last layer: logits = features W + b."""
        dense = self.variables["params"]["dense"]
        return dense["kernel"], dense["bias"]

    def maps(self, x: Image) -> Float[Array, "m n f"]:
        """Return the activations of the last stage."""
        return self.net.apply(self.variables, x, method="maps")  # type: ignore

    def features(self, x: Image) -> Float[Array, " f"]:
        """Return what the last layer sees."""
        return self.net.apply(self.variables, x, method="features")  # type: ignore

    def of_features(self, features: Float[Array, " f"]) -> Float[Array, " k"]:
        """Return the logits of features."""
        return self.net.apply(self.variables, features, method="head")  # type: ignore

    def logits(self, x: Image) -> Float[Array, " k"]:
        """Return the logits, nats up to a constant."""
        return self.of_features(self.features(x))

    def predict(self, x: Image) -> Int[Array, ""]:
        """Return the class of the largest logit, the first of equals."""
        return jnp.argmax(self.logits(x)).astype(jnp.int32)


def grad_cam(
    classifier: Classifier, x: Image, label: Int[Array, ""] | int
) -> Float[Array, "m n"]:
    """Return where in an image a class is seen, >= 0, of the logit's unit.

    Args:
      classifier: whose features are the mean of its maps.
      x: image in [0, 1].
      label: whose logit.

    Returns:
      [m, n] on the grid of `classifier.maps`.

    Reference: Selvaraju et al. 2017, eqs. 1 and 2.
    """
    maps = classifier.maps(x)

    def logit(maps):
        return classifier.of_features(jnp.mean(maps, (0, 1)))[label]

    weights = jnp.mean(jax.grad(logit)(maps), (0, 1))
    return jax.nn.relu(jnp.matmul(maps, weights, precision="highest"))


def cam_mask(
    cam: Float[Array, "h w"],
    image_shape: tuple[int, int],
    latent_shape: tuple[int, int],
    cut: float,
) -> Bool[Array, "m n"]:
    """Return where a class is seen, or where it is not, at the latent's size.

    Args:
      cam: class activation map [h, w] of any unit, such as of `grad_cam`.
      image_shape: (H, W) of the image, where the map is scaled to [0, 1] and cut.
      latent_shape: (m, n) of the mask; the image's own for a prior of pixels.
      cut: in (-1, 1); true is where the scaled map is > cut, and for a negative cut
        where it is < |cut|.

    Raises:
      ValueError: if the cut is outside (-1, 1).

    Reference: the release of DiffGuard, with 0.3.
    """
    if not -1 < cut < 1:
        raise ValueError(f"cut={cut}: must be in (-1, 1), as the map is in [0, 1]")
    scaled = scaled_cam(cam, image_shape)
    mask = scaled < -cut if cut < 0 else scaled > cut
    return nearest(mask[..., None].astype(jnp.float32), latent_shape)[..., 0] > 0


def scaled_cam(cam: Float[Array, "m n"], image_shape: tuple[int, int]) -> Heatmap:
    """Return relu(cam) at the image's size, from 0 to 1 over all its pixels."""
    large = bilinear(jax.nn.relu(cam)[..., None], image_shape)[..., 0]
    low, high = large.min(), large.max()
    return (large - low) / (high - low + _SMALL)
