"""Parts of DiffGuard against saved numbers: levels, resizing, networks, DISTS."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from checks import check
from jaxtyping import Float

from klip_jax.convert import vgg
from klip_jax.detectors.base_inversion import latent_ladder, pixel_ladder
from klip_jax.distances.base_vgg import VGG16
from klip_jax.distances.perceptual import DISTS
from klip_jax.guidance.classifier import crop
from klip_jax.priors.base import timestep_sigmas
from klip_jax.resize import bilinear, bilinear_matrix, nearest_index
from lab.golden_diffguard import gap, hwc, load, load_latent

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
NEAREST = ((256, 64), (96, 24), (32, 8), (224, 64), (28, 7))


def schedules(folder: Path):
    """Yield the differences of noise levels, relative."""
    with np.load(folder / "dg_schedules.npz") as saved:
        betas = np.linspace(1e-4, 0.02, 1000)
        unlike = gap(betas, saved["adm_linear_betas_1000"])
        yield check("betas", unlike, 0, 1e-17)
        every = timestep_sigmas(betas)
        for n in (20, 25, 50, 100, 250):
            abar = saved[f"adm_ddim{n}_alphabar"]
            levels = pixel_ladder(n).sigmas
            worst = gap(2 * levels / np.sqrt((1 - abar) / abar), 1)
            yield check(f"levels of ddim{n}", worst, 0, 1e-12)
            at = saved[f"adm_ddim{n}_timestep_map"]
            yield check(f"timesteps of ddim{n}", gap(2 * levels, every[at]), 0, 0)
        possible = saved["adm_ddimN_possible"]
        ours = [n for n in range(2, 251) if _possible(n)]
        yield check(
            "which ddimN exist", set(ours) ^ set(possible.tolist()) == set(), 1, 0
        )
        for n in (5, 20, 25, 50, 100, 200):
            ladder = latent_ladder(n)
            for name, levels in (("", ladder.sigmas), ("_prev", ladder.below)):
                abar = saved[f"ldm_cin256v2_ddim{n}_alphas{name}"]
                worst = gap(levels / np.sqrt((1 - abar) / abar), 1)
                # The release keeps them in float32, near 1.
                yield check(f"levels of latents{name}, {n}", worst, 0, 1e-5)
        for n in (30, 300):
            count = len(latent_ladder(n).sigmas)
            expected = len(saved[f"ldm_ddim{n}_timesteps"])
            yield check(f"steps of latents, {n}", count, expected, 0)


def resizes(folder: Path):
    """Yield how many source pixels differ, and the differences of matrices."""
    with np.load(folder / "dg_resize.npz") as saved:
        for low, high, new in ((224, 256, 224), (28, 32, 28)):
            rows = saved[f"nearest_{low}to{high}_into_{new}"]
            ours = [nearest_index(size, new) for size in range(low, high + 1)]
            yield check(f"nearest, {low} to {high}", np.sum(rows != ours), 0, 0)
        for size, new in NEAREST:
            row = saved[f"nearest_{size}_into_{new}"]
            unlike = np.sum(row != nearest_index(size, new))
            yield check(f"nearest, {size}", unlike, 0, 0)
        for size, new in ((224, 256), (256, 224), (28, 32), (32, 28)):
            for name in ("bilinear", "bilinear_antialias"):
                ours = bilinear_matrix(size, new, antialias="antialias" in name)
                expected = saved[f"{name}_{size}_to_{new}"]
                yield check(f"{name}, {size}", gap(ours, expected), 0, 3e-7)
        for size, new in ((8, 256), (3, 96)):
            cam = jnp.asarray(saved[f"cam_{size}"])[..., None]
            expected = saved[f"cam_{size}_cv2_{new}"]
            resized = bilinear(cam, (new, new))[..., 0]
            yield check(f"bilinear, {size}", gap(resized, expected), 0, 3e-7)
        boxes = saved["crops_seed100_cut224_side256_yxs"]
        sides = boxes[..., 2].min(), boxes[..., 2].max()
        yield check("crops lie inside", (boxes[..., :2] + boxes[..., 2:]).max(), 256, 0)
        yield check("crops are smaller", sides[0] >= 224 and sides[1] <= 255, 1, 0)


def networks(folder: Path):
    """Yield the differences of what networks give, absolute."""
    golden = load(str(folder))
    net, params = golden.prior.net, golden.prior.params
    with np.load(folder / "dg_gdm_io.npz") as saved:
        both = functools.partial(net.apply, method="both")
        x, t = hwc(saved["unet_x"]), np.float32(saved["unet_t"])
        out = jax.jit(jax.vmap(both, (None, 0, 0)))(params, x, t)
        yield check("network of images", gap(out, hwc(saved["unet_out"])), 0, 4.2e-6)
        yield from _classified(golden.classifier, saved, "classifier of images")
        pictures = hwc(saved["cls_in01"]) * 2 - 1
        for of, name, size in (
            (pictures, "pre_32", 32),
            (hwc(saved["pre_32"]), "", 28),
        ):
            resized = jax.vmap(lambda x, n=size: bilinear(x, (n, n)))(jnp.asarray(of))
            expected = hwc(saved[name or "post_28"])
            yield check(f"resized to {size}", gap(resized, expected), 0, 1e-6)
        z = jnp.asarray((hwc(saved["step25_z"])[0] + 1) / 2)
        boxes = jnp.asarray(saved["step25_boxes_yxs"], jnp.int32)
        crops = jax.vmap(lambda box: crop(z, box, side=28))(boxes)
        yield check("crops", gap(crops, hwc(saved["step25_crops28"])), 0, 1e-6)
    prior, autoencoder, classifier = load_latent(folder)
    net, params = prior.prior.net, prior.params
    with np.load(folder / "dg_ldm_io.npz") as saved:
        x, t, y = hwc(saved["unet_x"]), np.float32(saved["unet_t"]), saved["unet_y"]
        eps = jax.jit(jax.vmap(net.apply, (None, 0, 0, 0)))(params, x, t, y)
        yield check("network of latents", gap(eps, hwc(saved["unet_eps"])), 0, 8.4e-6)

        def told(x, t, tokens):
            return net.apply(params, x, t, tokens=tokens)

        eps = jax.jit(jax.vmap(told))(x, t, saved["unet_context4"])
        yield check("its four tokens", gap(eps, hwc(saved["unet_eps4"])), 0, 8.4e-6)
        yield from _classified(classifier, saved, "classifier of latents")
        images = jnp.asarray(hwc(saved["cls_in01"][:2]))
        encoded = jax.jit(jax.vmap(autoencoder.encode))(images)
        expected = hwc(saved["enc_out"])
        yield check("encoder", gap(encoded, expected), 0, 3e-5)
        codes, rows = codes_of(autoencoder, expected)
        yield check("codes", np.sum(rows != saved["quant_indices"]), 0, 0)
        yield check("vectors of codes", gap(codes, hwc(saved["quant"])), 0, 1e-6)
        out = 2 * jax.jit(jax.vmap(autoencoder.decode))(jnp.asarray(expected)) - 1
        yield check("decoder", gap(out, hwc(saved["dec_out"])), 0, 6e-6)


def dists_full(folder: Path):
    """Yield the differences of DISTS at full width, on weights of a recipe."""
    with np.load(folder / "dg_dists_full.npz") as saved:
        arrays = recipe()
        sums = [arrays[name].sum(dtype=np.float64) for name in saved["recipe_names"]]
        worst = gap(np.divide(sums, saved["recipe_sum"]), 1)
        yield check("DISTS: weights of the recipe", worst, 0, 1e-5)
        params, widths = vgg.network(arrays)
        alpha, beta = (jnp.asarray(saved[name]) for name in ("alpha", "beta"))
        distance = DISTS(params, alpha, beta, VGG16("l2", widths))
        a, b = (jnp.float32(saved[f"img_{name}"]) / 255 for name in "ab")
        latent = jnp.asarray(hwc(saved["latent"])) / 2 + 0.5
        starts = np.cumsum([0, 3, *widths])
        both = jax.lax.map(jax.jit(lambda pair: distance.similarities(*pair)), (a, b))
        # The run has the two words the other way round. Channels that are nearly dead
        # have ratios of rounding errors, which weigh little.
        for name, ours in zip(("structure", "texture"), both, strict=True):
            for k in range(6):
                worst = gap(ours[:, starts[k] : starts[k + 1]], saved[f"{name}_{k}"])
                yield check(f"DISTS: {name} of layer {k}", worst, 0, 2e-4)
        of = jax.jit(lambda pair: distance(*pair))
        for name, pair in (("ab", (a, b)), ("aa", (a, a)), ("latent_a", (latent, a))):
            ours = jax.lax.map(of, pair)
            # They round to 1e-7 of 1, which the similarities are summed from.
            yield check(f"DISTS: {name}", gap(ours, saved[f"dists_{name}"]), 0, 5e-7)


def codes_of(autoencoder, latents):
    """Return the vectors and the numbers of the codes of latents."""
    quantise = functools.partial(autoencoder.net.apply, method="quantise")
    codes, rows = jax.jit(jax.vmap(quantise, (None, 0)))(
        autoencoder.params, jnp.asarray(latents)
    )
    return codes, np.asarray(rows).reshape(len(latents), -1)


def recipe() -> dict[str, Float[np.ndarray, "..."]]:
    """Return VGG16 at full width as random numbers, by torchvision's names."""
    rng, arrays, channels = np.random.RandomState(1234), {}, 3
    widths = np.repeat((64, 128, 256, 512, 512), (2, 2, 3, 3, 3))
    for position, width in zip(CONVOLUTIONS, widths, strict=True):
        weight = rng.standard_normal((width, channels, 3, 3))
        weight *= np.sqrt(2 / (9 * channels))
        arrays[f"features.{position}.weight"] = weight.astype(np.float32)
        bias = rng.standard_normal(width) * 0.05
        arrays[f"features.{position}.bias"] = bias.astype(np.float32)
        channels = width
    return arrays


def _classified(classifier, saved, name):
    images = jnp.asarray(hwc(saved["cls_in01"]))
    features = jax.jit(jax.vmap(classifier.features))(images)
    yield check(f"{name}: features", gap(features, saved["cls_feature"]), 0, 1e-5)
    logits = jax.vmap(classifier.of_features)(features)
    yield check(f"{name}: logits", gap(logits, saved["cls_logits"]), 0, 1e-5)


def _possible(n):
    try:
        pixel_ladder(n)
    except ValueError:
        return False
    return True
