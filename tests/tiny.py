"""A run in small: 16x16 images, 8 views, a U-Net of 13 k random weights."""

import copy

import jax
import numpy as np

from klip_jax import checkpoint, struct
from klip_jax.assets.default_config import get_config
from klip_jax.config import build
from klip_jax.hub import empty_params

SHAPE = (16, 16, 1)
NET = dict(name="unet.UNet", channels=(8, 8), groups=4)
PRIOR = dict(name="edm.EDM", sigma_data=0.5)
TABLE = dict(
    levels=[0.01, 0.1, 1.0, 10.0],
    errors=[1e-4, 4e-3, 0.04, 0.06],
    train=[1e-4, 4e-3, 0.04, 0.06],
    test=[1.2e-4, 4.8e-3, 0.048, 0.072],
)


def random_params(seed=0):
    """Return parameters of `NET` none of which is zero."""
    rng = np.random.default_rng(seed)
    leaves, structure = jax.tree.flatten(empty_params(build("nets", NET), SHAPE))
    return jax.tree.unflatten(
        structure, [np.float32(0.2 * rng.standard_normal(a.shape)) for a in leaves]
    )


def write_weights(path, params=None, **changes):
    """Write released weights; `changes` go into their record."""
    card = dict(net=NET, prior=PRIOR, image_shape=SHAPE, errors=TABLE) | changes
    checkpoint.save_weights(path, random_params() if params is None else params, card)
    return path


def images(n, seed=0):
    """Return n smooth greys [n, 16, 16] uint8."""
    rng = np.random.default_rng(seed)
    grid = np.arange(16) / 16
    phase = rng.uniform(0, 2 * np.pi, (n, 2, 1, 1))
    waves = np.sin(4 * grid[:, None] + phase[:, 0]) + np.cos(5 * grid + phase[:, 1])
    return np.uint8(np.round(127 + 40 * waves))


def write_data(path, n=6):
    """Write an .npz of n in-distribution images and n with a bright square."""
    masks = np.zeros((n, 16, 16), np.uint8)
    for i in range(n):
        masks[i, 3 + i % 6 : 6 + i % 6, 4:7] = 1
    body = np.ones((n, 16, 16), np.uint8)
    eligible = body.copy()
    eligible[:, :2] = 0
    np.savez(
        path,
        id_images=images(n),
        id_eligible=eligible,
        id_body=body,
        id_patient=np.arange(n) // 2,
        lesion_images=np.where(masks, 250, images(n, 1)).astype(np.uint8),
        lesion_masks=masks,
        lesion_eligible=eligible,
        lesion_body=body,
        lesion_patient=np.arange(n) // 2 + 100,
    )
    return path


def settings(folder, **changes):
    """Return a resolved config over files in `folder`, which are made if absent.

    Args:
      folder: of weights.safetensors and data.npz.
      **changes: "posterior__samples=4" is posterior.samples = 4.
    """
    if not (folder / "weights.safetensors").exists():
        write_weights(folder / "weights.safetensors")
    if not (folder / "data.npz").exists():
        write_data(folder / "data.npz")
    config = get_config().to_dict()
    data = dict(name="npz.load", file="data.npz", root=str(folder))
    # Nothing here follows the default experiment, which may change.
    config |= dict(seed=0, main="klip")
    config["data"] = data | dict(groups=("id", "lesion"), per_group=0, measurements="")
    operator = dict(name="ct.ParallelBeam", views=8, span=180.0)
    config["scan"] = dict(operator=operator, noise_std=0.1)
    config["prior"] = dict(weights=str(folder / "weights.safetensors"))
    config["posterior"] |= dict(samples=3, steps=3, sigma_max=20.0, sigma_min=0.01)
    filters = dict(filter_width=2.0, filter_weight=1.0, pool_width=0.0)
    klip = dict(level_count=2, window=(0.04, 0.4), chunk=1, map="coherent")
    config["detectors"]["klip"] |= klip
    for part in config["detectors"].values():
        part |= dict(block=4, top_share=0.1)
        part |= {k: v for k, v in filters.items() if k in part}
    for part in (config["posterior"], config["detectors"]["klip"]):
        part["guidance"]["prior_inflation"] = 1.0
    config["calibration"] |= dict(draws=0, steps=3, law="", healthy=None)
    config["run"] |= dict(images_at_once=1, chunk=16)
    config["train"] |= dict(
        data=data | dict(groups=("id",)),
        test=data | dict(groups=("lesion",)),
        net=NET,
        prior=PRIOR,
        recipe=config["train"]["recipe"]
        | dict(steps=12, batch=8, warmup=2, checkpoint_every=4),
    )
    config = copy.deepcopy(config)  # NET and PRIOR are everyone's
    for name, value in changes.items():
        *parts, last = name.split("__")
        target = config
        for part in parts:
            target = target[part]
        target[last] = value
    return config


def counting(calls: list):
    """Return a denoiser that appends to `calls` at every call, also inside jit."""

    @struct.dataclass
    class Counting:
        def __call__(self, x, sigma):
            jax.debug.callback(lambda _: calls.append(1), x)
            return 0.5 * x

        def variance(self, sigma):
            return 0.1 * sigma

    return Counting()
