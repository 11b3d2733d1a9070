"""Weights and data of others, once and for all, into files of ours.

What a source is shows in its name and its contents; see the modules of `convert`.
"""

import io
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from klip_jax import hub
from klip_jax.checkpoint import check_finite, check_fit, save_weights
from klip_jax.config import build
from klip_jax.convert import (
    adm,
    ddim,
    edm,
    hub_folder,
    huggingface,
    latent_diffusion,
    release_data,
    score_sde,
    state_dict,
    torchvision,
    vgg,
)
from klip_jax.convert.base import Converted
from klip_jax.files import write_atomically
from klip_jax.records import check_record, kind

LAYOUTS = (latent_diffusion, adm, ddim, torchvision)
"""Of state dicts; each has a `MARK`, a name that is only there in its own."""
STATE_DICTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


class Request(NamedTuple):
    """What to convert.

    Attributes:
      source: a folder, a file, a hub id "<owner>/<name>"; separated by commas the
        release's .npy files, or the two files of a perceptual distance (`convert.vgg`).
      target: file to write; "" chooses its name.
      size: side of the images, pixels, where the source does not say; 0 if it does.
      patch, pad: pixels, for PaDIS only; see `priors.patches`.
      revision: commit of a hub id; "" takes that of `huggingface.PINNED`, or the
        newest, and records it.
    """

    source: str = ""
    target: str = ""
    size: int = 0
    patch: int = 56
    pad: int = 24
    revision: str = ""


def convert(request: Request, *, weights: str = "") -> pathlib.Path:
    """Convert `request.source` and return the file that was written.

    Args:
      request: see `Request`.
      weights: of the config, a name or a file, which is the target where none is
        given; "" or weights of the package name it after the source. An autoencoder
        that comes with a prior is beside it, in <target>_autoencoder.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do.
    """
    if not request.source:
        raise ValueError(
            "convert what? give --source=<folder, file or hub id>, for example "
            "--source=google/ddpm-celebahq-256"
        )
    sources = request.source.split(",")
    is_data = all(source.endswith(".npy") for source in sources)
    chosen = request.target or ("" if is_data else _file_of(weights))
    target = pathlib.Path(chosen or _default_target(sources, is_data))
    if target.exists():
        raise ValueError(f"{target} exists; give another --target or delete it")
    if is_data:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = dict(release_data.load(sources))
        np.savez_compressed(buffer, **arrays)
        write_atomically(target, buffer.getvalue())
        return target
    first, *others = _weights(request, sources)
    beside = target.with_stem(f"{target.stem}_autoencoder")
    if others and beside.exists():
        raise ValueError(f"{beside} exists; give another --target or delete it")
    for converted in (first, *others):
        _check(request.source, converted)
    save_weights(target, *first, dtype="float32")
    for converted in others:
        save_weights(beside, *converted, dtype="float32")
    return target


def _check(source: str, converted: Converted) -> None:
    """Check that weights fit the network that they name, and are finite."""
    params, record = converted
    check_record(source, record)
    check_finite(source, params)
    of = kind(record)
    if of == "distance":
        return  # it was built of them
    net = build("classifiers" if of == "classifier" else "nets", record["net"])
    shape = record.get("net_shape", record["image_shape"])
    empty = hub.empty_params if of == "prior" else hub.empty_of_image
    check_fit(source, params, empty(net, shape))


def _weights(request: Request, sources: list[str]) -> list[Converted]:
    """Return what the source holds: a network, and perhaps its autoencoder."""
    if len(sources) == 2:
        return [vgg.convert(*sources)]
    if len(sources) > 2:
        raise ValueError(
            f"{request.source}: give one source, or the two files of a perceptual "
            "distance, VGG16 and its weights"
        )
    path, size = pathlib.Path(request.source), request.size
    if path.is_file() and path.suffix in STATE_DICTS:
        arrays = state_dict.read(path)
        for layout in LAYOUTS:
            if layout.MARK in arrays:
                converted = [layout.convert(arrays, str(path), size=size)]
                if layout is latent_diffusion:
                    converted += [layout.autoencoder(arrays, str(path), size=size)]
                return converted
        if arrays and not any("map_layer" in name for name in arrays):
            raise ValueError(
                f"{path}: no layout that we know: not guided or latent diffusion, "
                "DiffNB, EDM, nor a ResNet of torchvision, timm or OpenOOD; it begins "
                f"with {sorted(arrays)[0]!r}"
            )
    return [_network(request)]


def _network(request: Request) -> Converted:
    path, size = pathlib.Path(request.source), request.size
    if path.is_dir():
        configs = path / "config.json", path / "unet" / "config.json"
        if any(config.is_file() for config in configs):
            return hub_folder.load(path)
        return score_sde.load(path, _known(size, path))
    if not path.exists():
        if not hub.is_hub_id(request.source):
            raise FileNotFoundError(f"{path}: no such file or folder to convert")
        folder = huggingface.download(request.source, request.revision)
        params, record = hub_folder.load(folder)
        place = {"source": request.source, "revision": folder.name}
        return Converted(params, record | place)
    if path.suffix in (".pkl", *STATE_DICTS) or _is_edm(path):
        patches = {"patch": request.patch, "pad": request.pad}
        return edm.load(path, size=size, **patches)
    return score_sde.load(path, _known(size, path))


def _is_edm(path):
    if path.suffix != ".npz":
        return False
    try:
        with np.load(path, allow_pickle=False) as archive:
            return any("map_layer" in name for name in archive.files)
    except (ValueError, OSError):
        return False


def _known(size, path):
    if size < 1:
        raise ValueError(
            f"{path}: does not say how large its images are; give --size=512"
        )
    return size


def _file_of(weights):
    """Return the file that the config's weights will be, "" if they are shipped."""
    if not weights or (hub.PACKAGE / "assets" / f"{weights}.safetensors").is_file():
        return ""
    path = pathlib.Path(weights)
    named = path.name == weights and path.suffix != ".safetensors"
    return f"checkpoints/{weights}.safetensors" if named else weights


def _default_target(sources, is_data):
    path = pathlib.Path(sources[0]).absolute()
    # A dot in the name of a folder or hub id begins no suffix: ddpm-v1.0.
    known = path.suffix in (*STATE_DICTS, ".npy", ".npz", ".pkl")
    name = (path.stem if known else path.name).lower()
    stem = re.sub(r"\W+", "_", name).strip("_") or "converted"
    return f"{stem}.npz" if is_data else f"checkpoints/{stem}.safetensors"
