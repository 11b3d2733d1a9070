import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.ct import ParallelBeam
from klip_jax.parallel import shard_vmap

COUNT = 8


def noisy(op, scale, x, key):
    """One image: a scan, a matrix product and noise, as the detector has."""
    noise = jax.random.normal(key, op.out_shape)

    def step(x, _):
        return x - 1e-3 * op.adjoint(op(x) - scale["noise"] * noise), None

    x, _ = jax.lax.scan(step, x, None, length=3)
    return {"x": x, "norm": jnp.sum(x**2)}, noise


@pytest.fixture(scope="module")
def arguments():
    op = ParallelBeam((8, 8, 1), views=4)
    keys = jax.random.split(jax.random.key(0), 2 * COUNT)
    images = jax.random.normal(jax.random.key(1), (2 * COUNT, 8, 8, 1))
    return op, {"noise": jnp.float32(0.3)}, images, keys


@pytest.fixture(scope="module")
def expected(arguments):
    return jax.jit(jax.vmap(noisy, (None, None, 0, 0)))(*arguments)


def check(found, expected):
    (found, noise), (expected, same_noise) = found, expected
    np.testing.assert_array_equal(noise, same_noise)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, COUNT])
def test_any_number_of_devices_gives_what_vmap_gives(arguments, expected, count):
    devices = jax.devices()[:count]
    found = shard_vmap(noisy, shared=2, devices=devices)(*arguments)
    check(found, expected)
    assert found[0]["x"].sharding.device_set == set(devices)
    # Each device holds its own images only.
    (shard,) = {s.data.shape for s in found[0]["x"].addressable_shards}
    assert shard == (2 * COUNT // count, 8, 8, 1)


def test_all_devices_by_default(arguments, expected):
    found = shard_vmap(noisy, shared=2)(*arguments)
    assert len(found[0]["x"].sharding.device_set) == jax.device_count() == COUNT
    check(found, expected)


def test_equals_pmap(arguments, expected):
    *shared, images, keys = arguments
    split = [a.reshape(COUNT, 2, *a.shape[1:]) for a in (images, keys)]
    axes = (None, None, 0, 0)
    mapped = jax.pmap(jax.vmap(noisy, axes), in_axes=axes)(*shared, *split)
    joined = jax.tree.map(lambda a: a.reshape(2 * COUNT, *a.shape[2:]), mapped)
    check(joined, expected)
    check(shard_vmap(noisy, shared=2)(*arguments), joined)


def test_images_must_fill_the_devices(arguments):
    op, scale, images, keys = arguments
    with pytest.raises(ValueError, match="8"):
        shard_vmap(noisy, shared=2)(op, scale, images[:9], keys[:9])


def test_nothing_shared():
    found = shard_vmap(lambda x: x + 1)(jnp.arange(8.0))
    np.testing.assert_array_equal(found, np.arange(8.0) + 1)
