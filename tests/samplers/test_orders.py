"""Every sampler with a true likelihood score, by exact propagation.

A sampler whose docstring says "First order" or "Second order" must converge so.
"""

import importlib
import itertools
import math
import pkgutil
import re

import beds
import combinations
import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import rooms, samplers, sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.dps import DPS
from klip_jax.sample import sample
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.langevin import Langevin
from klip_jax.samplers.null_space import NullSpace
from klip_jax.samplers.predictor_corrector import PredictorCorrector
from klip_jax.types import Sampler

pytestmark = pytest.mark.usefixtures("x64")
HIGH, LOW = 200.0, 0.002
# Its errors of first and second order cancel near 100 levels: finer ones tell.
FINER = {"PredictorCorrector": 8}


def all_samplers():
    """Find the samplers by the file system: name -> class."""
    for info in pkgutil.iter_modules(samplers.__path__):
        module = importlib.import_module(f"klip_jax.samplers.{info.name}")
        for name in rooms.public_names(module):
            if hasattr(getattr(module, name), "step"):
                yield name, getattr(module, name)


def stated_order(kind):
    """Return the order that a docstring states, None if it states none."""
    stated = re.findall("(First|Second) order", kind.__doc__)
    return {"First": 1, "Second": 2}[stated[0]] if stated else None


SAMPLERS = dict(all_samplers())
STATED = [name for name, kind in SAMPLERS.items() if stated_order(kind)]


@pytest.fixture(scope="module")
def law():
    return jax.jit(exact_laws.law)


def test_samplers_state_their_order_or_their_bias():
    assert {"Ancestral", "DDIM", "Heun", "Langevin"} <= set(STATED)
    for name in SAMPLERS.keys() - set(STATED):
        said = " ".join(SAMPLERS[name].__doc__.split()).lower()
        assert re.search(r"biased.* in 100 steps .*\.\d", said), name


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_are_samplers_with_floats_for_leaves(name):
    sampler = SAMPLERS[name]()
    assert isinstance(sampler, Sampler)
    assert all(isinstance(leaf, float) for leaf in jax.tree.leaves(sampler))
    assert hash(sampler) == hash(SAMPLERS[name]())


def test_no_two_samplers_share_a_program():
    structures = [jax.tree.structure(kind()) for kind in SAMPLERS.values()]
    for one, other in itertools.combinations(structures, 2):
        assert one != other


@pytest.mark.parametrize("name", STATED)
def test_posterior_converges_at_the_stated_order(name):
    kind, order = SAMPLERS[name], stated_order(SAMPLERS[name])
    problems = beds.g16(), beds.random(16, 1)
    given = [(bed, bed.exact(), bed.posterior.noised(LOW)) for bed in problems]
    given = jax.tree.map(lambda *leaves: jnp.stack(leaves), *given)

    @jax.jit
    def errors(given, sigmas, count):
        def one(bed, exact, target):
            found = exact_laws.law(kind(), bed, exact, sigmas, count=count)
            centre, start = target.mean.ravel(), jnp.sqrt(target.spectrum.max()) / HIGH
            mean = jnp.linalg.norm(found.mean - centre)
            # It starts at 0 and is shrunk at least as much as by the probability flow.
            left = mean / (jnp.linalg.norm(centre) * start)
            return jnp.linalg.norm(found.covariance - target.covariance), left

        return jax.vmap(one)(*given)

    counts = [FINER.get(name, 1) * n for n in (200, 400)]
    (coarse, _), (fine, mean) = (
        errors(given, jnp.pad(sigmas, (0, counts[-1] + 1 - len(sigmas))), n)
        for n in counts
        for sigmas in [sde.log_levels(n + 1, LOW, HIGH)[::-1]]
    )
    np.testing.assert_allclose(jnp.log2(coarse / fine), order, atol=0.15)
    assert jnp.all(mean <= 1.1)


def test_langevin_is_late_by_what_its_docstring_says(law):
    # lambda (1 + (1 / r + 1 / 2) h / K) along the strongest direction.
    bed, n, size, steps = beds.random(16, 1), 400, 0.25, 2
    sigmas = sde.log_levels(n + 1, LOW, HIGH)[::-1]
    found = law(Langevin(size, steps), bed, bed.exact(), sigmas).covariance
    h, strongest = math.log(HIGH / LOW) / n, bed.posterior.basis[:, -1]
    excess = strongest @ found @ strongest / bed.posterior.spectrum[-1] - 1
    np.testing.assert_allclose(excess, (1 / size + 1 / 2) * h / steps, rtol=0.1)


def test_repeated_levels_are_several_langevin_steps(law):
    bed, sigmas = beds.g16(), jnp.append(sde.log_levels(10, 0.05, 20.0)[::-1], 0)
    exact = bed.exact()
    many = law(Langevin(steps=3), bed, exact, sigmas)
    repeated = law(Langevin(), bed, exact, jnp.repeat(sigmas, 3)[:-2])
    np.testing.assert_allclose(many.mean, repeated.mean, atol=1e-10)
    np.testing.assert_allclose(many.covariance, repeated.covariance, atol=1e-10)
    assert not many.path_kl.any() and repeated.path_kl.sum() > beds.G16


def test_law_is_that_of_the_other_oracle(law):
    bed, sigmas = beds.g16(), sde.log_levels(30, LOW, HIGH)[::-1]
    found = law(Ancestral(), bed, bed.exact(), sigmas)
    expected, nats = beds.propagate(Ancestral(), bed, bed.exact(), sigmas)
    np.testing.assert_allclose(found.mean, expected.mean.ravel(), atol=1e-10)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-9)
    np.testing.assert_allclose(found.path_kl, nats, 1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_per_step_are_counted(name):
    settings = dict(steps=3) if name in ("Langevin", "PredictorCorrector") else {}
    sampler = SAMPLERS[name](**settings)
    row = combinations.Combination("", sampler, ConditionalGaussian())
    calls, _ = combinations.network_calls(row, beds.white())
    assert calls == sampler.calls_per_step


def test_derivatives_are_counted():
    sampler = PredictorCorrector(steps=2)
    row = combinations.Combination("", sampler, DPS())
    assert combinations.network_calls(row, beds.white()) == [3, 3]


@pytest.mark.parametrize(
    "sampler", [NullSpace(), PredictorCorrector(steps=2)], ids=["null space", "PC"]
)
def test_chains_have_the_law(sampler, law):
    bed, n = beds.g16(), 2048
    sigmas = jnp.append(sde.log_levels(6, 0.02, 20.0)[::-1], 0)
    guidance = ConditionalGaussian()
    expected = law(sampler, bed, guidance, sigmas)

    @jax.jit
    def run(bed, keys):
        def one(key):
            given = dict(guidance=guidance, scan=bed.scan)
            return sample(key, sampler, bed.prior, sigmas, bed.shape, **given).x

        return jax.vmap(one)(keys).reshape(n, -1)

    x = run(bed, jax.random.split(jax.random.key(0), n))
    covariance, spread = expected.covariance, jnp.diag(expected.covariance)
    centred = x - expected.mean
    assert jnp.all(jnp.abs(centred.mean(0)) <= 4.5 * jnp.sqrt(spread / n))
    stderr = jnp.sqrt((covariance**2 + jnp.outer(spread, spread)) / n)
    assert jnp.all(jnp.abs(centred.T @ centred / n - covariance) <= 4.5 * stderr)
