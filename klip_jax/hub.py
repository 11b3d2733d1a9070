"""Weights by name: from a name, a file, a folder or a hub id to a prior and its record.

`load("abdomen_ct_64")` looks for `abdomen_ct_64.safetensors` in, one after the other,
the package (`assets/`), `./checkpoints`, the checkout's `checkpoints/` and the folder
$KLIP_HOME. Beside weights lie their card, `<name>.md`, whose SHA-256 they must have,
and reference laws, `<name>_law.npz`.

A file of ours holds parameters and a JSON record (network, prior, shape, error table).
All of it is checked when it is read: a number that is NaN or infinite is an error here,
not a heatmap of NaN an hour later.
"""

import glob
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import klip_jax
from klip_jax import checkpoint, own_prior, records
from klip_jax.assets import folders
from klip_jax.classifiers.base import Classifier
from klip_jax.config import build
from klip_jax.convert import hub_folder, huggingface, published
from klip_jax.priors.autoencoder import Autoencoder
from klip_jax.priors.labelled import Labelled
from klip_jax.rooms import resolve

PACKAGE = pathlib.Path(klip_jax.__file__).parent
_NAME = re.compile(r"[\w.-]+")
_OWN = re.compile(r"[\w.]+:\w+")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (
    *(".safetensors", ".pkl", ".pt", ".pth", ".ckpt", ".bin"),
    *(".npz", ".npy", ".msgpack"),
)
_KINDS = {
    "prior": ("a prior", "prior.weights"),
    "classifier": ("a classifier", "classifier.weights"),
    "autoencoder": ("an autoencoder", "autoencoder.weights of a detector"),
    "distance": ("a distance", "perceptual.weights of a detector"),
}
"""Words for what weights are of, and where a config names them."""
_SHA256 = re.compile(r"sha256 \| ([0-9a-f]{64})")


def load(name: str | os.PathLike) -> tuple[Any, dict]:
    """Return the prior of released weights, and what they say of themselves.

    Args:
      name: a file of `checkpoint.save_weights`, a folder in Hugging Face layout (see
        `convert.hub_folder`), a name that `find` knows, a hub id "<owner>/<name>", or
        "my.module:make" of your own code (`own_prior`).

    Returns:
      (prior, record): the denoiser, a `types.Conditional` too where the network knows
        classes, and the record; record["sha256"] is of the file.

    Raises:
      FileNotFoundError: if there is nothing of that name, or a file of a folder lacks.
      ValueError: if a file is broken, is not the one of its card, has a number that is
        not finite, or does not fit the network it names.
      OSError: if a hub id cannot be downloaded.

    >>> prior, record = load("phantom_ct")
    >>> record["image_shape"]
    [64, 64, 1]
    """
    if is_own(name):
        return own_prior.load(str(name))
    path = find(name)
    digest = ""
    if path.is_dir():
        params, record = hub_folder.load(path)
        _check(path, params, record, "prior")
    else:
        params, record, digest = _read(path, "prior")
    net = build("nets", record["net"])
    # A prior of patches has a network of smaller images, with more channels.
    shape = record.get("net_shape", record["image_shape"])
    checkpoint.check_fit(path, params, empty_params(net, shape))
    table = {k: record["errors"][k] for k in ("levels", "errors")}
    prior = build("priors", {**record["prior"], **table}, params, net)
    knows_classes = getattr(net, "classes", 0) > 0
    return Labelled(prior) if knows_classes else prior, record | {"sha256": digest}


def load_classifier(
    name: str | os.PathLike, setting: str = "classifier.weights"
) -> tuple[Classifier, dict]:
    """Return the classifier of released weights, and what they say of themselves.

    Args:
      name: a file of `checkpoint.save_weights`, or a name that `find` knows.
      setting: where it stands, for messages.

    Returns:
      (classifier, record); record["sha256"] is of the file.

    Raises:
      FileNotFoundError: if there is nothing of that name.
      ValueError: if it is no file of a classifier, is broken, is not the one of its
        card, has a number that is not finite, or does not fit the network it names.
    """
    path = find(name, setting)
    variables, record, digest = _read(path, "classifier")
    net, shape = build("classifiers", record["net"]), tuple(record["image_shape"])
    checkpoint.check_fit(path, variables, empty_of_image(net, shape))
    return Classifier(net, variables, shape), record | {"sha256": digest}


def load_autoencoder(
    name: str | os.PathLike, setting: str = "autoencoder.weights"
) -> tuple[Autoencoder, dict]:
    """Return the autoencoder of converted weights; otherwise as `load_classifier`.

    `--mode=convert` writes it beside the prior of its latents.
    """
    path = find(name, setting)
    params, record, digest = _read(path, "autoencoder")
    net = build("nets", record["net"])
    checkpoint.check_fit(path, params, empty_of_image(net, record["image_shape"]))
    return Autoencoder(params, net), record | {"sha256": digest}


def load_perceptual(
    name: str | os.PathLike, setting: str = "perceptual.weights"
) -> tuple[Any, dict]:
    """Return the distance of converted weights; otherwise as `load_classifier`.

    Its class has `of(weights)`, as those of `distances.perceptual` do.
    """
    path = find(name, setting)
    weights, record, digest = _read(path, "distance")
    target = resolve("distances", record["distance"]["name"])
    try:
        return target.of(weights), record | {"sha256": digest}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path, kind):
    """Return (parameters, record, SHA-256) of a file, if it is of that kind."""
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give the file of {_KINDS[kind][0]}")
    digest = check_card(path)
    try:
        params, record = checkpoint.load_weights(path)
    except ValueError as error:
        raise ValueError(
            f"{error}; weights of others: python -m klip_jax.main --mode=convert "
            f"--source={path}"
        ) from None
    _check(path, params, record, kind)
    return params, record, digest


def _check(path, params, record, kind):
    own = records.kind(record)
    if own != kind:
        (given, place), (needed, _) = _KINDS[own], _KINDS[kind]
        raise ValueError(
            f"{path}: these are weights of {given}, not of {needed}: give them as "
            f"{place}"
        )
    checkpoint.check_finite(path, params)
    records.check_record(path, record)


def find(name: str | os.PathLike, setting: str = "prior.weights") -> pathlib.Path:
    """Return the file or folder of weights that `name` means; see `load`.

    Args:
      name: as in a config.
      setting: where it stands there, for messages.

    Raises:
      FileNotFoundError: if there is none, saying where it was looked for.
      OSError: if a hub id cannot be downloaded.
    """
    path = pathlib.Path(name)
    if path.is_file() or path.is_dir():
        return path
    text = str(name)
    if _NAME.fullmatch(text) and path.suffix not in _FILES:
        for folder in folders():
            for place in (folder / f"{text}.safetensors", folder / text):
                if place.exists():
                    return place
        places = ", ".join(str(folder) for folder in folders())
        where = f"{setting}={text!r}: no such weights in {places}"
    elif is_hub_id(text) and not path.parent.is_dir():
        return huggingface.download(text)
    else:
        where = f"{text}: no such weights"
    remedy = "train them with --mode=train, or convert those of others with "
    remedy = published.remedy(text) or remedy + "--mode=convert"
    raise FileNotFoundError(f"{where}; {remedy}")


def is_own(name: str | os.PathLike) -> bool:
    """Return whether a name is of code, "package.module:name", and of no file."""
    return bool(_OWN.fullmatch(str(name))) and not pathlib.Path(name).exists()


def is_hub_id(text: str) -> bool:
    """Return whether `text` reads as "<owner>/<name>", not as a file."""
    return bool(_HUB_ID.fullmatch(text)) and not text.endswith(_FILES)


def law_paths(name: str | os.PathLike) -> list[pathlib.Path]:
    """Return the reference laws that ship with weights; which one fits, its print says.

    Args:
      name: of the weights as for `find`, or of one of their laws, "faces_gray_64_blur";
        or an .npz file.

    Returns:
      `<name>_law.npz` and `<name>_*_law.npz`, one for each scan, beside the weights
      and in `folders`.
    """
    path = pathlib.Path(name)
    if path.suffix == ".npz":
        return [path] if path.is_file() else []
    return _beside(path, "law.npz")


def scan_paths(name: str | os.PathLike) -> list[pathlib.Path]:
    """Return the cards of the scans that weights were calibrated for.

    Args:
      name: of the weights, as for `find`.

    Returns:
      `<name>_scan.json` and `<name>_*_scan.json`; see `run.scan_card`.
    """
    return _beside(pathlib.Path(name), "scan.json")


def _beside(path, ending):
    """Return <weights>_<ending> and <weights>_*_<ending>, there and in `folders`."""
    stem = path.name.removesuffix(".safetensors")
    places = [*([path.parent] if path.is_file() else []), *folders()]
    files = [
        file
        for place in dict.fromkeys(place.resolve() for place in places)
        for pattern in (f"_{ending}", f"_*_{ending}")
        for file in sorted(place.glob(glob.escape(stem) + pattern))
    ]
    return list(dict.fromkeys(files))


def sha256(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_card(path: pathlib.Path) -> str:
    """Return the SHA-256 of weights; it is that of the card beside them, if there is.

    Raises:
      ValueError: if it is not.
    """
    digest, card = sha256(path), path.with_suffix(".md")
    if card.is_file() and (stated := _SHA256.search(card.read_text())):
        if stated[1] != digest:
            raise ValueError(
                f"{path}: its SHA-256 is {digest[:12]}..., but {card.name} says "
                f"{stated[1][:12]}...; fetch the weights or the card again"
            )
    return digest


def empty_params(net: Any, image_shape: Sequence[int]) -> Any:
    """Return the shapes of the network's parameters, nothing computed.

    Args:
      net: a flax.linen module.
      image_shape: (H, W, C) of what it sees.
    """
    x = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    noise_level = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x, noise_level)


def empty_of_image(net: Any, image_shape: Sequence[int]) -> Any:
    """Return the same of a network that sees an image alone."""
    x = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x)
