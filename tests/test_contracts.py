"""Contracts that every extension keeps, found by walking the package.

A public operator must be constructible as `Class(in_shape)`, with sensible defaults,
for any (H, W, 1); for other channels it may raise ValueError instead. That is all it
takes to be tested here. Guidance and samplers are frozen dataclasses that need no
settings; one that needs the exact posterior gets it.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klip_jax.guidance
import klip_jax.operators
import klip_jax.samplers
from klip_jax import sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.base import Composition, Operator
from klip_jax.operators.identity import Identity
from klip_jax.operators.mask import Half
from klip_jax.priors.analytic import Gaussian
from klip_jax.sample import sample
from klip_jax.testing import check_operator
from klip_jax.types import Guidance, Sampler, Scan

ODD = (17, 9, 2)  # of one channel where it takes no more
OTHERS = (17, 19, 1), (12, 9, 2), (9, 12, 3), (16, 16, 1)
SHAPES = [ODD, *(pytest.param(shape, marks=pytest.mark.slow) for shape in OTHERS)]
SMALL = (9, 8, 1)


def modules(package):
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def public_classes(package, base):
    """List the public subclasses of `base` that modules of `package` define."""
    return [
        value
        for module in modules(package)
        if not module.__name__.rpartition(".")[2].startswith("base_")
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, base) and value.__module__ == module.__name__
        if not name.startswith("_") and value not in (base, Composition)
    ]


def public_kinds(package, protocol):
    """List the public dataclasses of modules of `package` that fulfil a protocol."""
    return [
        value
        for value in public_classes(package, object)
        if dataclasses.is_dataclass(value)
        if all(callable(getattr(value, name, None)) for name in protocol)
    ]


OPERATORS = public_classes(klip_jax.operators, Operator)
GUIDANCE = public_kinds(klip_jax.guidance, ["score"])
# Those that aim at a label look at no scan.
GUIDANCE = [kind for kind in GUIDANCE if not hasattr(kind, "aim")]
SAMPLERS = public_kinds(klip_jax.samplers, ["init", "step"])


@pytest.fixture(params=OPERATORS, ids=lambda cls: cls.__name__)
def operator_class(request):
    return request.param


@functools.cache
def build(cls, shape):
    try:
        return cls(shape)
    except ValueError:
        if shape[-1] == 1:
            raise
        if shape == ODD:
            return cls((*shape[:2], 1))
        pytest.skip(f"{cls.__name__} does not take {shape[-1]} channels")


def dense(op):
    """Write a real operator as a float64 matrix [rows, columns]."""
    basis = jnp.eye(np.prod(op.in_shape)).reshape(-1, *op.in_shape)
    columns = jax.jit(jax.vmap(type(op).__call__, (None, 0)))(op, basis)
    return np.asarray(columns, np.float64).reshape(len(basis), -1).T


def test_the_walk_finds_operators():
    assert {"ParallelBeam", "Identity"} <= {cls.__name__ for cls in OPERATORS}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operator_keeps_its_contract(operator_class, shape):
    check_operator(build(operator_class, shape), jax.random.key(0))


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_solve_gram_equals_a_dense_solve(operator_class, shape):
    op = build(operator_class, shape)
    a, solve = dense(op), jax.jit(operator_class.solve_gram)
    r = jax.random.normal(jax.random.key(1), op.out_shape)
    for noise_std in (0.1, 3.0):
        gram = 0.7 * a @ a.T + noise_std**2 * np.eye(len(a))
        expected = np.linalg.solve(gram, np.asarray(r, np.float64).ravel())
        u = np.asarray(solve(op, r, 0.7, noise_std**2)).ravel()
        assert np.linalg.norm(u - expected) <= 1e-4 * np.linalg.norm(expected)


QUICK = {"Half", "Cartesian", "Diagonal"}  # composed, every kind goes the same way


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(k, marks=[pytest.mark.slow] * (k.__name__ not in QUICK))
        for k in OPERATORS
    ],
    ids=lambda kind: kind.__name__,
)
def test_operator_composes(kind):
    inner = Identity(SMALL)
    op = build(kind, SMALL) @ inner
    check_operator(op, jax.random.key(2))
    other = Identity((5, 4, 1))
    with pytest.raises(ValueError, match="cannot compose"):
        op @ other


def test_operator_follows_the_dtype(operator_class):
    @jax.jit
    def three(op, x, y):
        return op(x), op.adjoint(y), op.solve_gram(y, 0.5, 0.2)

    with jax.enable_x64(True):
        op = operator_class(SMALL)
        kx, ky = jax.random.split(jax.random.key(3))
        x = jax.random.normal(kx, op.in_shape, jnp.float64)
        y = jax.random.normal(ky, op.out_shape, jnp.float64)
        ax, ahy, r = three(op, x, y)
        assert ax.dtype == ahy.dtype == r.dtype == jnp.float64
        assert jax.eval_shape(op, x.astype(jnp.float32)).dtype == jnp.float32
        x, ax, y, ahy = (np.asarray(a) for a in (x, ax, y, ahy))
        gap = np.vdot(ax, y) - np.vdot(x, ahy)
        assert abs(gap) <= 1e-13 * np.linalg.norm(ax) * np.linalg.norm(y)


def test_operator_enters_programs_compiled_ahead_of_time(operator_class):
    op = build(operator_class, SMALL)
    x = jax.random.normal(jax.random.key(5), op.in_shape)
    compiled = jax.jit(lambda op, x: op(x)).lower(op, x).compile()
    np.testing.assert_allclose(compiled(op, x), op(x), rtol=1e-4, atol=1e-4)
    shapes = jax.tree.map(jnp.shape, op)
    is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    assert jax.tree.structure(shapes, is_leaf=is_shape) == jax.tree.structure(op)


def test_operator_runs_in_shard_map(operator_class):
    op = build(operator_class, SMALL)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated, sharded = (
        jax.sharding.PartitionSpec(),
        jax.sharding.PartitionSpec("data"),
    )

    def gradient(op, x):
        return jax.vmap(lambda x: op.adjoint(op(x)))(x)

    # check_vma=False: jax.linear_transpose needs it.
    mapped = jax.shard_map(
        gradient,
        mesh=mesh,
        in_specs=(replicated, sharded),
        out_specs=sharded,
        check_vma=False,
    )
    x = jax.random.normal(jax.random.key(4), (2, *op.in_shape))
    np.testing.assert_allclose(
        jax.jit(mapped)(op, x), jax.jit(gradient)(op, x), rtol=1e-4, atol=1e-4
    )


class WrongAdjoint(Identity):
    def adjoint(self, y):
        return 1.1 * y


class Affine(Identity):
    def __call__(self, x):
        return x + 1.0


class Square(Identity):
    def __call__(self, x):
        return x**2


class WrongSolve(Identity):
    def solve_gram(self, r, variance, noise_var):
        return r / variance


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongAdjoint, "WrongAdjoint: dot test"),
        (Affine, "Affine: linearity"),
        (Square, "Square: linearity"),
        (WrongSolve, "WrongSolve: .* solve_gram"),
    ],
)
def test_check_operator_names_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_operator(broken((4, 5, 1)), jax.random.key(0))


# Samplers and guidance: a white prior, half of a 4 x 4 image seen, an odd y.
SHAPE, NOISE_STD = (4, 4, 1), 0.1
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(16), jnp.full(16, 0.25))
HALF = Half(SHAPE)
Y = jnp.linspace(2.0, 3.0, 8)[:, None]


def scan_of(y=Y):
    return Scan(HALF, y, jnp.float32(NOISE_STD))


def guidance_of(cls, y=Y):
    if "posterior" in {field.name for field in dataclasses.fields(cls)}:
        matrix = jnp.eye(16)[HALF.pixels]
        return cls(PRIOR.posterior(matrix, y, NOISE_STD))
    return cls()


@pytest.fixture(params=GUIDANCE, ids=lambda cls: cls.__name__)
def score(request):
    """(x, y, sigma) -> (x0, grad log p(y | x_sigma = x))."""
    if request.param.__name__ == "NoGuidance":
        pytest.skip("it looks at no measurement")

    def of(x, y, sigma):
        return guidance_of(request.param, y).score(PRIOR, scan_of(y), x, sigma)

    return of


@pytest.fixture(params=SAMPLERS, ids=lambda cls: cls.__name__)
def move(request):
    """(key, x, y, sigma, sigma_next) -> (x, StepInfo)."""

    def of(key, x, y, *levels):
        given = PRIOR, ConditionalGaussian(), scan_of(y), *jnp.float32(levels)
        return request.param().step(key, x, *given)

    return of


def test_the_walk_finds_guidance_and_samplers():
    assert {"Exact", "PiGDM", "DPS"} <= {cls.__name__ for cls in GUIDANCE}
    assert {"Ancestral", "Resampling"} <= {cls.__name__ for cls in SAMPLERS}
    for cls in GUIDANCE:
        assert isinstance(guidance_of(cls), Guidance)
    for cls in SAMPLERS:
        assert isinstance(cls(), Sampler) and isinstance(cls().calls_per_step, int)


def assert_one_image_a_function(function, *batches):
    """jit == no jit, vmap == loop, and NaN in one image stays there."""
    batched, one = jax.jit(jax.vmap(function)), jax.jit(function)
    found = batched(*batches)
    for i in range(len(batches[0])):
        given = [batch[i] for batch in batches]
        single = (one if i else function)(*given)  # without jit once: it is slow
        for leaf, expected in zip(
            jax.tree.leaves(found), jax.tree.leaves(single), strict=True
        ):
            assert leaf.dtype == jnp.float32 and bool(jnp.isfinite(leaf).all())
            np.testing.assert_allclose(leaf[i], expected, rtol=2e-4, atol=1e-5)
    *others, x, y = batches
    spoiled = batched(*others, x.at[1].set(jnp.nan), y.at[1].set(jnp.nan))
    for leaf, expected in zip(
        jax.tree.leaves(spoiled), jax.tree.leaves(found), strict=True
    ):
        np.testing.assert_array_equal(leaf[::2], expected[::2])


def images(sigma):
    keys = jax.random.split(jax.random.key(6), 3)
    x = 0.5 + sigma * jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys)
    return keys, x, jnp.stack([Y, Y - 1, 1 - Y])


SIGMAS = [0.5] + [pytest.param(s, marks=pytest.mark.slow) for s in (0.005, 80.0)]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_guidance_takes_one_image(score, sigma):
    _, x, y = images(sigma)
    assert_one_image_a_function(functools.partial(score, sigma=sigma), x, y)


@pytest.mark.parametrize(
    "sigma", [0.5] + [pytest.param(s, marks=pytest.mark.slow) for s in (0.02, 8.0)]
)
def test_guidance_climbs_the_likelihood_of_the_estimate(score, sigma):
    _, (x, *_), _ = images(sigma)
    fit = lambda x: -jnp.sum((Y - HALF(PRIOR(x, sigma))) ** 2)  # noqa: E731
    x0, found = score(x, Y, sigma)
    np.testing.assert_allclose(x0, PRIOR(x, sigma), atol=1e-6)
    assert jnp.vdot(jax.grad(fit)(x), found) > 0


def test_guidance_is_exact_as_sigma_vanishes(score):
    # A^T (y - A x) / (noise_std^2 + sigma^2) up to terms of relative order sigma^2 / v.
    _, (x, *_), _ = images(0.005)
    expected = HALF.adjoint(Y - HALF(x)) / (NOISE_STD**2 + 0.005**2)
    np.testing.assert_allclose(score(x, Y, 0.005)[1], expected, rtol=0.01, atol=0.02)


def test_sampler_takes_one_image(move):
    assert_one_image_a_function(lambda *given: move(*given, 0.5, 0.4), *images(0.5))


def test_sampler_step_moves_toward_the_data(move):
    keys, x, _ = images(0.5)
    moved, info = jax.jit(jax.vmap(lambda key, x: move(key, x, Y, 0.5, 0.1)))(keys, x)
    before, after = (
        jax.vmap(lambda x: jnp.sum((Y - HALF(x)) ** 2))(images)
        for images in (jax.vmap(lambda x: PRIOR(x, 0.5))(x), moved)
    )
    assert jnp.all(after < before / 2)
    along = jax.vmap(lambda shift, x: jnp.vdot(shift, HALF.adjoint(Y - HALF(x))))
    assert jnp.all(along(info.shift, x) > 0)


def test_sampler_runs_a_chain(request, move):
    sampler = request.node.callspec.params["move"]()
    sigmas = jnp.append(sde.log_levels(20, 0.02, 80.0)[::-1], 0)
    measured = dict(guidance=ConditionalGaussian(), scan=scan_of())
    run = jax.jit(lambda key: sample(key, sampler, PRIOR, sigmas, SHAPE, **measured))
    found = run(jax.random.key(7))
    assert found.x.shape == SHAPE and found.x.dtype == jnp.float32
    assert found.first_bad_step == -1
    # The prior pulls by less than the noise, the step's error is about as large.
    assert jnp.abs(HALF(found.x) - Y).max() < 6 * NOISE_STD


def test_noise_var_is_that_of_a_white_kernel_which_y_only_shifts(move):
    _, (x, *_), (y, other, _) = images(0.5)
    keys = jax.random.split(jax.random.key(8), 2000)
    run = jax.jit(jax.vmap(lambda key, y: move(key, x, y, 0.5, 0.4), (0, None)))
    (moved, info), (elsewhere, its) = run(keys, y), run(keys, other)
    if info.noise_var[0] == 0:
        pytest.skip("a sampler without path KL")
    np.testing.assert_allclose(
        moved - elsewhere, info.shift - its.shift, rtol=1e-4, atol=1e-5
    )
    covariance = np.cov(moved.reshape(-1, 16).T) / info.noise_var[0]
    # Standard error of a variance: sqrt(2 / 1999) = .032; of 136 entries.
    np.testing.assert_allclose(covariance, np.eye(16), atol=4.5 * 0.032)
