import itertools

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde, struct
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.none import NoGuidance
from klip_jax.kl import path_kl
from klip_jax.nets.unet import UNet
from klip_jax.priors.edm import EDM
from klip_jax.sample import sample
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.ddim import DDIM
from klip_jax.types import Reducer

SHAPE = (4, 4, 1)
SIGMAS = np.append(np.geomspace(20, 0.05, 8), 0).astype(np.float32)


@struct.dataclass
class Breaking:
    """A denoiser of white images that gives NaN at one noise level."""

    bad: jax.Array

    def __call__(self, x, sigma):
        x0 = x / (1 + sigma**2)
        return jnp.where(sigma == self.bad, jnp.nan, x0)

    def variance(self, sigma):
        return sigma**2 / (1 + sigma**2)


FINE = Breaking(jnp.float32(-1.0))


def draw(key, sigmas=SIGMAS, denoiser=FINE, reducer=None):
    sigmas = jnp.asarray(sigmas)
    return sample(key, Ancestral(), denoiser, sigmas, SHAPE, reducer=reducer)


def test_scan_is_a_loop():
    key, sampler = jax.random.key(0), Ancestral()
    x = sampler.init(jax.random.fold_in(key, 0), SHAPE, jnp.asarray(SIGMAS)[0])
    for i, levels in enumerate(itertools.pairwise(jnp.asarray(SIGMAS))):
        key_step = jax.random.fold_in(key, i + 1)
        x, _ = sampler.step(key_step, x, FINE, NoGuidance(), None, *levels)
    np.testing.assert_allclose(draw(key).x, x, atol=1e-6)


def test_a_chain_can_start_where_one_wants():
    # Two halves of a chain, the second from where the first ended.
    key, sampler, cut = jax.random.key(7), DDIM(), 4

    def run(sigmas, **start):
        return sample(key, sampler, FINE, jnp.asarray(sigmas), SHAPE, **start).x

    middle = run(SIGMAS[: cut + 1])
    np.testing.assert_allclose(run(SIGMAS[cut:], start=middle), run(SIGMAS), atol=1e-6)


def test_jit_changes_nothing():
    key = jax.random.key(1)
    with jax.disable_jit():
        plain = draw(key, SIGMAS[4:], reducer=path_kl())
    jitted = jax.jit(lambda key: draw(key, SIGMAS[4:], reducer=path_kl()))(key)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(jitted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_vmap_is_a_loop():
    keys = jax.random.split(jax.random.key(2), 3)
    batch, one = jax.jit(jax.vmap(draw))(keys), jax.jit(draw)
    for i, key in enumerate(keys):
        np.testing.assert_allclose(batch.x[i], one(key).x, atol=1e-6)


@pytest.mark.parametrize("step", [0, 3, 7])
def test_first_bad_step_is_found(step):
    denoisers = jax.vmap(Breaking)(jnp.asarray([-1, SIGMAS[step]]))
    found = jax.vmap(lambda d: draw(jax.random.key(3), denoiser=d))(denoisers)
    assert found.first_bad_step.tolist() == [-1, step]
    assert jnp.isfinite(found.x[0]).all() and not jnp.isfinite(found.x[1]).any()


def test_a_bad_start_is_found():
    bad = draw(jax.random.key(4), np.array([np.inf, 1.0, 0.0], np.float32))
    assert bad.first_bad_step == 0


def test_reducer_folds_over_the_steps():
    # The sum of v = s^2 - s'^2 telescopes; the last x0 is where the chain ends.
    reducer = Reducer(
        lambda shape: (jnp.zeros(()), jnp.zeros(shape)),
        lambda acc, info: (acc[0] + info.sigma**2 - info.sigma_next**2, info.x0),
        lambda acc: dict(total=acc[0], last=acc[1]),
    )
    found = draw(jax.random.key(5), reducer=reducer)
    np.testing.assert_allclose(found.reduced["total"], SIGMAS[0] ** 2, 1e-5)
    np.testing.assert_allclose(found.reduced["last"], found.x, atol=1e-6)
    assert draw(jax.random.key(5)).reduced == ()


def test_result_follows_the_dtype(x64):
    bed = beds.white(2, 1)
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), bed.prior)
    for prior, dtype in ((single, jnp.float32), (bed.prior, jnp.float64)):
        chain = sample(
            jax.random.key(6),
            Ancestral(),
            prior,
            jnp.asarray(SIGMAS, dtype),
            bed.shape,
        )
        assert chain.x.dtype == dtype


def test_reducers_see_every_state():
    # x of a step is where it starts from, x of the next where it ended.
    states = Reducer(
        lambda shape: (jnp.int32(0), jnp.zeros((len(SIGMAS) - 1, *shape))),
        lambda acc, info: (acc[0] + 1, acc[1].at[acc[0]].set(info.x)),
        lambda acc: acc[1],
    )
    key, sampler = jax.random.key(8), Ancestral()
    x = draw(key, reducer=states).reduced
    np.testing.assert_allclose(
        x[0], sampler.init(jax.random.fold_in(key, 0), SHAPE, 20.0)
    )
    levels = jnp.asarray(SIGMAS)[3:5]
    after, _ = sampler.step(
        jax.random.fold_in(key, 4), x[3], FINE, NoGuidance(), None, *levels
    )
    np.testing.assert_allclose(x[4], after, atol=1e-6)


def test_a_scan_without_a_guidance_changes_nothing():
    key, scan = jax.random.key(9), beds.white(16, 2).scan
    given = key, Ancestral(), FINE, jnp.asarray(SIGMAS), SHAPE
    np.testing.assert_array_equal(sample(*given, scan=scan).x, sample(*given).x)


def test_settings_of_samplers_and_guidance_do_not_recompile():
    bed = beds.white(16, 5)
    bed = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), bed)

    @jax.jit
    def run(sampler, guidance, scan):
        key, sigmas = jax.random.key(10), jnp.asarray(SIGMAS)
        given = dict(guidance=guidance, scan=scan)
        return sample(key, sampler, bed.prior, sigmas, bed.shape, **given).x

    found = [
        run(Ancestral(eta), ConditionalGaussian(inflation), bed.scan)
        for eta, inflation in ((1.0, 1.0), (0.5, 1.0), (1.0, 2.0))
    ]
    assert run._cache_size() == 1
    assert all(jnp.abs(found[0] - other).max() > 1e-3 for other in found[1:])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps():
    net = UNet(channels=(16, 32))
    params = net.init(jax.random.key(0), jnp.zeros((32, 32, 1)), jnp.zeros(()))
    prior = EDM(params, net)

    @jax.jit
    def chains(keys, prior, sigmas):
        return jax.vmap(
            lambda key: sample(
                key, Ancestral(), prior, sigmas, (32, 32, 1), reducer=path_kl()
            )
        )(keys)

    def temporary(steps):
        sigmas = sde.log_levels(steps + 1, 0.01, 50.0)[::-1]
        keys = jax.random.split(jax.random.key(1), 8)
        compiled = chains.lower(keys, prior, sigmas).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(50), temporary(1000)
    assert few > 1e5
    assert abs(many - few) <= 0.05 * few
