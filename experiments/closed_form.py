"""Check every estimator of KL(p(x|y) || p(x)) against closed forms, in float64.

    python experiments/closed_form.py                    acceptance numbers T1-T14
    python experiments/closed_form.py --dim 64 --seed 1  one random problem

Prints one JSON object whose `checks` compare a measured value with a target; exits 1 if
one is not ok. Monte Carlo tolerances are about four standard errors. T1-T14 take about
four minutes on two cores, most of it for T11 and T12; a random problem less than one.
"""

import argparse
import functools
import time

import beds
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from checks import at_least, check, finish
from gp_beds import gp_checks

from klip_jax import kl, sde
from klip_jax.guidance.none import NoGuidance
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.priors.analytic import gaussian_kl, mixture_posterior_kl
from klip_jax.sample import sample
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.euler_maruyama import EulerMaruyama

SCHEDULES = [sde.ve(1e-4, 200.0), sde.vp(), sde.sub_vp(), sde.edm(1e-4, 200.0)]


@functools.partial(jax.jit, static_argnames=("n", "signs"))
def draw_and_estimate(key, bed, guidance, posterior, levels, *, n, signs=(1.0,)):
    """Draw n exact posterior samples and run `levels_kl` on them."""
    key_x0, key_levels = jax.random.split(key)
    x0 = jax.vmap(posterior.sample)(jax.random.split(key_x0, n))
    given = bed.prior, guidance, bed.scan, x0, levels
    return kl.levels_kl(key_levels, *given, signs=signs)


@functools.partial(jax.jit, static_argnames="n")
def path_energies(key, sampler, bed, guidance, sigmas, *, n):
    """Run n chains; return their path KLs [n]."""

    def one(key):
        chain = sample(
            key,
            sampler,
            bed.prior,
            sigmas,
            bed.shape,
            guidance=guidance,
            scan=bed.scan,
            reducer=kl.path_kl(),
        )
        return chain.reduced.sum()

    return jax.vmap(one)(jax.random.split(key, n))


def closed_forms():
    """T1, T2, T9, T10, T13: linear algebra only."""
    g, m = beds.g16(), beds.m16()
    post, exact = g.posterior, g.exact()
    covariance = np.asarray(g.prior.covariance)
    a, s2 = np.asarray(g.matrix), g.noise_std**2
    signal = a @ covariance @ a.T
    information = np.linalg.slogdet(np.eye(8) + signal / s2)[1] / 2
    evidence = m.prior.log_evidence(m.matrix, m.y, m.noise_std)
    mixture_kl = mixture_posterior_kl(m.prior, m.matrix, m.y, m.noise_std)
    yield check("T1 KL of G16", gaussian_kl(post, g.prior), beds.G16, 1e-6)
    yield check("T1 I(x;y) of G16", information, beds.INFORMATION, 1e-6)
    yield check("T1 KL of M16", mixture_kl, beds.M16, 1e-6)
    yield check("T1 log p(y) of M16", evidence, -6.155218, 1e-6)

    levels = sde.log_levels(16, 0.002, 80.0)
    both = jax.vmap(lambda s: beds.integrand(g, exact, s))
    value = kl.trapezoid(levels) @ sum(both(levels)).sum(-1)
    yield check("T2 trapezoid in ln sigma, K=16", value, 11.2817, 1e-3 * 11.2817)

    for sigma, row in beds.G16_TABLE.items():
        coherent, fluct = (part.sum() for part in beds.integrand(g, exact, sigma))
        truncated = gaussian_kl(post.noised(sigma), g.prior.noised(sigma))
        names, values = ("coherent", "fluct", "KL"), (coherent, fluct, truncated)
        for what, value, target in zip(names, values, row, strict=True):
            yield check(f"section 1.4 {what} at {sigma}", value, target, 1e-6)

    result = draw_and_estimate(jax.random.key(9), g, exact, post, levels, n=64)
    total = result.samples.mean(0).sum()
    yield check("T9 map - total", result.heatmap[0].sum() - total, 0, 1e-6)
    sharp = beds.g16(0.001)
    plateau = beds.integrand(sharp, sharp.exact(), 0.01)[1].sum()
    yield check("T9 fluct at s=.001, sigma=.01", plateau, 7.863, 1e-3)

    def draw(key):
        key_x, key_n = jax.random.split(key)
        y = g.matrix @ g.prior.sample(key_x).ravel()
        return y + g.noise_std * jax.random.normal(key_n, y.shape)

    ys = jax.vmap(draw)(jax.random.split(jax.random.key(10), 200_000))
    posterior_of = functools.partial(g.prior.posterior, g.matrix, noise_std=g.noise_std)
    kls = jax.jit(jax.vmap(lambda y: gaussian_kl(posterior_of(y), g.prior)))(ys)
    yield check("T10 E_y KL", kls.mean(), 13.8088, 0.016)

    gram = np.linalg.inv(signal + s2 * np.eye(8))
    r = np.asarray(g.y - g.matrix @ g.prior.mean.ravel())
    twice_kl = r @ gram @ signal @ gram @ r
    misfit = np.sum(np.asarray(g.y - g.matrix @ post.mean.ravel()) ** 2) / s2
    yield check("T13 2 KL_quad", twice_kl, r @ gram @ r - misfit, 1e-8)


def same_integrand():
    """T3: the native integrand of every schedule, in both precisions.

    The mean of 64 draws, because in float32 D_y - D keeps three digits of a single one
    at sigma = .002: two images that differ by sigma^2 are subtracted.
    """
    g = beds.g16()
    levels = sde.log_levels(24, 0.002, 80.0)
    x0 = jax.vmap(g.posterior.sample)(jax.random.split(jax.random.key(0), 64))
    z = jax.random.normal(jax.random.key(3), x0.shape)

    def native(schedule, bed, guidance, sigma, x0, z):
        # A VP user's quantities only: x_t, alpha(t), g^2(t), dt.
        t = schedule.time(sigma)
        level, rate = jax.jvp(lambda t: jnp.log(schedule.sigma(t)), (t,), (t * 0 + 1,))
        alpha = schedule.alpha(t)
        x_t = alpha * (x0 + jnp.exp(level) * z)
        given = bed.prior, bed.scan, x_t / alpha, jnp.exp(level)
        score = guidance.score(*given)[1] / alpha
        return sde.squared_diffusion(schedule, t) * jnp.sum(score**2) / (2 * rate)

    def values(dtype):
        given = (g, g.exact(), levels, x0, z)
        bed, guidance, *arrays = jax.tree.map(lambda a: jnp.asarray(a, dtype), given)

        def curve(schedule):
            of = functools.partial(native, schedule, bed, guidance)
            draws = jax.vmap(jax.vmap(of, (None, 0, 0)), (0, None, None))(*arrays)
            return draws.mean(1)

        return jnp.stack([curve(schedule) for schedule in SCHEDULES])

    double, single = values(jnp.float64), values(jnp.float32)
    gap64 = jnp.abs(double / double[-1] - 1).max()
    gap32 = jnp.abs(single / double[-1] - 1).max()
    yield check("T3 VE = VP = sub-VP = EDM, float64", gap64, 0, 1e-10)
    yield check("T3 the same, float32", gap32, 0, 1e-3)


def many_levels():
    """T4, T5, T6, T8: `levels_kl` with exact posterior samples."""
    g, m = beds.g16(), beds.m16()
    levels = sde.log_levels(32, 0.01, 50.0)
    problems = {"G16": (g, g.exact(), beds.TRUNCATED, 0.012)}
    problems["M16"] = (m, m.exact(), beds.M16, 0.02)
    for name, (bed, exact, target, tolerance) in problems.items():
        found = draw_and_estimate(
            jax.random.key(4), bed, exact, bed.posterior, levels, n=4096
        )
        value = found.samples.sum((1, 2)).mean()
        yield check(f"T4 {name}, N=4096", value, target, tolerance * target)

    def interval(key):
        found = draw_and_estimate(key, g, g.exact(), g.posterior, levels, n=32)
        return kl.mean_stderr(found.samples.sum((1, 2)))

    mean, stderr = jax.lax.map(interval, jax.random.split(jax.random.key(5), 400))
    covered = jnp.abs(mean - beds.TRUNCATED) <= scipy.stats.t.ppf(0.975, 31) * stderr
    yield check("T5 coverage of the 95 % interval", covered.mean(), 0.9475, 0.0275)

    for name, table in (("G16", beds.G16_TABLE), ("M16", beds.M16_TABLE)):
        bed, exact = problems[name][:2]
        sigmas = jnp.asarray(list(table))

        def blocks(key, bed=bed, exact=exact, sigmas=sigmas):
            found = draw_and_estimate(key, bed, exact, bed.posterior, sigmas, n=1000)
            return found.blocks.sum((-1, -2))

        runs = jax.lax.map(blocks, jax.random.split(jax.random.key(6), 20))
        means, stderrs = kl.mean_stderr(runs)
        for k, (sigma, row) in enumerate(table.items()):
            if name == "G16":
                targets = {0: row[0] + row[1], 1: row[0], 2: row[0]}
                own = 0.0
            else:
                targets, own = {0: row[0]}, row[1]
            for i, target in targets.items():
                tolerance = 4 * float(jnp.hypot(stderrs[k, i], own))
                what = f"T6 {name} {kl.MAPS[i]} at {sigma}"
                yield check(what, means[k, i], target, tolerance)

    wide = sde.log_levels(32, 0.002, 80.0)
    pigdm = PiGDM(prior_var=1.0)
    found = draw_and_estimate(jax.random.key(8), g, pigdm, g.posterior, wide, n=4096)
    value = found.samples.sum((1, 2)).mean()
    yield check("T8 PiGDM at many levels", value, 8.698, 0.02 * 8.698)


def trajectories():
    """T7, T14: path KL of sampled chains, and what it bounds."""
    g = beds.g16()
    pigdm = PiGDM(prior_var=1.0)
    targets = {
        ("ancestral", 100): 12.214,
        ("ancestral", 200): 11.728,
        ("Euler-Maruyama", 100): 12.001,
        ("Euler-Maruyama", 200): 11.622,
    }
    samplers = {"ancestral": Ancestral(), "Euler-Maruyama": EulerMaruyama()}
    for (name, n), target in targets.items():
        sigmas = sde.log_levels(n, 0.002, 80.0)[::-1]
        key, sampler = jax.random.key(7), samplers[name]
        values = path_energies(key, sampler, g, g.exact(), sigmas, n=2048)
        what = f"T7 {name}, {n} levels"
        yield check(what, values.mean(), target, 0.025 * target)
        expected = beds.propagate(sampler, g, g.exact(), sigmas)[1].sum()
        yield check(f"{what}, its expectation", expected, target, 2e-3)

    # n = 200: what the guided and the unguided chain draw, and the KL between them.
    free = beds.propagate(Ancestral(), g, NoGuidance(), sigmas)[0]
    for name, guidance, path, output in (
        ("exact", g.exact(), 11.73, 11.33),
        ("PiGDM", pigdm, 11.90, 9.98),
    ):
        law, nats = beds.propagate(Ancestral(), g, guidance, sigmas)
        bounded = gaussian_kl(law, free)
        yield check(f"T14 path KL, {name}", nats.sum(), path, 0.006)
        yield check(f"T14 KL of outputs, {name}", bounded, output, 0.006)
        yield at_least(f"T14 path KL >= KL of outputs, {name}", nats.sum(), bounded)


def random_problem(d, seed):
    """Both estimators on `beds.random(d, seed)`."""
    bed = beds.random(d, seed)
    posterior, exact = bed.posterior, bed.exact()
    true = float(gaussian_kl(posterior, bed.prior))
    grid = sde.log_levels(600, 1e-5, 1e5)
    noised = jax.vmap(lambda s: gaussian_kl(posterior.noised(s), bed.prior.noised(s)))
    left = noised(grid) / true
    low = grid[jnp.argmax(left < 1 - 5e-4) - 1]  # 0.05 % is lost at each end
    high = grid[jnp.argmax(left < 5e-4)]
    levels = sde.log_levels(64, float(low), float(high))
    sigmas = sde.log_levels(1001, float(low), float(high))[::-1]

    def run(key, n_levels, n_chains):
        found = draw_and_estimate(key, bed, exact, posterior, levels, n=n_levels)
        chains = path_energies(key, Ancestral(), bed, exact, sigmas, n=n_chains)
        return [kl.mean_stderr(v) for v in (found.samples.sum((1, 2)), chains)]

    # A pilot says how many draws bring the standard error to 0.5 % of the KL.
    pilot = run(jax.random.key(seed), 128, 128)
    wanted = [128 * (stderr / (0.005 * true)) ** 2 for _, stderr in pilot]
    n_levels, n_chains = (2 ** int(np.ceil(np.log2(max(w, 64)))) for w in wanted)
    by_levels, by_chains = run(jax.random.key(seed + 1_000_003), n_levels, n_chains)

    def report(found):
        return dict(zip(("value", "stderr"), map(float, found), strict=True))

    tolerances = [
        4 * float(by_levels[1]) + 0.002 * true,
        4 * float(by_chains[1]) + 0.02 * true,
    ]
    return dict(
        closed_form=true,
        levels=report(by_levels),
        trajectory=report(by_chains),
        range=[float(low), float(high)],
        draws=dict(levels=n_levels, trajectory=n_chains),
        checks=[
            check("levels", by_levels[0], true, tolerances[0]),
            check("stderr of levels / KL", by_levels[1] / true, 0, 0.01),
            check("trajectory, 1000 steps", by_chains[0], true, tolerances[1]),
        ],
    )


PARTS = closed_forms, same_integrand, many_levels, trajectories, gp_checks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, help="pixels of a random problem, >= 2")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    start = time.time()
    if arguments.dim:
        report = random_problem(arguments.dim, arguments.seed)
    else:
        report = dict(checks=[found for part in PARTS for found in part()])
    report["seconds"] = round(time.time() - start, 1)
    finish(report)


if __name__ == "__main__":
    main()
