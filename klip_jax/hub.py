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
import itertools
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

import klip_jax
from klip_jax import checkpoint
from klip_jax.classifiers.base import Classifier
from klip_jax.config import build, modules
from klip_jax.convert import diffusers
from klip_jax.priors.base import NetworkPrior

PACKAGE = pathlib.Path(klip_jax.__file__).parent
_NAME = re.compile(r"[\w.-]+")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ".safetensors", ".pkl", ".pt", ".pth", ".bin", ".npz", ".npy", ".msgpack"
_SHA256 = re.compile(r"sha256 \| ([0-9a-f]{64})")


def load(name: str | os.PathLike) -> tuple[NetworkPrior, dict]:
    """Return the prior of released weights, and what they say of themselves.

    Args:
      name: a file of `checkpoint.save_weights`, a folder in Hugging Face layout (see
        `convert.diffusers`), a name that `find` knows, or a hub id "<owner>/<name>".

    Returns:
      (prior, record): the denoiser and the record; record["sha256"] is of the file.

    Raises:
      FileNotFoundError: if there is nothing of that name, or a file of a folder lacks.
      ValueError: if a file is broken, is not the one of its card, has a number that is
        not finite, or does not fit the network it names.
      OSError: if a hub id cannot be downloaded.

    >>> prior, record = load("phantom_ct")
    >>> record["image_shape"]
    [64, 64, 1]
    """
    path = find(name)
    digest = ""
    if path.is_dir():
        params, record = diffusers.load(path)
    else:
        digest = check_card(path)
        params, record = checkpoint.load_weights(path)
    if is_classifier(record):
        raise ValueError(
            f"{path}: these are weights of a classifier: give them as "
            "classifier.weights, and those of a prior as prior.weights"
        )
    checkpoint.check_finite(path, params)
    check_record(path, record)
    net = build("nets", record["net"])
    # A prior of patches has a network of smaller images, with more channels.
    shape = record.get("net_shape", record["image_shape"])
    checkpoint.check_fit(path, params, empty_params(net, shape))
    table = {k: record["errors"][k] for k in ("levels", "errors")}
    prior = build("priors", {**record["prior"], **table}, params, net)
    return prior, record | {"sha256": digest}


def load_classifier(name: str | os.PathLike) -> tuple[Classifier, dict]:
    """Return the classifier of released weights, and what they say of themselves.

    Args:
      name: a file of `checkpoint.save_weights`, or a name that `find` knows.

    Returns:
      (classifier, record); record["sha256"] is of the file.

    Raises:
      FileNotFoundError: if there is nothing of that name.
      ValueError: if it is no file of a classifier, is broken, is not the one of its
        card, has a number that is not finite, or does not fit the network it names.
    """
    path = find(name, "classifier.weights")
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give the .safetensors of a classifier")
    digest = check_card(path)
    variables, record = checkpoint.load_weights(path)
    if not is_classifier(record):
        raise ValueError(
            f"{path}: these are weights of a prior, not of a classifier: give them as "
            "prior.weights"
        )
    checkpoint.check_finite(path, variables)
    check_record(path, record)
    net = build("classifiers", record["net"])
    shape = tuple(record["image_shape"])
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    empty = jax.eval_shape(net.init, jax.random.key(0), x)
    checkpoint.check_fit(path, variables, empty)
    return Classifier(net, variables, shape), record | {"sha256": digest}


def is_classifier(record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a classifier: a network of that room, no prior."""
    net = record.get("net")
    name = net.get("name") if isinstance(net, Mapping) else None
    if not isinstance(name, str) or "prior" in record:
        return False
    return ":" in name or name.partition(".")[0] in modules("classifiers")


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
            for found in (folder / f"{text}.safetensors", folder / text):
                if found.exists():
                    return found
        places = ", ".join(str(folder) for folder in folders())
        where = f"{setting}={text!r}: no such weights in {places}"
    elif is_hub_id(text) and not path.parent.is_dir():
        return diffusers.download(text)
    else:
        where = f"{text}: no such weights"
    raise FileNotFoundError(
        f"{where}; train them with --mode=train, or convert those of others with "
        "--mode=convert"
    )


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
    stem = path.name.removesuffix(".safetensors")
    places = [*([path.parent] if path.is_file() else []), *folders()]
    found = [
        law
        for place in dict.fromkeys(place.resolve() for place in places)
        for pattern in ("_law.npz", "_*_law.npz")
        for law in sorted(place.glob(glob.escape(stem) + pattern))
    ]
    return list(dict.fromkeys(found))


def folders() -> Iterator[pathlib.Path]:
    """Yield the folders in which weights and laws are looked for, in order."""
    yield PACKAGE / "assets"
    yield pathlib.Path("checkpoints")
    if (PACKAGE.parent / "checkpoints").is_dir():
        yield PACKAGE.parent / "checkpoints"
    if home := os.environ.get("KLIP_HOME"):
        yield pathlib.Path(home)


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


def check_record(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Check the record of weights: what is there, of what type, and finite.

    That of a classifier tells of a network and of the shape of its images.

    Raises:
      ValueError: naming the first field that is missing or wrong.
    """

    def require(right, field, rule):
        if not right:
            raise ValueError(f"{path}: the record's {field} {rule}")

    for field in ("net", "prior")[: 1 if is_classifier(record) else 2]:
        part = record.get(field)
        right = isinstance(part, Mapping) and isinstance(part.get("name"), str)
        require(right, field, "must hold a name and settings")
    for field in ("image_shape", "net_shape")[: 1 + ("net_shape" in record)]:
        shape = record.get(field)
        right = isinstance(shape, list | tuple) and len(shape) == 3
        right = right and all(type(n) is int and 0 < n <= 1 << 16 for n in shape or ())
        require(right, field, "must be three whole numbers, height, width, channels")
    if is_classifier(record):
        return
    prior = record["prior"]
    for name, value in prior.items():
        require(_finite(value), f"prior.{name}", "must be finite")
    betas, sigma_data = prior.get("betas", [0.5]), prior.get("sigma_data", 0.5)
    right = isinstance(betas, list | tuple) and len(betas) > 0
    right = right and all(_is_number(b) and 0 < b < 1 for b in betas)
    require(right, "prior.betas", "must all lie in (0, 1), and there must be some")
    right = _is_number(sigma_data) and sigma_data > 0
    require(right, "prior.sigma_data", "must be positive")
    require(isinstance(record.get("errors"), Mapping), "errors", "must hold a table")
    errors = record["errors"]
    for name in ("levels", "errors", "train", "test"):
        table = errors.get(name, None if name in ("levels", "errors") else [])
        right = isinstance(table, list | tuple)
        right = right and all(_is_number(v) and 0 < v < 1e6 for v in table)
        require(right, f"errors.{name}", "must be numbers in (0, 1e6)")
    levels = errors["levels"]
    increasing = all(a < b for a, b in itertools.pairwise(levels))
    require(increasing, "errors.levels", "must increase")
    for name in ("errors", "train", "test"):
        right = len(errors.get(name, levels)) == len(levels)
        require(right, f"errors.{name}", f"must be {len(levels)}, one a level")


def empty_params(net: Any, image_shape: Sequence[int]) -> Any:
    """Return the shapes of the network's parameters, nothing computed.

    Args:
      net: a flax.linen module.
      image_shape: (H, W, C) of what it sees.
    """
    x = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    noise_level = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x, noise_level)


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _finite(value):
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
