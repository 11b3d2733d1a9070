"""The identity."""

import jax
import numpy as np

from klip_jax.operators.identity import Identity


def test_identity_returns_its_input():
    op = Identity((5, 7, 3))
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    np.testing.assert_array_equal(op(x), x)
    np.testing.assert_array_equal(op.adjoint(x), x)
    np.testing.assert_allclose(op.solve_gram(x, 0.5, 0.25), x / 0.75, rtol=1e-6)
