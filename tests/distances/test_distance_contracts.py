"""What every distance keeps; a new file of the room is tested without being named."""

import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import distances
from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.resnet import ResNet

SIMILARITIES = {"pixel.psnr", "pixel.ssim"}
SHAPE = (12, 12, 3)
NET = ResNet((1,), width=4, classes=3)


def functions():
    """Return the functions of two images, or of two vectors of logits, by name."""
    found = {}
    for path in sorted(Path(distances.__file__).parent.glob("[!_]*.py")):
        if not path.stem.startswith("base"):
            module = importlib.import_module(f"klip_jax.distances.{path.stem}")
            for name, value in vars(module).items():
                own = getattr(value, "__module__", "") == module.__name__
                if own and inspect.isfunction(value) and _compares(name, value):
                    found[f"{path.stem}.{name}"] = value
    return found


def _compares(name, function):
    return not name.startswith("_") and len(inspect.signature(function).parameters) > 1


FUNCTIONS = functions()


@pytest.fixture(scope="module")
def of():
    """name -> the values of some pairs [a a, a b, b a, a c], c farther than b."""
    x = jax.random.uniform(jax.random.key(0), (2, *SHAPE))
    a, noise = x[0] * 0.5, x[1]
    triple = jnp.stack([a, a + 0.02 * noise, a + 0.5 * noise])
    shapes = jax.eval_shape(NET.init, jax.random.key(0), a)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.float32(
            rng.normal(size=leaf.shape) if leaf.ndim > 1 else np.ones(leaf.shape)
        ),
        shapes,
    )

    def values(name):
        function, first = FUNCTIONS[name], ()
        if "classifier" in inspect.signature(function).parameters:
            first = (Classifier(NET, variables, SHAPE),)
        items = triple if name.split(".")[0] != "logits" else triple.mean(-1)[:, :, 0]
        left, right = items[jnp.array([0, 0, 1, 0])], items[jnp.array([0, 1, 0, 2])]
        mapped = jax.vmap(function, (*(None for _ in first), 0, 0))
        return np.asarray(jax.jit(mapped)(*first, left, right))

    return values


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_images_are_nearest_and_order_does_not_matter(of, name):
    same, there, back, far = of(name).reshape(4, -1).mean(1)
    np.testing.assert_allclose(there, back, rtol=1e-4)
    if name in SIMILARITIES:
        assert same > there > far
    else:
        assert same == 0 < there < far
