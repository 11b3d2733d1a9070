"""The contract of a forward operator, for the operators here and for yours.

<A x, y> = <x, A^H y>,   grad 1/2 |A x - y|^2 = A^H (A x - y),   jit, vmap, pytree

check_operator(MyOperator((17, 19, 1)), jax.random.key(0))
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.operators.base import Operator


def check_operator(op: Operator, key: Array, *, tol: float = 1e-5) -> None:
    """Check that `op` does what samplers, guidance and estimators take for granted.

    Differences are measured in the Euclidean norm relative to what is expected; the dot
    test relative to |A x| |y|. Try odd image sizes too: they find FFT and padding bugs.

    Args:
      op: the operator, with `in_shape`, `out_shape` and `out_dtype`.
      key: for the random images and measurements, float32.
      tol: largest relative difference; `solve_gram`, which may iterate, gets 10 times.

    Raises:
      AssertionError: naming the property that fails and by how much.
    """
    name = type(op).__name__
    key_x, key_y = jax.random.split(key)
    x, x2 = jax.random.normal(key_x, (2, *op.in_shape), jnp.float32)
    y, y2 = jax.random.normal(key_y, (2, *op.out_shape), op.out_dtype)
    apply, adjoint = jax.jit(type(op).__call__), jax.jit(type(op).adjoint)

    def fits(value, shape, dtype, what):
        got, expected = (value.shape, value.dtype), (tuple(shape), jnp.dtype(dtype))
        _require(got == expected, f"{name}: {what} is {got}, must be {expected}")
        _require(bool(np.isfinite(value).all()), f"{name}: {what} is not finite")

    def close(value, expected, what, limit=tol):
        value, expected = (np.asarray(a, np.complex128) for a in (value, expected))
        scale = max(np.linalg.norm(expected.ravel()), 1e-30)
        error = float(np.linalg.norm((value - expected).ravel()) / scale)
        _require(error <= limit, f"{name}: {what} differs by {error:.1e} > {limit:.0e}")

    ax = op(x)
    fits(ax, op.out_shape, op.out_dtype, "A x")
    linear = 2 * np.asarray(ax) - 3 * np.asarray(apply(op, x2))
    close(apply(op, 2 * x - 3 * x2), linear, "linearity, A (2 x - 3 x')")

    ahy = op.adjoint(y)
    fits(ahy, op.in_shape, x.dtype, "adjoint(y)")
    fits(op.naive_inverse(y), op.in_shape, x.dtype, "naive_inverse(y)")
    left, right = np.vdot(ax, y).real, np.vdot(x, ahy)
    sizes = np.linalg.norm(np.ravel(ax)) * np.linalg.norm(np.ravel(y))
    dot = float(abs(left - right) / sizes)
    _require(dot <= tol, f"{name}: dot test <A x, y> = <x, A^H y> misses by {dot:.1e}")
    loss = jax.grad(lambda x, op: 0.5 * jnp.sum(jnp.abs(op(x) - y) ** 2))
    close(jax.jit(loss)(x, op), adjoint(op, ax - y), "the gradient of 1/2 |A x - y|^2")

    for what, call, plain, first, second in [
        ("A x", apply, ax, x, x2),
        ("adjoint(y)", adjoint, ahy, y, y2),
    ]:
        close(call(op, first), plain, f"{what} inside jit")
        batch = jax.jit(jax.vmap(call, (None, 0)))(op, jnp.stack([first, second]))
        close(batch, np.stack([plain, call(op, second)]), f"{what} inside vmap")

    leaves, structure = jax.tree.flatten(op)
    rebuilt = jax.tree.unflatten(structure, leaves)
    close(rebuilt(x), ax, "A x after tree.flatten and tree.unflatten")
    same = bool(jax.tree.structure(rebuilt) == structure)  # type: ignore[operator]
    _require(same, f"{name}: its pytree structure changes, so that jit recompiles")

    variance, noise_var = 0.5, 0.1 * float(np.mean(np.abs(ax) ** 2)) + 1e-3
    u = jax.jit(type(op).solve_gram)(op, y, variance, noise_var)
    seen = apply(op, adjoint(op, u))
    back = variance * np.asarray(seen) + noise_var * np.asarray(u)
    close(back, y, "(variance A A^H + noise_var I) solve_gram(y) = y", 10 * tol)


def _require(condition: bool, message: str) -> None:
    if not condition:  # not `assert`: it must also work under `python -O`
        raise AssertionError(message)
