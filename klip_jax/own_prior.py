"""A prior of your own code, named in a config like weights: "my.module:make".

    # my/module.py
    def make():
        return denoise, (64, 64, 1)

`make` takes nothing and returns what `klip_jax.prior` takes and the shape of images; a
third thing, if there is one, is joined to the record, such as a table of errors. The
source of the module is part of what a law is of and of what a workdir is bound to: what
it reads besides, weights say, it should return as arrays of a pytree.
"""

import hashlib
import inspect
import pathlib
from typing import Any

from klip_jax.priors.function import prior as as_prior
from klip_jax.rooms import resolve


def load(name: str) -> tuple[Any, dict[str, Any]]:
    """Return a prior and its record, as `hub.load` does of weights.

    Args:
      name: "package.module:function".

    Raises:
      ValueError: if there is no such function, it fails, or returns something else.
    """
    make = resolve("prior.weights", name)
    try:
        denoise, shape, *more = make()
        image_shape = tuple(int(n) for n in shape)
        prior: Any = as_prior(denoise)
    except Exception as error:
        # It is anybody's code, and fails in any way.
        raise ValueError(
            f"prior.weights={name}: give a function without arguments that returns "
            f"(what denoises, (H, W, C)); {type(error).__name__}: {error}"
        ) from None
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"prior.weights={name}: its shape {shape} is not (H, W, C)")
    file = inspect.getsourcefile(make)
    source = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest() if file else ""
    record = {
        "net": {"name": name, "source": source},
        "prior": {"name": name},
        "image_shape": list(image_shape),
        "sha256": source,
    }
    return prior, (more[0] if more else {}) | record
