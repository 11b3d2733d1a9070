"""Networks of the EDM release, and of PaDIS, which trains them on patches.

The .pkl that they save holds the network's modules with their source code. Here the
arrays are taken out by `pickles.load`, the code is not looked at, and the architecture
is read from the names and shapes. A .safetensors or .npz file with the same names works
as well.

Reference: Karras et al. 2022, table 1 and appendix F.4; Hu et al. 2024, section 3.2.
"""

import pathlib
import re
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from klip_jax.convert import pickles
from klip_jax.convert.base import Converted, flax_tree, record

PRECONDITIONERS = ("EDMPrecond", "Patch_EDMPrecond")


def load(path, *, size: int = 0, patch: int = 56, pad: int = 24) -> Converted:
    """Read a network of EDM or PaDIS; see `convert`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is broken, wants to execute something, or is no SongUNet.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights")
    sigma_data = 0.5
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            arrays, sigma_data = _network(pickles.load(path), path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None
    return convert(arrays, str(path), sigma_data, size=size, patch=patch, pad=pad)


def convert(
    arrays: Mapping,
    source: str = "",
    sigma_data: float = 0.5,
    *,
    size: int = 0,
    patch: int = 56,
    pad: int = 24,
) -> Converted:
    """Return the weights of a SongUNet in EDM's preconditioning.

    Args:
      arrays: {name: array} of the network, perhaps with a prefix "model.".
      source: where they come from, for the record and messages.
      sigma_data: of the preconditioning.
      size: side of the images, pixels; 0 takes the one in the names.
      patch, pad: pixels, for PaDIS only: what the network sees, and the zeros around
        the image.

    Raises:
      ValueError: if they are not those of a SongUNet that we have.
    """
    arrays = {name.removeprefix("model."): a for name, a in arrays.items()}
    net, finest, inputs = _architecture(arrays, source)
    ours = {
        _renamed(name, finest): array
        for name, array in arrays.items()
        if not name.endswith("resample_filter") and not name.startswith("map_augment")
    }
    frequencies = ours.pop("map_noise.freqs", None)
    params = flax_tree(ours)
    if frequencies is not None:
        params["params"]["frequencies"] = np.asarray(frequencies, np.float32)
    size, channels = size or finest, net["out_channels"]
    prior = {"name": "edm.EDM", "sigma_data": sigma_data}
    more = {}
    if inputs == channels + 2:
        prior = {"name": "patches.Patches", "sigma_data": sigma_data}
        prior |= {"patch": patch, "pad": pad}
        more["net_shape"] = [patch, patch, inputs]
    elif inputs != channels:
        raise ValueError(f"{source}: {inputs} channels in, {channels} out; unknown use")
    shape = (size, size, channels)
    return Converted(params, record(net, prior, shape, source, **more))


def _architecture(arrays, source):
    """Return (settings of SongUNet, side of the finest grid, channels of its input)."""
    sides = {
        int(m[1]) for name in arrays if (m := re.match(r"enc\.(\d+)x\1_block0\.", name))
    }
    if not sides or "map_layer1.weight" not in arrays:
        raise ValueError(f"{source}: not a SongUNet: its layers have other names")
    if "map_label.weight" in arrays:
        raise ValueError(f"{source}: a network with classes; only those without")
    sides = sorted(sides, reverse=True)
    first = arrays.get(f"enc.{sides[0]}x{sides[0]}_conv.weight")
    last = arrays.get(f"dec.{sides[0]}x{sides[0]}_aux_conv.weight")
    if first is None or last is None:
        raise ValueError(f"{source}: not a SongUNet: its ends are missing")

    def has(side, leaf):
        return f"enc.{side}x{side}_{leaf}" in arrays

    def features(side):
        return arrays[f"enc.{side}x{side}_block0.conv1.weight"].shape[0]

    width = first.shape[0]
    affine = arrays[f"enc.{sides[0]}x{sides[0]}_block0.affine.weight"]
    if affine.shape[0] != features(sides[0]):
        raise ValueError(f"{source}: adaptive scale (the ADM network) is not supported")
    blocks = 0
    while has(sides[0], f"block{blocks}.conv0.weight"):
        blocks += 1
    filters = [np.asarray(a) for n, a in arrays.items() if "resample_filter" in n]
    # The filter is kept as the outer product of its normalised taps.
    taps = filters[0][0, 0].sum(0) if filters else np.ones(2)
    residual = len(sides) > 1 and has(sides[1], "aux_residual.weight")
    fourier = "map_noise.freqs" in arrays
    net = {
        "name": "song_unet.SongUNet",
        "width": width,
        "multipliers": [features(side) // width for side in sides],
        "blocks": blocks,
        "attention": [i for i, s in enumerate(sides) if has(s, "block0.qkv.weight")],
        "out_channels": last.shape[0],
        "embedding": "fourier" if fourier else "positional",
        "noise_width": arrays["map_layer0.weight"].shape[1] // width,
        "emb_width": affine.shape[1] // width,
        "encoder": "residual" if residual else "standard",
        "taps": (taps / taps.min()).tolist(),
    }
    return net, sides[0], first.shape[1]


def _renamed(name, finest):
    def level(match):
        return f"{match[1]}_{(finest // int(match[2])).bit_length() - 1}_"

    return re.sub(r"^(enc|dec)\.(\d+)x\d+_", level, name)


def _network(content, path):
    """Return ({name: array}, sigma_data) of what a pickle holds."""
    if isinstance(content, dict):
        content = next(
            (content[k] for k in ("ema", "net", "model") if k in content), content
        )
    if isinstance(content, dict):
        return pickles.arrays(content), 0.5
    if not isinstance(content, pickles.Record):
        raise ValueError(f"{path}: holds no network")
    if content.name not in (*PRECONDITIONERS, "SongUNet"):
        raise ValueError(
            f"{path}: a {content.name}; only {', '.join(PRECONDITIONERS)} are supported"
        )
    return pickles.arrays(content), float(content.state.get("sigma_data", 0.5))
