"""Are posterior draws calibrated? Ranks of the truth among them, for every combination.

    python experiments/sbc.py [--samplers=heun.Heun,...] [--guidance=mmps.MMPS,...]

x is drawn from the prior and measured, L draws are made, and x is one more draw of the
posterior where the sampler is exact (`klip_jax.rank_statistics`). Priors are Gaussian
and a mixture, with denoisers in closed form, so that what is wrong is the sampler's or
the likelihood score's alone. Without flags: the list that the table shows. With them:
every sampler named with every guidance named, as configs name them; "exact" is the true
score. Each chain has --calls network calls.

Prints one JSON object with `checks` (Heun's and corrected chains of true scores, and
the reference by particles, have uniform ranks) and writes
experiments/results/sbc.md where no flag narrows the list. About two minutes on one
quiet core.
"""

import time
from pathlib import Path
from typing import Any

import beds
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from checks import at_least, check, finish
from exact_laws import Spectral

from klip_jax import rank_statistics, rooms, sde
from klip_jax.posterior import misfit
from klip_jax.priors.analytic import Gaussian, Mixture
from klip_jax.sample import sample
from klip_jax.twisted import Twisted
from klip_jax.types import Scan

FLAGS = flags.FLAGS
flags.DEFINE_list("samplers", [], "As configs name them; with --guidance.")
flags.DEFINE_list("guidance", [], "As configs name them, or exact; with --samplers.")
flags.DEFINE_integer("repetitions", 160, "Draws of (x, y).")
flags.DEFINE_integer("draws", 9, "Of the posterior, for each.")
flags.DEFINE_integer("calls", 80, "Network calls of a chain.")

LOW, HIGH, NOISE_STD = 0.002, 80.0, 0.2
RESULTS = Path(__file__).parent / "results" / "sbc.md"
EXACT = [
    ("heun.Heun", "exact"),
    ("predictor_corrector.PredictorCorrector", "exact"),
]
OTHERS = [
    ("ancestral.Ancestral", "exact"),
    ("ddim.DDIM", "exact"),
    ("ancestral.Ancestral", "mmps.MMPS"),
    ("heun.Heun", "mmps.MMPS"),
    ("ancestral.Ancestral", "tmpd.TMPD"),
    ("ancestral.Ancestral", "pigdm.PiGDM"),
    ("ancestral.Ancestral", "trace_covariance.TraceCovariance"),
    ("ancestral.Ancestral", "conditional_gaussian.ConditionalGaussian"),
    ("heun.Heun", "conditional_gaussian.ConditionalGaussian"),
    ("resampling.Resampling", "conditional_gaussian.ConditionalGaussian"),
    ("proximal.Proximal", "conditional_gaussian.ConditionalGaussian"),
    ("null_space.NullSpace", "conditional_gaussian.ConditionalGaussian"),
]
TWISTED = ("twisted.Twisted", "conditional_gaussian.ConditionalGaussian")
INTRODUCTION = """# Calibration of posterior draws

`python experiments/sbc.py` writes this file. x is drawn from the prior and measured
with noise {noise}, {draws} draws are made of {calls} network calls each (`twisted`: of
{particles} particles and 100 levels), {repetitions} times.

- p: of uniform ranks of the truth among the draws, the least over pixels and their sum,
  times their number (chi-square, 10 bins). Small: not calibrated.
- spread / error: 1 is calibrated, below 1 the draws are too sure. Its standard error is
  about 0.03.
- error: root of the mean squared error of the mean of the draws, image units.
- misfit: mean |y - A x|^2 / noise_std^2 over the draws; 1 is right.

Smooth: 8 pixels of a random covariance, 4 measurements. Mixture: two Gaussians on 4
pixels, whose middle is seen by 2 measurements.
"""


def problems():
    """Name -> (prior, matrix); several covariances, and two modes."""
    smooth = beds.random(8, 0)
    rng = np.random.default_rng(1)
    modes = [
        Gaussian.from_covariance(
            jnp.asarray(centre * np.ones((4, 1, 1))),
            jnp.asarray(scale * (0.7 * np.ones((4, 4)) + 0.3 * np.eye(4))),
        )
        for centre, scale in ((-0.7, 0.2), (0.7, 0.5))
    ]
    rows = jnp.asarray(rng.normal(size=(2, 4)) / 2)
    return {
        "smooth": (smooth.prior, smooth.matrix),
        "mixture": (Mixture.of([0.4, 0.6], modes), rows),
    }


def drawer(sampler: str, guidance: str, calls: int, draws: int):
    """Return (key, scan, prior, matrix) -> draws [L, d, 1, 1] of one posterior."""
    if sampler == TWISTED[0]:
        smc = Twisted(samples=draws, sigma_max=HIGH, sigma_min=LOW)

        def by_particles(key, scan, prior, matrix):
            return smc(key, scan, prior).samples

        return by_particles

    chain: Any = rooms.resolve("samplers", sampler)()
    score: Any = None
    if guidance != "exact":
        score = rooms.resolve("guidance", guidance)()
    steps = calls // chain.calls_per_step
    sigmas = jnp.append(sde.log_levels(steps, LOW, HIGH)[::-1], 0.0)

    def by_chains(key, scan, prior, matrix):
        own = score
        if own is None:
            own = beds.Bed(prior, matrix, scan.y, scan.noise_std).exact()

        def one(key):
            given = dict(guidance=own, scan=scan)
            shape = scan.operator.in_shape
            return sample(key, chain, prior, sigmas, shape, **given).x

        return jax.vmap(one)(jax.random.split(key, draws))

    return by_chains


def evaluate(draw, prior, matrix, repetitions):
    """Return what the table shows of one combination on one problem."""
    d = matrix.shape[1]
    operator = Spectral(matrix, (d, 1, 1))

    @jax.jit
    def repeat(keys, prior, operator, matrix):
        def one(key):
            key_x, key_y, key_draws = jax.random.split(key, 3)
            x = prior.sample(key_x)
            noise = jax.random.normal(key_y, (len(matrix),))
            scan = Scan(operator, matrix @ x.ravel() + NOISE_STD * noise, NOISE_STD)
            made = draw(key_draws, scan, prior, matrix)
            return x.ravel(), made.reshape(len(made), d), misfit(scan, made)

        return jax.lax.map(one, keys, batch_size=100)

    keys = jax.random.split(jax.random.key(0), repetitions)
    truth, made, misfits = map(np.asarray, repeat(keys, prior, operator, matrix))
    quantities = [np.append(a, a.sum(-1, keepdims=True), -1) for a in (truth, made)]
    ranks = rank_statistics.ranks(*quantities)
    p = rank_statistics.uniform_p_value(ranks, made.shape[1])
    return dict(
        p=float(min(1, p.min() * len(p))),
        spread=rank_statistics.spread_over_error(truth, made),
        error=float(np.sqrt(np.mean((truth - made.mean(1)) ** 2))),
        misfit=float(misfits.mean()),
    )


def table(rows):
    """Write the markdown table."""
    names = list(next(iter(rows.values())))
    columns = [f"{n} {what}" for n in names for what in ("p", "spread / error")]
    columns = ["sampler + score", *columns]
    columns += [f"{n} {what}" for n in names for what in ("error", "misfit")]
    lines = [columns, ["---"] * len(columns)]
    for row, on in rows.items():
        cells = [row]
        cells += [
            f"{on[n][w]:.2g}" if w == "p" else f"{on[n][w]:.3f}"
            for n in names
            for w in ("p", "spread")
        ]
        cells += [f"{on[n][w]:.3g}" for n in names for w in ("error", "misfit")]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def checks(rows):
    """The best steps of true scores are calibrated, and so is the reference."""
    for row, on in rows.items():
        sampler, _, score = row.partition(" + ")
        for problem, value in on.items():
            where = f"{problem}, {row}"
            if (sampler, score) in [*EXACT, TWISTED]:
                yield at_least(f"{where}: p of uniform ranks", value["p"], 1e-3)
                yield check(f"{where}: spread / error", value["spread"], 1, 0.1)


def main(_):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # each runs only once
    if bool(FLAGS.samplers) != bool(FLAGS.guidance):
        raise app.UsageError("give --samplers and --guidance together, or neither")
    combinations = [(s, g) for s in FLAGS.samplers for g in FLAGS.guidance]
    whole = not combinations
    start, rows = time.time(), {}
    for sampler, guidance in combinations or [*EXACT, TWISTED, *OTHERS]:
        draw = drawer(sampler, guidance, FLAGS.calls, FLAGS.draws)
        rows[f"{sampler} + {guidance}"] = {
            name: evaluate(draw, *problem, FLAGS.repetitions)
            for name, problem in problems().items()
        }
    if whole:
        text = INTRODUCTION.format(
            noise=NOISE_STD,
            draws=FLAGS.draws,
            calls=FLAGS.calls,
            particles=Twisted().particles,
            repetitions=FLAGS.repetitions,
        )
        RESULTS.write_text(text + "\n" + table(rows) + "\n")
    report = dict(rows=rows, checks=list(checks(rows)))
    report["seconds"] = round(time.time() - start, 1)
    finish(report)


if __name__ == "__main__":
    app.run(main)
