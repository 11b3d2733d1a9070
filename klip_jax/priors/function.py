"""Any callable as a prior: D(x, sigma) and, where it is known, its expected error.

    prior(lambda x, sigma: x / (1 + sigma**2))

What is a pytree enters `jit` as an argument. A plain function or object enters as a
constant: keep one and the same, because a new one is compiled again.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.tree_util import Partial

from klip_jax import struct
from klip_jax.priors.base import white_variance
from klip_jax.types import Conditional, Denoiser, Image, Scalar


@struct.dataclass
class FunctionPrior:
    """A denoiser made of two functions.

    Attributes:
      function: (x [H, W, C], sigma) -> E[x0 | x_sigma = x], images in [0, 1].
      expected_error: sigma -> E||x0 - D||^2 / d, squared image units.
    """

    function: Partial
    expected_error: Partial

    def __call__(self, x: Image, sigma: Scalar) -> Image:
        return self.function(x, sigma)

    def variance(self, sigma: Scalar) -> Scalar:
        return self.expected_error(sigma)


def prior(
    denoise: Any,
    variance: Callable[[Scalar], Scalar] | None = None,
) -> Denoiser | Conditional:
    """Make a prior of anything that denoises.

    >>> import klip_jax
    >>> def denoise(x, sigma):  # E[x0 | x] for white pixels, N(1/2, 1/4)
    ...     return (x + 2 * sigma**2) / (1 + 4 * sigma**2)
    >>> float(klip_jax.prior(denoise).variance(0.5))
    0.125

    Args:
      denoise: (x [H, W, C], sigma) -> E[x0 | x0 + sigma z = x] for images in [0, 1]. A
        prior that already is one is returned as it is.
      variance: sigma -> its expected squared error per pixel, squared image units;
        by default its own method `variance`, or, where it has none, that of a white
        prior which fills [0, 1], sigma^2 v / (v + sigma^2) with v = 1/4.

    Returns:
      A `types.Denoiser`, or the `types.Conditional` that was given.

    Raises:
      TypeError: if it cannot be called, or is a class and not one of its objects.
      ValueError: if it is a pytree that `jit` cannot take, naming the field.
    """
    name = getattr(denoise, "__name__", type(denoise).__name__)
    if isinstance(denoise, type):
        raise TypeError(f"{name} is a class: build a prior with it, {name}(...)")
    if not callable(denoise) and not isinstance(denoise, Conditional):
        raise TypeError(
            f"a {name} does not denoise: a prior is called as prior(x, sigma) with an "
            "image [H, W, C] and its noise level, and returns the image without noise"
        )
    if not callable(denoise):
        return check_jittable(denoise, name)
    own = getattr(denoise, "variance", None)
    if variance is None and callable(own) and _is_node(denoise):
        return check_jittable(denoise, name)
    error = next((v for v in (variance, own) if callable(v)), white_variance)
    return FunctionPrior(_partial(denoise, name), _partial(error, name))


def _is_node(thing: Any) -> bool:
    """Tell whether jax knows how to take `thing` apart."""
    return not jax.tree_util.all_leaves([thing])


def _partial(function: Any, name: str) -> Partial:
    if _is_node(function):
        return Partial(_call, check_jittable(function, name))
    _check_static(function, name)
    return Partial(function)


def _call(function, *args):
    return function(*args)


def check_jittable(tree: Any, name: str) -> Any:
    """Raise a ValueError unless `jit` can take `tree`."""
    numbers = Array | np.ndarray | np.generic | int | float | complex
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, numbers):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} is a {type(leaf).__name__}, which "
                "jit cannot take: make it an array, or static by "
                "struct.field(pytree_node=False)"
            )
    for field in dataclasses.fields(tree) if dataclasses.is_dataclass(tree) else ():
        if not field.metadata.get("pytree_node", True):
            _check_static(getattr(tree, field.name), f"{name}.{field.name}")
    return tree


def _check_static(value: Any, name: str) -> None:
    try:
        hash(value)
    except TypeError as error:
        raise ValueError(
            f"{name} is static for jit but cannot be hashed ({error}): hold arrays in "
            "plain fields of a flax.struct.dataclass, and make a list a tuple"
        ) from None
