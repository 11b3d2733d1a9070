"""Frozen dataclasses that are pytrees: their fields are leaves, or said to be static.

The spelling is that of `flax.struct`, which registers a class by
`jax.tree_util.register_dataclass`. Of two such classes with the same fields jax 0.10
says that their tree structures are equal, and only their hashes tell them apart: of 60
such detectors under one `jit` 7 ran the program of another. Here the class is part of
the structure. jax rebuilds an object without its `__post_init__`: what is checked there
was checked when it was made.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

Kind = TypeVar("Kind", bound=type)


def field(*, pytree_node: bool = True, **settings: Any) -> Any:
    """Describe a field; with pytree_node=False it is static, and must be hashable."""
    return dataclasses.field(metadata=dict(pytree_node=pytree_node), **settings)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def dataclass(kind: Kind) -> Kind:
    """Make a class a frozen dataclass and a pytree, with `.replace(**changes)`."""
    if "__dataclass_fields__" in vars(kind):
        return kind  # by inheritance already, as priors are
    made: Any = dataclasses.dataclass(frozen=True)(kind)
    leaves: list[str] = []
    static: list[str] = []
    for each in dataclasses.fields(made):
        is_leaf = each.metadata.get("pytree_node", True)
        (leaves if is_leaf else static).append(each.name)
    keys = [jax.tree_util.GetAttrKey(name) for name in leaves]

    def flatten(instance):
        values = tuple(getattr(instance, name) for name in leaves)
        return values, tuple(getattr(instance, name) for name in static)

    def flatten_with_keys(instance):
        values, settings = flatten(instance)
        return tuple(zip(keys, values, strict=True)), settings

    def unflatten(settings, values):
        instance = object.__new__(made)
        names = (*leaves, *static)
        for name, value in zip(names, (*values, *settings), strict=True):
            object.__setattr__(instance, name, value)
        return instance

    made.replace = dataclasses.replace
    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made
