"""The type checker of the tests: what signatures say of types and shapes is true."""

from beartype import beartype


def functions_only(function):
    """Check calls of `function`, but not how dataclasses are built.

    jax rebuilds them with whatever stands for a leaf: tracers, axes, None.
    """
    return function if function.__name__ == "__init__" else beartype(function)
