import dataclasses

import jax
import jax.numpy as jnp
import pytest

from klip_jax import struct


def times(factor):
    @struct.dataclass
    class Times:
        value: float = 1.0
        static: int = struct.field(pytree_node=False, default=0)

        def __call__(self):
            return factor * self.value

    return Times


def test_jit_never_takes_one_class_for_another():
    kinds = [times(factor) for factor in range(60)]
    structures = [jax.tree.structure(kind()) for kind in kinds]
    assert all(a != b for a in structures for b in structures if a is not b)
    call = jax.jit(lambda instance: instance())
    assert [int(call(kind())) for kind in kinds] == list(range(60))


def test_floats_are_leaves_and_static_fields_are_not():
    traces = []

    @jax.jit
    def call(instance):
        traces.append(instance.static)
        return instance()

    kind = times(2)
    assert [call(kind(v)) for v in (1.0, 2.0, 3.0)] == [2, 4, 6]
    call(kind(1.0, static=1))
    assert traces == [0, 1]
    paths, _ = jax.tree_util.tree_flatten_with_path(kind(4.0))
    assert [(jax.tree_util.keystr(k), v) for k, v in paths] == [(".value", 4.0)]
    assert jax.vmap(lambda i: i())(kind(jnp.arange(3.0))).tolist() == [0, 2, 4]


def test_frozen_replaced_and_checked_when_made():
    @struct.dataclass
    class Positive:
        value: float

        def __post_init__(self):
            if not self.value > 0:
                raise ValueError("positive")

    one = Positive(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.value = 2.0
    assert one.replace(value=3.0) == Positive(3.0)
    with pytest.raises(ValueError, match="positive"):
        one.replace(value=-1.0)
    # What jax puts into the place of a leaf is not checked.
    assert jax.tree.map(lambda _: None, one).value is None
    assert jax.jit(lambda p: jax.tree.map(lambda v: 2 * v, p))(one) == Positive(2.0)


def test_a_subclass_has_the_fields_of_both():
    base = times(3)

    @struct.dataclass
    class More(base):
        other: float = 5.0

    assert jax.tree.leaves(More(2.0)) == [2.0, 5.0] and More(2.0)() == 6.0
