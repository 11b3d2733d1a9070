"""From names and numbers to objects: the file system is the registry.

`dict(name="ct.ParallelBeam", views=24)` in the room `operators` is
`klip_jax.operators.ct.ParallelBeam(..., views=24)`.
"""

import importlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

import klip_jax
from klip_jax import checkpoint
from klip_jax.convert import diffusers
from klip_jax.priors.base import NetworkPrior


def resolve(room: str, name: str) -> Any:
    """Return what `name` ("module.Public") means in the folder `room`.

    Raises:
      ValueError: if there is no such module or name, listing what there is.
    """
    module_name, _, attribute = name.partition(".")
    folder = pathlib.Path(klip_jax.__file__).parent / room
    modules = sorted(
        p.stem
        for p in folder.glob("*.py")
        if p.stem != "__init__" and not (p.stem + "_").startswith("base_")
    )
    if module_name not in modules:
        raise ValueError(f"{room}: no module {module_name!r} in {name!r}; {modules}")
    module = importlib.import_module(f"klip_jax.{room}.{module_name}")
    if attribute.startswith("_") or not hasattr(module, attribute):
        raise ValueError(f"{room}: {module_name!r} has no {attribute!r} (in {name!r})")
    return getattr(module, attribute)


def build(room: str, config: Mapping[str, Any], *args) -> Any:
    """Call what config["name"] means in `room` with `args` and the other settings.

    Raises:
      ValueError: if the name is unknown or a setting is not one of its own.
    """
    settings = {
        # JSON has lists only; static settings must be hashable.
        k: tuple(v) if isinstance(v, list) else v
        for k, v in config.items()
        if k != "name"
    }
    target = resolve(room, config["name"])
    try:
        return target(*args, **settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"{room}: {config['name']}: {error}") from None


def check_fields(found: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a ValueError naming the first field that is unknown or missing."""
    found, known = list(found), list(known)
    for name in found:
        if name not in known:
            raise ValueError(f"{where}: no setting {name!r}; there are {sorted(known)}")
    for name in known:
        if name not in found:
            raise ValueError(f"{where}: the setting {name!r} is missing")


def fill(kind: type, settings: Mapping[str, Any], where: str) -> Any:
    """Return the NamedTuple `kind` of `settings`; those not given keep their defaults.

    Raises:
      ValueError: if a setting is not one of its own.
    """
    check_fields({**kind._field_defaults, **settings}, kind._fields, where)
    # JSON has lists only; static settings must be hashable.
    return kind(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    )


def empty_params(net, image_shape: tuple[int, ...]) -> Any:
    """Return the shapes of the network's parameters, nothing computed."""
    x = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    noise_level = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x, noise_level)


def load_prior(path) -> tuple[NetworkPrior, dict]:
    """Read released weights.

    Args:
      path: a safetensors file of `checkpoint.save_weights`, or a folder in Hugging Face
        layout; see `convert.diffusers`.

    Returns:
      (prior, record): the denoiser and what the file says of itself.

    Raises:
      FileNotFoundError: if there is no such file, or one is missing in the folder.
      ValueError: if the file is broken or does not fit the network it names.
    """
    is_folder = pathlib.Path(path).is_dir()
    load = diffusers.load if is_folder else checkpoint.load_weights
    params, record = load(path)
    net = build("nets", record["net"])
    # A prior of patches has a network of smaller images, with more channels.
    shape = record.get("net_shape", record["image_shape"])
    checkpoint.check_fit(path, params, empty_params(net, shape))
    table = {k: record["errors"][k] for k in ("levels", "errors")}
    return build("priors", {**record["prior"], **table}, params, net), record
