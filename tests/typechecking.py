"""The type checker of the tests: what signatures say of types and shapes is true."""

from beartype import BeartypeConf, beartype

# As type checkers have it, an int is a float too (PEP 484).
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def functions_only(function):
    """Check calls of `function`, but not how dataclasses are built.

    jax rebuilds them with whatever stands for a leaf: tracers, axes, None.
    """
    return function if function.__name__ == "__init__" else _check(function)
