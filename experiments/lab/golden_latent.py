"""The latent variant of DiffGuard against saved runs: masks, latents, codes, scores.

Decoding takes the nearest code, which may flip where two are about as near: pictures
and scores are compared tightly from the saved latents, and loosely from our own.
"""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from checks import check
from safetensors.numpy import load_file

from klip_jax.classifiers.base import cam_mask, grad_cam, scaled_cam
from klip_jax.convert import vgg
from klip_jax.detectors.base_inversion import Inverted, invert, latent_ladder
from klip_jax.detectors.diffguard import DiffGuard
from klip_jax.distances import logits, pixel
from klip_jax.guidance.classifier_free import ClassifierFree, Label
from klip_jax.guidance.guided import Guided
from klip_jax.types import Given
from lab.golden_diffguard import gap, hwc, load, load_latent
from lab.golden_parts import codes_of

FIXED = dict(skipped=0, ahead=0, stop_psnr=-np.inf)
# Weight and cut of the guidance, settings, tolerance of the latents it ends at.
RUNS = {
    "exp225": (ClassifierFree(10.0, 0.3), dict(steps=25), 6e-4),
    "nocam": (ClassifierFree(10.0), dict(steps=25), 6e-4),
    "negcut": (ClassifierFree(10.0, -0.3), dict(steps=25), 6e-4),
    "aux_w3": (ClassifierFree(3.0, 0.3), dict(steps=25, against="unguided"), 6e-4),
    "ddim5": (ClassifierFree(10.0, 0.3), dict(steps=5), 6e-4),
    "condinv": (ClassifierFree(2.0), dict(steps=10), 6e-4),
}
# Of scores from the saved latents, and of those from ours, where codes may flip.
SCORES = {
    "logits": (2e-5, 0.1),
    "dists": (2e-6, 2e-3),
    "ssim": (2e-5, 5e-3),
    "l2": (1e-4, 0.2),
    "lpips": (1e-5, 5e-3),
}


def of_latents(folder: Path, runs=tuple(RUNS)):
    """Yield the differences of every run."""
    golden = load(str(folder))
    parts = load_latent(folder)
    distances = dict(dists=golden.dists, lpips=_lpips(folder))
    distances |= dict(ssim=lambda a, b: 1 - pixel.ssim(a, b), l2=pixel.l2)
    with np.load(folder / "dg_ldm_exp225.npz") as saved:
        first = {name: saved[name] for name in saved.files}
    with np.load(folder / "dg_ldm_variants.npz") as saved:
        variants = {name: saved[name] for name in saved.files}
    for name in runs:
        run = first
        if name != "exp225":
            n = len(name) + 1
            run = {k[n:]: v for k, v in variants.items() if k.startswith(f"{name}_")}
        own = carried_out(parts, name, first)
        yield from latents(name, own, run, parts)
        yield from scores(name, own, run, first, parts, distances, golden.dists_total)


def carried_out(parts, name, first):
    """Return what our run of a name gives of each image."""
    guidance, settings, _ = RUNS[name]
    images = jnp.asarray(first["img_uint8"] / 255, jnp.float32)
    labels = jnp.asarray(first["pred_label"], jnp.int32)
    each = []
    for image, label in zip(images, labels, strict=True):
        x, cam = seen(parts, image, label)
        ends = dict(z0=x, cam=cam)
        up = climbed(parts, x, label, told=name == "condinv", steps=settings["steps"])
        mask = jnp.ones(x.shape[:2], bool)
        if guidance.cut is not None:
            size = image.shape[0], image.shape[1]
            mask = cam_mask(cam, size, x.shape[:2], guidance.cut)
        weights = dict(guided=guidance.weight)
        if settings.get("against"):
            weights["unguided"] = 0.0
        for key, weight in weights.items():
            target = Label(label, mask)
            down = generated(parts, up, target, weight, steps=settings["steps"])
            ends[key] = down
        each.append(dict(ends, inverted=up, mask=mask))
    return {key: np.stack([ends[key] for ends in each]) for key in each[0]}


@jax.jit
def seen(parts, image, label):
    """Return the latent of an image, and where its class is seen."""
    _, autoencoder, classifier = parts
    return autoencoder.encode(image), grad_cam(classifier, image, label)


@functools.partial(jax.jit, static_argnames=("told", "steps"))
def climbed(parts, x, label, *, told, steps):
    """Return where the way up ends, told no label or, at weight 2, the label."""
    prior, autoencoder, _ = parts
    detector = DiffGuard(autoencoder=autoencoder, steps=steps, **FIXED)
    if not told:
        return detector.invert(Given(prior), x).latent
    guided, never = Guided(prior, ClassifierFree(2.0), Label(label)), jnp.bool_(False)
    ladder = latent_ladder(steps)
    up = invert(guided, x, ladder, steps=len(ladder.sigmas), stop=lambda _: never)
    return up.latent


@functools.partial(jax.jit, static_argnames="steps")
def generated(parts, latent, target, weight, *, steps):
    """Return the latent that guidance of a weight makes of another."""
    prior, autoencoder, _ = parts
    settings = dict(autoencoder=autoencoder, steps=steps, **FIXED)
    detector = DiffGuard(guidance=ClassifierFree(weight), **settings)
    up = Inverted(latent, jnp.int32(detector.climbed - 1))
    return detector.generate(Given(prior), up, target)


def latents(name, own, run, parts):
    """Yield the differences of latents, masks and codes."""
    if name == "exp225":
        yield check("latent: encoded", gap(own["z0"], hwc(run["z0"])), 0, 1e-4)
        up = hwc(run["inv_latent"][-1])
        yield check("latent: inverted", gap(own["inverted"], up), 0, 3e-4)
        seen = jax.vmap(parts[2].predict)(
            jnp.asarray(run["img_uint8"] / 255, jnp.float32)
        )
        yield check("latent: labels", np.sum(seen != run["pred_label"]), 0, 0)
        for image in range(4):
            act, slope = (jnp.asarray(run[n][image]) for n in ("act", "gradact"))
            cam = jnp.einsum("c,chw->hw", slope.mean((1, 2)), act)
            scaled = scaled_cam(cam, (96, 96))[::4, ::4]
            yield check("latent: map", gap(scaled, run["cam_scaled"][image]), 0, 2e-6)
            large = cam_mask(cam, (96, 96), (96, 96), 0.3)
            unlike = np.sum(np.asarray(large) != run["mask"][image])
            yield check("latent: mask of the image", unlike, 0, 0)
            ours = jax.nn.relu(cam)
            yield check("latent: own map", gap(own["cam"][image], ours), 0, 1e-5)
    if "inv_latent_final" in run:
        up = hwc(run["inv_latent_final"])
        yield check(f"{name}: inverted", gap(own["inverted"], up), 0, 3e-4)
    if "mask_latent" in run:
        unlike = np.sum(own["mask"] != run["mask_latent"].reshape(own["mask"].shape))
        yield check(f"{name}: mask", unlike, 0, 0)
    tolerance = RUNS[name][2]
    down = hwc(run["dec_in"])
    yield check(f"{name}: generated", gap(own["guided"], down), 0, tolerance)
    if "unguided" in own:
        expected = hwc(run["gen_latent_uncond_final"])
        worst = gap(own["unguided"], expected)
        yield check(f"{name}: unguided", worst, 0, tolerance)
    for whose, z, most in (("saved", down, 0), ("own", own["guided"], 2)):
        _, rows = codes_of(parts[1], z)
        unlike = np.sum(rows != run["vq_indices"])
        yield check(f"{name}: codes of {whose} latents", unlike, 0, most)


def scores(name, own, run, first, parts, distances, total):
    """Yield the differences of pictures, logits and scores."""
    _, autoencoder, classifier = parts
    decode = jax.jit(jax.vmap(lambda a, z: a.decode(z), (None, 0)))
    name_of = jax.jit(jax.vmap(lambda c, x: c.logits(x), (None, 0)))
    reference = jnp.asarray(first["img_uint8"] / 255, jnp.float32)
    if "unguided" in own:
        saved = jnp.asarray(hwc(run["gen_latent_uncond_final"]))
        reference = jnp.clip(decode(autoencoder, saved), 0, 1)
    for whose, z in (("saved", hwc(run["dec_in"])), ("own", own["guided"])):
        picture = decode(autoencoder, jnp.asarray(z))
        if whose == "saved" and "dec_out_unclamped" in run:
            worst = gap(2 * picture - 1, hwc(run["dec_out_unclamped"]))
            yield check(f"{name}: decoded", worst, 0, 5e-6)
        picture = jnp.clip(picture, 0, 1)
        if whose == "saved" and "imgr01" in run:
            expected = run["imgr01"] if run["imgr01"].ndim == 4 else run["imgr01"][:, 0]
            worst = gap(picture[: len(expected)], hwc(expected))
            yield check(f"{name}: pictures", worst, 0, 5e-6)
        named = [name_of(classifier, x) for x in (reference, picture)]
        if whose == "saved":
            # In the order [unguided, guided, input], or [input, guided].
            worst = max(gap(a, run["logits"][:, k]) for k, a in enumerate(named))
            yield check(f"{name}: logits", worst, 0, 2e-5)
        for kind, tolerances in SCORES.items():
            if kind == "logits":
                score = -np.asarray(jax.vmap(logits.l1)(*named))
            else:
                of = distances[kind]
                far = jax.jit(lambda pairs, of=of: jax.lax.map(lambda p: of(*p), pairs))
                far = np.asarray(far((reference, picture)))
                # Their alpha and beta of DISTS, in float16, do not quite sum to 1.
                score = (1 - far) * (total if kind == "dists" else 1)
                score = -far if kind in ("l2", "lpips") else score
            worst = gap(score, run[f"score_{kind}"])
            bound = tolerances[whose == "own"]
            yield check(f"{name}: {kind}, {whose} latents", worst, 0, bound)


def _lpips(folder):
    network = folder / "dg_vgg_small.safetensors"
    arrays = load_file(network)
    lines = {
        f"lin{k}.model.1.weight": arrays[f"lpips_lin{k}"].astype(np.float32)
        for k in range(5)
    }
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "lines.npz"
        np.savez(weights, **lines)
        return vgg.lpips(network, weights)
