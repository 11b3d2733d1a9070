"""What our compositions of the KLIP release cost, the network and the rest apart.

    python experiments/bench_reference.py [--only song22 ...] [--torch_python=PATH]

Ours are CPU seconds summed over threads, medians of several runs after compilation, so
that other work on the machine counts little; those of the release, in RELEASE, are
wall-clock medians that were measured once, on two cores. Beside them, in the same run:
a plain restatement of Song'22's projection (all angles, 4-fold grid, data transformed
anew each time); and, by another Python that has torch and diffusers, `torch_loops.py`:
a loop of diffusers, and PaDIS restated without its network, with ODL on astra-toolbox
where they can be imported, as in the release. Reads ../shared/golden. Prints one JSON
object with `checks`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import replays
from checks import at_least, check, finish
from parity import FOLDER
from safetensors.numpy import load_file

from klip_jax.convert import diffusers
from klip_jax.guidance.none import NoGuidance
from klip_jax.operators.blur import GaussianBlur
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.radial import RadialLines
from klip_jax.priors.epsilon import Epsilon
from klip_jax.priors.patches import Patches
from klip_jax.release import ddpm, padis, song22
from klip_jax.types import Scan

RELEASE = {  # seconds
    "Song'22, 64, N=20, B=2, no network": 0.385,
    "Song'22, 64, N=200, B=4, no network": 9.8,
    "projection, 64, B=2": 0.0246,
    "projection, 512, B=1": 0.88,
    "DDPM, update, B=8": 0.0023,
}
KEY = jax.random.key(0)


def seconds(function, *arguments, repeats=5):
    """Return the median CPU time of a call, compiled and run once before."""
    compiled = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    found = []
    for _ in range(repeats):
        start = time.process_time()
        jax.block_until_ready(compiled(*arguments))
        found.append(time.process_time() - start)
    return statistics.median(found)


def restated(size):
    """Return (x, z, known, cells, sigma, L) -> P(x) step by step, and what it needs."""
    diagonal = int(np.ceil(np.sqrt(2) * size))
    side, first = 4 * diagonal, 2 * diagonal - size // 2
    angles = np.pi * np.arange(size) / size
    r = np.linspace(-2 * (diagonal - 1), 2 * (diagonal - 1), side)
    cells = tuple(
        jnp.asarray(np.round(np.outer(part, r)).astype(int) % side)
        for part in (-np.sin(angles), np.cos(angles))
    )
    mask = np.zeros((size, 1), np.float32)
    mask[np.round(np.linspace(0, size - 1, 23)).astype(int)] = 1

    def spectrum(x):
        padded = jnp.pad(x, ((first, side - size - first),) * 2)
        return jnp.fft.fft2(jnp.fft.ifftshift(padded))

    def lines(spectrum, cells):
        centred = jnp.fft.ifftshift(spectrum[cells], axes=1)
        return jnp.fft.fftshift(jnp.fft.ifft(centred, axis=1), axes=1)

    def project(x, z, known, cells, sigma, coefficient):
        own, seen = spectrum(x), known + sigma * spectrum(z)
        mixed = lines(own, cells) * (1 - coefficient * mask)
        mixed = mixed + coefficient * mask * lines(seen, cells)
        back = jnp.fft.fft(jnp.fft.ifftshift(mixed, axes=1), axis=1)
        back = jnp.fft.fftshift(back, axes=1)
        merged = own.at[cells].set(back)
        image = jnp.fft.fftshift(jnp.fft.ifft2(merged)).real
        return image[first : first + size, first : first + size]

    return project, spectrum, cells


def projection(size, batch, repeats):
    op = RadialLines((size, size, 1), views=23, contested="last")
    x, z, image = jax.random.normal(KEY, (3, size, size, 1))
    plain, spectrum, cells = restated(size)
    known = jax.jit(spectrum)(image[..., 0])
    scan = song22.measured(op, op(image))

    def ours(scan, x, z):
        return x + scan.project(x, 0.5 * z, 0.841)

    given = x[..., 0], z[..., 0], known, cells, 0.5, 0.841
    expected = jax.jit(plain)(*given)
    error = replays.gap(ours(scan, x, z)[..., 0], expected)
    yield check(f"projection, {size}: ours - restated", error, 0, 2e-5)
    many = jax.vmap(ours, (None, 0, 0))
    xs, zs = jnp.stack([x] * batch), jnp.stack([z] * batch)
    own = seconds(many, scan, xs, zs, repeats=repeats)
    other = batch * seconds(plain, *given, repeats=repeats)
    release = RELEASE[f"projection, {size}, B={batch}"]
    shown = dict(seconds=own, restated=other, release=release)
    name = f"projection, {size}, B={batch}"
    yield at_least(f"{name}: restated / ours", other / own, 10, **shown)
    yield at_least(f"{name}: release / ours", release / own, 10, **shown)


def song22_chains():
    for name, steps, batch in (("N20", 20, 2), ("N200", 200, 4)):
        kept = replays.read(FOLDER / f"song22_gauss_64_{name}.npz")
        mean, variance = (kept[f"prior_{v}"][..., None] for v in ("mean", "var"))

        def prior(x, sigma, mean=mean, variance=variance):
            return x + sigma**2 * (mean - x) / (variance + sigma**2)

        op = RadialLines((64, 64, 1), views=23, contested="last")
        scan = song22.measured(op, op.from_spectrum(kept["known"]))
        sigmas, following = song22.levels(steps)

        def chain(scan, x, key, prior=prior, levels=(sigmas, following)):
            given = prior, NoGuidance(), scan

            def one(key, x, *levels):
                return song22.Song22().step(key, x, *given, *levels)[0]

            def step(x, inputs):
                i, *levels = inputs
                keys = jax.random.split(jax.random.fold_in(key, i), len(x))
                return jax.vmap(one, (0, 0, None, None))(keys, x, *levels), None

            indices = jnp.arange(len(levels[0]))
            return jax.lax.scan(step, x, (indices, *levels))[0]

        x = song22.SIGMA_MAX * jax.random.normal(KEY, (batch, 64, 64, 1))
        own = seconds(chain, scan, x, KEY)
        title = f"Song'22, 64, N={steps}, B={batch}, no network"
        ratio, shown = RELEASE[title] / own, dict(seconds=own, release=RELEASE[title])
        yield at_least(f"{title}: release / ours", ratio, 10, **shown)


def ddpm_overhead(torch):
    config = json.loads((FOLDER / "ddpm_unet_32.json").read_text())
    arrays = load_file(FOLDER / "ddpm_unet_32.safetensors")
    converted = diffusers.convert(config["unet"], config["scheduler"], arrays)
    net, params = replays.network(converted)
    prior = Epsilon(params, net, betas=converted.record["prior"]["betas"])
    operator = GaussianBlur((32, 32, 3), std=9.0, truncate=1.11)
    scan = Scan(operator, jnp.full((32, 32, 3), 0.5), 1.0)
    x, sigma, following = jax.random.normal(KEY, (8, 32, 32, 3)), 1.0, 0.9

    def bare(prior, x):
        return jax.vmap(lambda x: prior(x, sigma))(x)

    def rest(x, keys):
        own = lambda x, sigma: 0.5 * x  # noqa: E731
        step = ddpm.DDPM(clip=True).step
        given = own, NoGuidance(), scan, sigma, following
        return jax.vmap(lambda x, key: step(key, x, *given)[0])(x, keys)

    network = seconds(bare, prior, x)
    others = seconds(rest, x, jax.random.split(KEY, 8), repeats=21)
    release = RELEASE["DDPM, update, B=8"]
    shown = dict(network=network, rest=others, release_update=release)
    if torch:
        shown["diffusers"] = torch["ddpm"]
    yield check("DDPM: rest / network", others / network, 0, 0.05, **shown)


class Nothing:
    """A network that costs nothing."""

    def apply(self, params, x, noise_level):
        return 0.1 * x[..., :1]


def padis_rest(torch):
    if not torch:
        return
    angles = (3.75 + 7.5 * np.arange(24)).tolist()  # as saved, in pixels
    op = ParallelBeam((64, 64, 1), angles=angles, detectors=128, dense=False)
    scan = Scan(op, jnp.zeros(op.out_shape), 1.0)
    prior = Patches({}, Nothing(), patch=24, pad=8)
    x = jax.random.normal(KEY, (2, 80, 80, 1))
    step = padis.PaDIS(pad=8, steps=10).step

    def level(scan, x, keys):
        given = prior, NoGuidance(), scan, 1.0, 0.5
        return jax.vmap(lambda x, key: step(key, x, *given)[0])(x, keys)

    own = seconds(level, scan, x, jax.random.split(KEY, 2), repeats=21) / 10
    other = torch["padis"]["rest"]
    name = f"PaDIS, no network: restated with {torch['padis']['operator']} / ours"
    yield at_least(name, other / own, 4, seconds=own, restated=other)


def measured_by_torch(python):
    """Return what torch_loops.py prints."""
    script = [python, str(Path(__file__).with_name("torch_loops.py")), str(FOLDER)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{python}: torch_loops.py failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


PARTS = dict(
    projection_64=lambda torch: projection(64, 2, 9),
    projection_512=lambda torch: projection(512, 1, 3),
    song22=lambda torch: song22_chains(),
    ddpm=ddpm_overhead,
    padis=padis_rest,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--torch_python", help="a Python with torch and diffusers")
    arguments = parser.parse_args()
    if not FOLDER.is_dir():
        sys.exit(f"{FOLDER} is absent: this benchmark needs the release's saved runs")
    python = arguments.torch_python
    torch = measured_by_torch(python) if python else None
    found = [check for part in arguments.only for check in PARTS[part](torch)]
    finish(dict(checks=found, torch=torch))


if __name__ == "__main__":
    main()
