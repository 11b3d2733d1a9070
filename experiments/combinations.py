"""Which sampler with which guidance: the bias of each, without sampling error.

    python experiments/combinations.py

On Gaussian problems every step here is affine in the state and in the noise it draws,
so the law of a chain's output, its path KL and the KL at many levels are linear
algebra. All get about 100 network calls. Prints one JSON object with `checks`, writes
experiments/results/combinations.md, and takes about two minutes on one core.
"""

import time
from pathlib import Path
from typing import NamedTuple

import beds
import jax
import jax.numpy as jnp
from checks import at_least, check, finish
from exact_laws import HIGH, LOW, Spectral, evaluate
from lab.documented_biases import COVARIANCE_ERRORS, DOCUMENTED

from klip_jax import sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.dps import DPS, DPSWithoutJacobian
from klip_jax.guidance.mmps import MMPS
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.guidance.tmpd import TMPD
from klip_jax.guidance.trace_covariance import TraceCovariance
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.ddim import DDIM
from klip_jax.samplers.euler_maruyama import EulerMaruyama
from klip_jax.samplers.heun import Heun
from klip_jax.samplers.langevin import Langevin
from klip_jax.samplers.null_space import NullSpace
from klip_jax.samplers.predictor_corrector import PredictorCorrector
from klip_jax.samplers.projection import Projection
from klip_jax.samplers.proximal import Proximal
from klip_jax.samplers.resampling import Resampling
from klip_jax.types import Guidance, Sampler, Scan

CALLS = 100
NO_NOISE = 1e-3  # noise_std that hard projections are told
RESULTS = Path(__file__).parent / "results" / "combinations.md"
SHOWN = dict(
    mean="mean",
    covariance="covariance",
    path_kl="path KL",
    levels_kl="levels KL",
    own_levels_kl="levels KL, own draws",
)
INTRODUCTION = """# Samplers and likelihood scores on Gaussian problems

`python experiments/combinations.py` writes this file. Nothing in it is sampled: every
number is the expectation, by linear algebra in float64.

Each chain has about 100 network calls, on levels in geometric progression from 80 to
.002 and then to 0. G16: 16 pixels of a smooth prior, every second one seen, noise .1.
R16: a random covariance and a random matrix of 8 rows, noise .2.

- mean: |m - m_y| / sqrt(tr P), the error of the mean in posterior standard deviations;
  covariance: |C - P| / |P| in the Frobenius norm. m, C: of what the chain draws.
- path KL: the expected `kl.path_kl` over the true KL(p(x|y) || p(x)). It bounds from
  above what the chain's draws hold; empty where the sampler has no path KL.
- levels KL: the expected `kl.levels_kl` with this score over the true KL, from exact
  draws of the posterior, and from the chain's own draws. Samplers that use no score are
  given that of the conditional Gaussian.
- derivatives: of the network, beside its calls; each costs about two more calls.
- "told no noise": the scan is said to have noise .001 instead of the true one.

What it says. With a true likelihood score all errors are those of the step: least for
Heun and for a corrector, most for Langevin steps alone. With approximate scores:
resampling has the least error without derivatives of the network. PiGDM with the
prior's own variance, and the trace of the covariance, are as good with them on the
smooth G16, in ancestral steps. Tweedie's covariance is as good as the truth where it is
solved with (MMPS, 8 iterations for 8 measurements); by its row sums alone (TMPD) it has
the best KL of the approximations on G16, .88, and none worth the name on R16, whose
rows are random, so that the entries of a sum cancel. Deterministic chains make the
errors of a score larger. Scores at many levels are biased even at exact draws. Fitting
y as if it had no noise makes every KL 3 to 5 times the truth, and more where exact
draws are given. DPS with the true noise has energies without meaning, and mostly
diverges; those who use it tune its step instead.
"""


class Combination(NamedTuple):
    """A row of the table.

    Attributes:
      name: what people call it.
      sampler: see `types.Sampler`.
      guidance: see `types.Guidance`; None takes the exact one of the bed.
      noise_std: what the sampler is told; None tells the truth.
    """

    name: str
    sampler: Sampler
    guidance: Guidance | None = None
    noise_std: float | None = None

    def given(self, bed):
        """Return the guidance and the scan of this row on a bed."""
        operator, told = Spectral(bed.matrix, bed.shape), self.noise_std
        scan = Scan(operator, bed.y, told or bed.noise_std)
        return self.guidance or bed.exact(), scan


WHITE = ConditionalGaussian()
COMBINATIONS = [
    Combination("ancestral + exact", Ancestral()),
    Combination("Euler-Maruyama + exact", EulerMaruyama()),
    Combination("DDIM (Euler) + exact", DDIM()),
    Combination("DDIM(.5) + exact", DDIM(0.5)),
    Combination("Heun + exact", Heun()),
    Combination("Langevin + exact", Langevin()),
    Combination("predictor-corrector + exact", PredictorCorrector()),
    Combination("resampling (DAPS)", Resampling(), WHITE),
    Combination("ancestral + conditional Gaussian", Ancestral(), WHITE),
    Combination("Heun + conditional Gaussian", Heun(), WHITE),
    Combination("ancestral + PiGDM(prior_var=1)", Ancestral(), PiGDM(1.0)),
    Combination("DDIM + PiGDM(prior_var=1)", DDIM(), PiGDM(1.0)),
    Combination("ancestral + PiGDM", Ancestral(), PiGDM()),
    Combination("ancestral + trace covariance", Ancestral(), TraceCovariance()),
    Combination("Heun + trace covariance", Heun(), TraceCovariance()),
    Combination("ancestral + TMPD", Ancestral(), TMPD()),
    Combination("Heun + TMPD", Heun(), TMPD()),
    # Few iterations are not affine in the state; as many as measurements are exact.
    Combination("ancestral + MMPS(8)", Ancestral(), MMPS(8)),
    Combination("Heun + MMPS(8)", Heun(), MMPS(8)),
    Combination("proximal (DiffPIR)", Proximal(), WHITE),
    Combination("null space (DDNM+)", NullSpace(), WHITE),
    Combination("null space (DDNM), told no noise", NullSpace(), WHITE, NO_NOISE),
    Combination("projection (Song 2022)", Projection(), WHITE),
    Combination("projection(.84), told no noise", Projection(0.84), WHITE, NO_NOISE),
    Combination("ancestral + hard projection", Ancestral(), WHITE, NO_NOISE),
    Combination("ancestral + DPS", Ancestral(), DPS()),
    Combination("ancestral + DPS, J = I", Ancestral(), DPSWithoutJacobian()),
]


def network_calls(combination, bed):
    """Count the network's calls and derivatives in one step."""
    counts = [0, 0]

    @jax.custom_vjp
    def denoise(x, sigma):
        counts[0] += 1
        return bed.prior(x, sigma)

    def forward(x, sigma):
        return denoise(x, sigma), (x, sigma)

    def backward(given, cotangent):
        counts[1] += 1
        return jax.vjp(bed.prior, *given)[1](cotangent)

    denoise.defvjp(forward, backward)

    class Counting:
        variance = staticmethod(bed.prior.variance)

        def __call__(self, x, sigma):
            return denoise(x, sigma)

    sigma, x = jnp.float64(0.5), bed.prior.mean
    with jax.disable_jit():
        given = (Counting(), *combination.given(bed), sigma, 0.9 * sigma)
        combination.sampler.step(jax.random.key(0), x, *given)
    return counts


def measure(combination, problems):
    """Return a row: the calls of a chain, and name of the bed -> `evaluate`."""
    a_step = network_calls(combination, beds.g16())
    steps = CALLS // a_step[0]
    sigmas = jnp.append(sde.log_levels(steps, LOW, HIGH)[::-1], 0.0)
    row = dict(calls=steps * a_step[0], derivatives=steps * a_step[1])
    for name, (bed, posterior) in problems.items():
        given = (*combination.given(bed), bed, posterior, sigmas)
        found = evaluate(combination.sampler, *given)
        row[name] = {key: float(value) for key, value in found.items()}
    return row


def checks(rows):
    """Compare with the theory and with what the docstrings say."""
    for name, row in rows.items():
        calls = row["calls"]
        yield check(f"{name}: network calls", calls, CALLS, 1)
        if name.endswith("+ exact"):
            for bed in ("G16", "R16"):
                found = row[bed]
                target = COVARIANCE_ERRORS[name]
                yield check(f"{bed}, {name}: mean", found["mean"], 0, 0.02)
                what = f"{bed}, {name}: covariance"
                yield check(what, found["covariance"], target, 0.03 * target)
                what = f"{bed}, {name}: levels KL / KL"
                yield check(what, found["levels_kl"], 1, 1e-3)
    for (name, key), (target, tolerance) in DOCUMENTED.items():
        value = rows[name]["G16"][key]
        yield check(f"G16, {name}: {key}", value, target, tolerance * target)
    yield from claims(rows)
    for name, row in rows.items():
        if "ancestral" in name:
            # The path KL bounds the information that its draws hold, whatever they are.
            bound = row["G16"]["path_kl"]
            yield at_least(f"G16, {name}: path KL / KL", bound, 1)


def claims(rows):
    """Check what the introduction says of approximate scores."""
    for bed in ("G16", "R16"):
        others = [
            row[bed]
            for name, row in rows.items()
            if not row["derivatives"] and not name.endswith("+ exact")
            if not name.startswith("resampling")
        ]
        for key in ("mean", "covariance"):
            best = min(o[key] for o in others)
            mine = rows["resampling (DAPS)"][bed][key]
            what = f"{bed}, {key}: next best without derivatives / resampling"
            yield at_least(what, best / mine, 1)
    for name in ("PiGDM", "trace covariance"):
        worse = rows["resampling (DAPS)"]["G16"]["mean"]
        value = rows[f"ancestral + {name}"]["G16"]["mean"]
        yield check(f"G16, {name}: mean", value, worse, 0.25 * worse)
    for name in ("conditional Gaussian", "trace covariance"):
        heun, noisy = (rows[f"{how} + {name}"]["G16"] for how in ("Heun", "ancestral"))
        what = f"G16, {name}: covariance, Heun / ancestral"
        yield at_least(what, heun["covariance"] / noisy["covariance"], 1)
    for name in (
        "null space (DDNM), told no noise",
        "projection(.84), told no noise",
        "ancestral + hard projection",
    ):
        for bed in ("G16", "R16"):
            value = rows[name][bed]["own_levels_kl"]
            yield check(f"{bed}, {name}: KL / KL", value, 4, 1)


def table(rows):
    """Write the markdown table."""
    columns = ["combination", "calls", "derivatives"]
    for bed in ("G16", "R16"):
        columns += [f"{bed} {what}" for what in SHOWN.values()]
    lines = [columns, ["---"] * len(columns)]
    for name, row in rows.items():
        cells = [name, row["calls"], row["derivatives"] or ""]
        cells += [number(row[bed][key], key) for bed in ("G16", "R16") for key in SHOWN]
        lines.append(cells)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value, key):
    """Write three digits, or that there is nothing to write."""
    if key == "path_kl" and value == 0:
        return ""
    return "diverges" if not value < 1e9 else f"{value:.3g}"


def main():
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # each runs only twice
    start = time.time()
    problems = {
        name: (bed, bed.posterior)
        for name, bed in (("G16", beds.g16()), ("R16", beds.random(16, 1)))
    }
    rows = {c.name: measure(c, problems) for c in COMBINATIONS}
    RESULTS.write_text(INTRODUCTION + "\n" + table(rows) + "\n")
    report = dict(rows=rows, checks=list(checks(rows)))
    report["seconds"] = round(time.time() - start, 1)
    finish(report)


if __name__ == "__main__":
    main()
