"""Our compositions on the saved runs of the KLIP release: what `parity.py` compares.

Each function takes the folder of the saved files and yields (name, error, tolerance);
an error is the largest difference, over the largest value where it says "of max". The
noise is the release's: saved, or drawn from its key in its order. What it does to the
samples of a batch, we do here too, by the options that are off by default.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from safetensors.numpy import load_file

from klip_jax import blocks, localization, metrics
from klip_jax.config import build
from klip_jax.convert import diffusers, edm
from klip_jax.operators.base import Operator
from klip_jax.operators.blur import GaussianBlur
from klip_jax.priors.epsilon import Epsilon
from klip_jax.priors.patches import Patches, positions
from klip_jax.release import ddpm, padis
from klip_jax.release.scoring import klip_reference
from klip_jax.types import Scan, StepInfo


def read(path):
    """Return the arrays of an .npz, channels last where they are [.., C, H, W]."""
    with np.load(path, allow_pickle=False) as kept:
        return {
            k: np.moveaxis(kept[k], -3, -1) if kept[k].ndim > 3 else kept[k]
            for k in kept.files
        }


def gap(found, expected):
    """Return the largest difference."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return np.abs(found - expected).max()


def of_max(found, expected):
    """Return the largest difference over the largest value."""
    return gap(found, expected) / np.abs(expected).max()


def of_max_by_step(found, expected):
    """Return the largest over the first axis of `of_max`."""
    return max(map(of_max, np.asarray(found), expected))


def network(converted):
    """Return (net, params) of converted weights."""
    return build("nets", converted.record["net"]), converted.params


def fold(reducer, shifts):
    """Reduce the normalised updates of samples [T, B, H, W, C] to maps [B, H, W]."""

    def one(shifts):
        def step(acc, shift):
            zero = jnp.zeros(())
            info = StepInfo(zero, zero, shift, shift, shift, zero)
            return reducer.update(acc, info), None

        acc = reducer.init(shifts.shape[1:])
        return reducer.finalize(jax.lax.scan(step, acc, shifts)[0])

    return jax.vmap(one, 1)(shifts)


def scoring(folder):
    """Scores of blocks, and both AUROCs."""
    kept = read(folder / "scoring.npz")
    # Saved for the window [65, 85) alone.
    mean = jax.jit(lambda u: fold(klip_reference((0, 20), jnp.ones_like), u).mean(0))
    maps = np.stack([mean(updates) for updates in kept["updates_window"]])
    labels, body = kept["labels"] > 1, kept["body"] > 0
    for block in (2, 4, 8):
        scores, name = blocks.block_sum(maps, block), f"b{block}"
        error = np.abs(scores / kept[f"score_{name}"] - 1).max()
        yield f"score, block {block}, relative", error, 1e-6
        for regions, what in ((body, ""), (np.ones_like(body), "_nobody")):
            triples = zip(maps, labels, regions, strict=True)
            found = np.array(
                [localization.block_auroc(*image, block) for image in triples]
            )
            expected = kept[f"image_auroc{what}_{name}"]
            assert (np.isnan(found) == np.isnan(expected)).all()
            error = np.nanmax(np.abs(found - expected))
            yield f"AUROC within images{what}, block {block}", error, 1e-15
        found = localization.localization(maps, labels, body, block)
        yield f"its mean, block {block}", gap(found, kept[f"image_mean_{name}"]), 1e-15
    both = [*kept["id_scores_b4"], *kept["score_b4"]]
    scores = [float(blocks.top_mean(jnp.asarray(m), 0)) for m in both]
    found = metrics.auroc(scores, np.arange(len(both)) >= len(kept["id_scores_b4"]))
    yield "AUROC between images", gap(found, kept["dataset_auroc_b4"]), 0


def ddpm_chain(folder, denoisers):
    """Run DDPM from the saved noise; returns (images, normalised updates).

    Args:
      folder: of the saved files.
      denoisers: (inputs of the step, of the sample) -> a denoiser.
    """
    kept = read(folder / "ddpm_32.npz")
    operator = GaussianBlur((32, 32, 3), std=9.0, truncate=1.11)  # of 21 pixels
    scan = Scan(operator, (kept["y"][0] + 1) / 2, 1.0)
    sampler = ddpm.DDPM(clip=True, batch_axis="samples")
    sigmas, g = ddpm.levels(100, kept["betas"]), ddpm.training_g(kept["betas"])
    noise = kept["variance_noise_const"]  # the same at every step

    @jax.jit
    def run(noise, eps):
        def step(x, inputs):
            eps, *levels = inputs

            def one(x, z, eps):
                return sampler.move(z, x, denoisers(eps), scan, *levels)

            x, info = jax.vmap(one, axis_name="samples")(x, noise, eps)
            return x, info.shift / g(levels[0])

        start = 0.5 + jnp.sqrt(0.25 + sigmas[0] ** 2) * kept["x_init"]
        return jax.lax.scan(step, start, (eps, sigmas[:-1], sigmas[1:]))

    x, updates = run(noise, kept["eps"])
    return kept, np.clip(x, 0, 1).mean(0), updates


def ddpm_given_eps(folder):
    """DDPM with the saved outputs of the release's network."""
    denoisers = lambda eps: lambda x, sigma: x - sigma * eps  # noqa: E731
    kept, image, updates = ddpm_chain(folder, denoisers)
    error = of_max_by_step(updates, kept["normalized_updates"])
    yield "DDPM given eps, updates, of max", error, 1e-4
    error = gap(image, kept["reconstruction"])
    yield "DDPM given eps, reconstruction", error, 1e-5
    scores = read(folder / "ddpm_32_scores.npz")
    heatmap = fold(klip_reference((65, 85), jnp.ones_like), updates).mean(0)
    for block in (1, 4):
        found, expected = blocks.block_sum(heatmap, block), scores[f"score_b{block}"]
        yield (
            f"DDPM given eps, score, block {block}, of max",
            of_max(found, expected),
            1e-5,
        )


def ddpm_with_network(folder):
    """DDPM from end to end, with the network converted from diffusers."""
    config = json.loads((folder / "ddpm_unet_32.json").read_text())
    arrays = load_file(folder / "ddpm_unet_32.safetensors")
    converted = diffusers.convert(config["unet"], config["scheduler"], arrays)
    net, params = network(converted)
    prior = Epsilon(params, net, betas=converted.record["prior"]["betas"])
    kept, image, updates = ddpm_chain(folder, lambda eps: prior)
    error = of_max_by_step(updates, kept["normalized_updates"])
    yield "DDPM with its U-Net, updates, of max", error, 1e-3
    error = gap(image, kept["reconstruction"])
    yield "DDPM with its U-Net, reconstruction", error, 1e-3


class Matrix(Operator):
    """A given matrix [rows, columns]."""

    def __init__(self, matrix, in_shape, out_shape):
        self.matrix = jnp.asarray(matrix)
        self.in_shape, self.out_shape = in_shape, out_shape

    def __call__(self, x):
        # As a column: XLA then does not transpose the matrix in every call under vmap.
        y = jnp.matmul(self.matrix, x.reshape(-1, 1), precision="highest")
        return y.reshape(self.out_shape)

    def adjoint(self, y):
        x = jnp.matmul(y.reshape(1, -1), self.matrix, precision="highest")
        return x.reshape(self.in_shape)


def padis_matrix(folder):
    """Return the saved CT operator."""
    matrix = scipy.sparse.load_npz(folder / "padis_A_64_24_128.npz").toarray()
    return Matrix(matrix, (64, 64, 1), (24, 128))


def padis_chain(folder):
    """PaDIS with its network, given offsets and noises."""
    file = folder / "padis_net.safetensors"
    net, params = network(edm.load(file, size=64, patch=24, pad=8))
    prior = Patches(params, net, patch=24, pad=8)
    io, kept = read(folder / "padis_net_io.npz"), read(folder / "padis_64.npz")
    sigma, canvas = io["sigma"], positions(80, 80)
    error = gap(canvas, kept["latents_pos"][0])
    yield "PaDIS positions", error, 1e-6
    total = np.sqrt(sigma**2 + 0.25)
    seen = jnp.concatenate([io["x"][0] / total, io["pos"][0]], -1)
    f = jax.jit(net.apply)(params, seen, jnp.log(sigma) / 4)
    found = 0.25 / total**2 * io["x"][0] + sigma / 2 / total * f
    yield "PaDIS network, of max", of_max(found, io["D"][0]), 1e-4

    scan = Scan(padis_matrix(folder), kept["sinogram"][0], 1.0)
    sampler = padis.PaDIS(pad=8, as_recorded=True)
    noises = kept["z"].copy()
    noises[-1] = 0  # the last level has none
    start = np.pad(10 * kept["init_noise"], ((0, 0), (8, 8), (8, 8), (0, 0)))

    @jax.jit
    def run(prior, scan, x, noises):
        def step(start, inputs):
            offsets, noises, sigma = inputs

            def one(x, noises):
                return sampler.move(offsets, noises, x, prior, scan, sigma)

            x, info = jax.vmap(one, (0, 1))(start, noises)
            return x, (info.shift, jnp.abs(start).max())

        inputs = jnp.asarray(kept["offsets"]), noises, jnp.float32(kept["sigma"])
        return jax.lax.scan(step, x, inputs)

    x, (updates, largest) = run(prior, scan, start, noises)
    first, _, *others = map(of_max, np.asarray(updates), kept["measurement_updates"])
    yield "PaDIS, updates of the first level, of max", first, 2e-4
    # Here the release's updates hold roundings of the canvas, each 8e-5 of their max.
    error = gap(updates[1], kept["measurement_updates"][1])
    rounding = np.spacing(np.float32(largest[1]))
    yield "PaDIS, updates of the second, in roundings", error / rounding, 1
    yield "PaDIS, updates after them, of max", max(others), 2e-5
    g = np.float32(padis.training_g(kept["sigma"]))[:, None, None, None]
    found, expected = updates.mean(1) / g, kept["normalized_updates"][:, 0]
    first, _, *others = map(of_max, found, expected)
    yield "PaDIS, normalised mean, first level, of max", first, 2e-4
    error = gap(found[1], expected[1]) * g[1].item()
    yield "PaDIS, normalised mean, second, in roundings", error / rounding, 1
    yield "PaDIS, normalised mean, after them, of max", max(others), 2e-5
    yield "PaDIS, last canvas", gap(x, kept["final_padded"]), 1e-5
