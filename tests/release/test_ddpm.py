import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.none import NoGuidance
from klip_jax.operators.blur import GaussianBlur
from klip_jax.operators.mask import Half
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.function import prior
from klip_jax.release import ddpm
from klip_jax.sample import sample
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.scan import residual
from klip_jax.types import Scan

SHAPE = (4, 4, 1)
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(16), jnp.full(16, 0.25))
SCAN = Scan(Half(SHAPE), jnp.linspace(0.0, 1.0, 8)[:, None], 1.0)
GIVEN = PRIOR, NoGuidance(), SCAN
KEY, SIGMA, NEXT = jax.random.key(0), jnp.float32(0.6), jnp.float32(0.4)


def test_it_is_an_ancestral_step_and_a_move_to_the_data():
    x = 0.5 + 0.6 * jax.random.normal(jax.random.key(1), SHAPE)
    found, info = ddpm.DDPM(0.2).step(KEY, x, *GIVEN, SIGMA, NEXT)
    plain, its = Ancestral().step(KEY, x, *GIVEN, SIGMA, NEXT)
    np.testing.assert_allclose(found, plain + info.shift, atol=1e-6)
    np.testing.assert_allclose(info.noise_var, its.noise_var, rtol=1e-6)
    r = residual(SCAN, info.x0)
    along = SCAN.operator.adjoint(r) / jnp.linalg.norm(r)
    length = 0.2 / 2 * (1 + 4 * SIGMA**2)
    np.testing.assert_allclose(info.shift, length * along, rtol=1e-5)


def test_clipping_keeps_the_estimate_in_range():
    x = 0.5 + 3 * jax.random.normal(jax.random.key(1), SHAPE)
    last = (SIGMA, jnp.float32(0))  # it returns the estimate itself
    free, _ = ddpm.DDPM(5.0).step(KEY, x, *GIVEN, *last)
    found, _ = ddpm.DDPM(5.0, clip=True).step(KEY, x, *GIVEN, *last)
    assert float(jnp.ptp(free)) > 1.5
    np.testing.assert_allclose(found, jnp.clip(free, 0, 1), atol=1e-6)


def chains(n, start, batch_axis):
    """Return the last images of samples start .. start + n - 1."""
    sampler = ddpm.DDPM(clip=True, batch_axis=batch_axis)

    def one(i):
        key = jax.random.fold_in(KEY, i)
        return sample(key, sampler, PRIOR, ddpm.levels(5), SHAPE, scan=SCAN).x

    return jax.vmap(one, axis_name="batch")(start + jnp.arange(n))


def test_samples_do_not_depend_on_their_batch_unless_asked_to():
    @jax.jit
    def all_groups():
        groups = ((4, 0), (1, 0), (3, 1))
        return [[chains(*g, axis) for g in groups] for axis in (None, "batch")]

    for couples, (whole, *parts) in enumerate(all_groups()):
        gap = jnp.abs(whole - jnp.concatenate(parts)).max()
        assert (gap > 1e-3) == couples


def test_levels_are_those_of_the_training():
    levels = ddpm.levels(100)
    assert levels.shape == (101,) and levels[-1] == 0
    abar = np.cumprod(1 - ddpm.BETAS)[990::-10]
    np.testing.assert_allclose(4 * levels[:-1] ** 2, (1 - abar) / abar, rtol=1e-5)
    g = 2 * jax.vmap(ddpm.training_g())(levels[:-1]) * np.sqrt(abar)
    np.testing.assert_allclose(g, np.sqrt(ddpm.BETAS[990::-10]), rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ddpm.DDPM(0.0), "zeta=0.0"),
        (lambda: ddpm.levels(0), "steps=0"),
        (lambda: ddpm.levels(1001), "steps=1001"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_chain_of_the_release(shared_data):
    """Given its network's outputs and noise, which is the same at every step there."""
    with np.load(shared_data / "golden" / "ddpm_32.npz") as kept:
        kept = {k: np.moveaxis(v, -3, -1) if v.ndim > 3 else v for k, v in kept.items()}
    operator = GaussianBlur((32, 32, 3), std=9.0, truncate=1.11)  # of 21 pixels
    y = (kept["y"][0] + 1) / 2
    image = jnp.asarray(kept["img_uint8"] / np.float32(255))
    np.testing.assert_allclose(operator(image), y, atol=1e-6)
    sampler, scan = ddpm.DDPM(clip=True, batch_axis="samples"), Scan(operator, y, 1.0)
    sigmas, g = ddpm.levels(100, kept["betas"]), ddpm.training_g(kept["betas"])

    def step(x, inputs):
        outputs, *levels = inputs

        def one(x, z, output):
            denoiser = prior(lambda x, sigma: x - sigma * output)
            return sampler.move(z, x, denoiser, scan, *levels)

        noise = kept["variance_noise_const"]
        x, info = jax.vmap(one, axis_name="samples")(x, noise, outputs)
        return x, info.shift / g(levels[0])

    @jax.jit
    def run(noise, outputs):
        start = 0.5 + jnp.sqrt(0.25 + sigmas[0] ** 2) * noise
        return jax.lax.scan(step, start, (outputs, sigmas[:-1], sigmas[1:]))

    x, updates = run(kept["x_init"], kept["eps"])
    largest = np.abs(kept["normalized_updates"]).max((1, 2, 3, 4))
    gap = np.abs(updates - kept["normalized_updates"]).max((1, 2, 3, 4))
    assert (gap / largest).max() <= 1e-4
    found = np.clip(x, 0, 1).mean(0)
    np.testing.assert_allclose(found, kept["reconstruction"], atol=1e-5)
