"""The small networks of the saved runs of DiffGuard's release."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from safetensors.numpy import load_file

from klip_jax import config, struct
from klip_jax.classifiers.base import Classifier
from klip_jax.convert import adm, latent_diffusion, torchvision, vgg
from klip_jax.priors.autoencoder import Autoencoder
from klip_jax.priors.labelled import Labelled

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Golden(NamedTuple):
    """What the runs of the variant on images share.

    Attributes:
      folder: with the saved files.
      prior, classifier, smooth, dists: their networks.
      dists_total: what alpha and beta summed to before they were divided by it.
    """

    folder: Path
    prior: Any
    classifier: Any
    smooth: Any
    dists: Any
    dists_total: float


@struct.dataclass
class Smooth:
    """fc(mean over positions of tanh(conv 5x5, stride 2, of a normalised image))."""

    kernel: Float[Array, "5 5 c f"]
    bias: Float[Array, " f"]
    weight: Float[Array, "k f"]
    offset: Float[Array, " k"]

    def features(self, x):
        x = (x - jnp.asarray(MEAN)) / jnp.asarray(STD)
        rows, columns = ((n - 5) // 2 + 1 for n in x.shape[:2])
        patches = jnp.stack(
            [
                x[i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
                for i in range(5)
                for j in range(5)
            ],
            2,
        )
        kernel = self.kernel.reshape(25, *self.kernel.shape[2:])
        h = jnp.einsum("mnpc,pcf->mnf", patches, kernel, precision="highest")
        return jnp.tanh(h + self.bias).mean((0, 1))

    def of_features(self, features):
        return jnp.matmul(self.weight, features, precision="highest") + self.offset


def hwc(x):
    """Move the channels of [..., C, H, W] to the end."""
    return np.moveaxis(x, -3, -1)


@functools.cache
def load(folder: str) -> Golden:
    """Read the networks of the saved runs from a folder."""
    path = Path(folder)
    prior = network(adm.convert, path, "gdm_unet", size=32, head_channels=16)
    with np.load(path / "dg_gdm_smooth.npz") as saved:
        kernel = jnp.asarray(saved["cls_conv_weight"].transpose(2, 3, 1, 0))
        names = ("conv_bias", "fc_weight", "fc_bias")
        smooth = Smooth(kernel, *(jnp.asarray(saved[f"cls_{n}"]) for n in names))
    classifier = resnet(path, "gdm_classifier", (28, 28, 3))
    dists = _dists(path / "dg_vgg_small.safetensors")
    return Golden(path, prior, classifier, smooth, *dists)


def load_latent(folder: Path) -> tuple[Any, Autoencoder, Classifier]:
    """Return the prior, the autoencoder and the classifier of the latent variant."""
    arrays = {}
    for name in ("unet", "first_stage"):
        arrays |= load_file(folder / f"dg_ldm_{name}.safetensors")
    prior = Labelled(_built(latent_diffusion.convert(arrays, size=96)))
    params, record = latent_diffusion.autoencoder(arrays, size=96)
    autoencoder = Autoencoder(params, config.build("nets", record["net"]))
    return prior, autoencoder, resnet(folder, "ldm_classifier", (96, 96, 3))


def network(convert: Callable[..., Any], folder: Path, name: str, **settings) -> Any:
    """Return the prior of a saved network, by the converter of its layout."""
    return _built(convert(load_file(folder / f"dg_{name}.safetensors"), **settings))


def resnet(folder: Path, name: str, image_shape: tuple[int, ...]) -> Classifier:
    """Return a saved classifier."""
    converted = torchvision.convert(load_file(folder / f"dg_{name}.safetensors"))
    net = config.build("classifiers", converted.record["net"])
    return Classifier(net, converted.params, image_shape)


def gap(value: Any, expected: Any) -> float:
    """Return the largest difference."""
    difference = np.asarray(value, np.float64) - np.asarray(expected, np.float64)
    return float(np.abs(difference).max())


def _built(converted):
    params, record = converted
    net = config.build("nets", record["net"])
    return config.build("priors", record["prior"], params, net)


def _dists(path):
    arrays = {k: a.astype(np.float32) for k, a in load_file(path).items()}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "dists.npz"
        np.savez(weights, alpha=arrays["dists_alpha"], beta=arrays["dists_beta"])
        total = float(arrays["dists_alpha"].sum() + arrays["dists_beta"].sum())
        return vgg.dists(path, weights), total
