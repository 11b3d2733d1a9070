"""Song'22 on its saved runs, as `replays.py` has the others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from replays import gap, network, of_max, of_max_by_step, read

from klip_jax.convert import score_sde
from klip_jax.operators.radial import RadialLines
from klip_jax.priors.score import Score
from klip_jax.release import song22


@functools.partial(jax.jit, static_argnums=(1, 2))
def song22_noises(raw, steps, shape):
    """Draw x_T / s_max [shape] and the noises [steps, 4, *shape] in its key's order."""

    def draw(key):
        key, own = jax.random.split(key)
        return key, jax.random.normal(own, shape)

    def step(key, _):
        key, own = jax.random.split(key)
        own, first = draw(own)
        _, own = jax.random.split(own)
        second = draw(own)[1]
        key, own = jax.random.split(key)
        own, third = draw(own)
        return key, jnp.stack([first, second, third, draw(own)[1]])

    key, start = draw(jax.random.wrap_key_data(raw))
    return start, jax.lax.scan(step, key, length=steps)[1]


def song22_chain(kept, prior, steps, total):
    """Run `steps` of a chain of `total`; returns (samples, normalised updates)."""
    operator = RadialLines((64, 64, 1), views=23, contested="last")
    scan = song22.measured(operator, operator.from_spectrum(kept["known"]))
    sampler = song22.Song22(as_recorded=True, batch_axis="samples")
    shape = (len(kept["samples"]), 64, 64, 1)
    start, noises = song22_noises(jnp.asarray(kept["step_rng"][0]), total, shape)
    sigmas, following = song22.levels(total)
    g = song22.training_g()

    @jax.jit
    def run(prior, scan, start, noises):
        def one(noises, x, *levels):
            return sampler.move(noises, x, prior, scan, *levels)

        def step(x, inputs):
            noises, *levels = inputs
            over = jax.vmap(one, (1, 0, None, None), axis_name="samples")
            x, info = over(noises, x, *levels)
            return x, info.shift / g(levels[0])

        inputs = noises, sigmas[:steps], following[:steps]
        x, updates = jax.lax.scan(step, song22.SIGMA_MAX * start, inputs)
        last = sigmas[-1]
        finish = lambda x: song22.finish(x, prior, scan, last)  # noqa: E731
        return jax.vmap(finish)(x)[..., 0], updates

    return run(prior, scan, start, noises[:steps])


def song22_pieces(folder):
    """The spectrum on the lines, and single projections."""
    kept = read(folder / "song22_64_ops.npz")
    op = RadialLines((64, 64, 1), views=23, contested="last")
    image, noise = (kept[name][..., None] for name in ("img", "x_in"))
    error = of_max(op(image), op.from_spectrum(jnp.asarray(kept["kspace"])))
    yield "Song'22 spectrum, of max", error, 1e-5
    back = op.adjoint(op.from_spectrum(jnp.asarray(kept["known"])))
    for x, coefficient, name in (
        (noise, 0.841, "projected_coeff0841"),
        (image, 1.0, "self_projection"),
    ):
        found = (x + coefficient * (back - op.normal(x)))[..., 0]
        yield f"Song'22 {name}, of max", of_max(found, kept[name]), 1e-5


def song22_n20(folder):
    """Song'22 with the score of a Gaussian prior: no network."""
    return _gaussian(folder, "N20", 1)


def song22_n200(folder):
    """The same in 200 steps, of which every tenth is stored."""
    return _gaussian(folder, "N200", 10)


def _gaussian(folder, name, every):
    kept = read(folder / f"song22_gauss_64_{name}.npz")
    mean, variance = (kept[f"prior_{v}"][..., None] for v in ("mean", "var"))
    if name == "N20":
        found = song22_noises(jnp.asarray(kept["step_rng"][0]), 20, (2, 64, 64, 1))
        expected = kept["prior_noise"], np.moveaxis(kept["step_noise"], -1, -3)
        errors = (gap(a[..., 0], b) for a, b in zip(found, expected, strict=True))
        yield "Song'22 N20, noises", max(errors), 0

    def prior(x, sigma, mean=mean, variance=variance):
        return x + sigma**2 * (mean - x) / (variance + sigma**2)

    steps = len(kept["timesteps"])
    run = functools.partial(song22_chain, kept, jax.tree_util.Partial(prior))
    x, updates = run(steps, steps)
    error = of_max_by_step(updates[::every], kept["normalized_updates"])
    yield f"Song'22 {name}, updates, of max", error, 1e-4
    yield f"Song'22 {name}, samples", gap(x, kept["samples"]), 1e-5


def song22_with_network(folder):
    """NCSN++ by itself, and the first ten steps of a chain that is chaotic later."""
    net, params = network(score_sde.load(folder / "song22_64a_params.npz", size=64))
    io = np.load(folder / "song22_64a_net_io.npz", allow_pickle=False)
    found = jax.jit(jax.vmap(net.apply, (None, 0, 0)))(params, io["x"], io["sigma"])
    yield "NCSN++, of max", of_max_by_step(found, io["out"]), 1e-4
    kept = read(folder / "song22_64a.npz")
    _, updates = song22_chain(kept, Score(params, net), 10, 100)
    error = of_max_by_step(updates, kept["normalized_updates"][:10])
    yield "Song'22 with NCSN++, first 10 updates, of max", error, 1e-4
