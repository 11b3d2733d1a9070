"""What weights say of themselves: the record in a file, and how it is checked.

prior        a network, how it is a denoiser, the shape of its images, and a table
             of its errors
classifier   a network of that room, and a shape
autoencoder  a network, and the shape of its images
distance     the class of the room `distances` that the weights are of
"""

import itertools
import math
import os
from collections.abc import Mapping
from typing import Any

from klip_jax.rooms import modules

NAMED = {
    "prior": ("net", "prior"),
    "classifier": ("net",),
    "autoencoder": ("net",),
    "distance": ("distance",),
}
"""{kind: fields with a name and settings}."""


def kind(record: Mapping[str, Any]) -> str:
    """Return what weights are of, one of `NAMED`, by what their record has."""
    if "distance" in record:
        return "distance"
    if is_classifier(record):
        return "classifier"
    whole = {"net", "image_shape"} <= record.keys()
    return "autoencoder" if whole and "prior" not in record else "prior"


def check_record(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Check the record of weights: what is there, of what type, and finite.

    Raises:
      ValueError: naming the first field that is missing or wrong.
    """

    def require(right, field, rule):
        if not right:
            raise ValueError(f"{path}: the record's {field} {rule}")

    of = kind(record)
    for field in NAMED[of]:
        part = record.get(field)
        right = isinstance(part, Mapping) and isinstance(part.get("name"), str)
        require(right, field, "must hold a name and settings")
    if of == "distance":
        return
    for field in ("image_shape", "net_shape")[: 1 + ("net_shape" in record)]:
        shape = record.get(field)
        right = isinstance(shape, list | tuple) and len(shape) == 3
        right = right and all(type(n) is int and 0 < n <= 1 << 16 for n in shape or ())
        require(right, field, "must be three whole numbers, height, width, channels")
    if of != "prior":
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


def is_classifier(record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a classifier: a network of that room, no prior."""
    net = record.get("net")
    name = net.get("name") if isinstance(net, Mapping) else None
    if not isinstance(name, str) or "prior" in record:
        return False
    return ":" in name or name.partition(".")[0] in modules("classifiers")


def _is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def _finite(value):
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
