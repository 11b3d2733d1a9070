"""DiffGuard against saved runs of its release on small networks, number by number.

    python experiments/parity_diffguard.py --golden=FOLDER

The folder holds the files dg_*.npz and dg_*.safetensors: inputs and outputs of the
release (cure-lab/DiffGuard at 6125295), whose networks were made small. The guidance of
a classifier with ReLU jumps where a unit flips, so it is compared step by step from the
saved states, and end to end tightly with a smooth classifier only.
Prints one JSON object with `checks`. About 3 minutes on two cores.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from checks import at_least, check, finish
from lab.golden_diffguard import hwc, load, load_latent

from klip_jax.detectors.base_inversion import latent_ladder, pixel_ladder
from klip_jax.detectors.diffguard import DiffGuard
from klip_jax.distances import logits, pixel
from klip_jax.guidance.base_preserving import alpha, exploding
from klip_jax.guidance.classifier import AtBlend, AtState, Target
from klip_jax.guidance.classifier_free import ClassifierFree
from klip_jax.types import Given

GOLDEN = flags.DEFINE_string("golden", None, "Folder of the saved runs.")
EXP61 = dict(crop_side=28)
AES = dict(released_stop_psnr=48.5, stop_distance=1 - 0.325)
FIXED = dict(stop_psnr=-np.inf)
# Guidance, settings, tolerances of pictures and of scores by logits.
RUNS = {
    "exp61": (AtBlend(**EXP61), dict(AES, against="unguided"), 2e-5, 2e-4),
    "noaux": (AtBlend(**EXP61), AES, 2e-5, 2e-4),
    "nox0_noaug": (AtState(crops=0), dict(AES, against="unguided"), 5e-5, 4e-4),
    "onlyaug": (AtState(**EXP61), dict(AES, against="unguided"), 2e-4, 4e-4),
    "onlyx0": (AtBlend(crops=0), dict(AES, against="unguided"), 2e-5, 2e-4),
    "speed": (AtBlend(**EXP61), dict(FIXED, skipped=40), 2e-5, 4e-4),
    "base50": (
        AtBlend(**EXP61),
        dict(FIXED, steps=50, skipped=20, ahead=0, against="unguided"),
        5e-5,
        4e-4,
    ),
}


def main(_):
    golden = load(GOLDEN.value)
    checks = [
        *schedules(golden),
        *inversion(golden),
        *gradients(golden),
        *[c for name in RUNS for c in end_to_end(golden, name)],
        *of_latents(golden.folder),
    ]
    finish(dict(checks=checks))


def opened(golden, name):
    return np.load(golden.folder / f"dg_{name}.npz")


def schedules(golden):
    """Yield the differences of noise levels, relative."""
    with opened(golden, "schedules") as saved:
        for n in (20, 25, 50, 100, 250):
            abar = saved[f"adm_ddim{n}_alphabar"]
            expected = np.sqrt((1 - abar) / abar) / 2
            found = gap(pixel_ladder(n).sigmas / expected, 1)
            yield check(f"levels of ddim{n}", found, 0, 1e-12)
        for n in (5, 20, 25, 50, 100, 200):
            ladder = latent_ladder(n)
            for name, levels in (("", ladder.sigmas), ("_prev", ladder.below)):
                abar = saved[f"ldm_cin256v2_ddim{n}_alphas{name}"]
                found = gap(levels / np.sqrt((1 - abar) / abar), 1)
                # The release keeps them in float32, near 1.
                yield check(f"levels of latents{name}, {n}", found, 0, 1e-4)


def inversion(golden):
    """Yield the latents and where they stopped."""
    with opened(golden, "gdm_exp61") as saved:
        images = jnp.asarray(saved["img_uint8"] / 255, jnp.float32)
        detector = DiffGuard(**AES, side=32, perceptual=golden.dists)
        up = inverted(detector, golden.prior, images)
        wrong = np.abs(np.asarray(up.stop) - saved["rev_t"]).max()
        yield check("stop indices", wrong, 0, 0)
        found = gap(2 * up.latent - 1, hwc(saved["xT"]))
        yield check("latents", found, 0, 1.5e-4)
        alone = inverted(detector, golden.prior, images[2:3])
        yield check("stop index alone", alone.stop[0], saved["rev_t"][2], 0)


@jax.jit
def inverted(detector, prior, images):
    def one(image):
        return detector.invert(Given(prior), detector.encode(image))

    return jax.vmap(one)(images)


def gradients(golden):
    """Yield the gradients of the saved states, of both classifiers."""
    sigmas = 2 * pixel_ladder(100).sigmas
    runs = (
        ("ReLU", golden.classifier, "gdm_exp61", RELU, 0.9),
        ("smooth", golden.smooth, "gdm_smooth", SMOOTH, 1.0),
    )
    guidance = AtBlend(**EXP61)
    for name, classifier, file, names, share in runs:
        with opened(golden, file) as saved:
            labels, index, x, expected, boxes = (saved[n] for n in names)
        label, expected = int(labels[0]), hwc(expected).reshape(-1, 32, 32, 3)
        boxes = jnp.asarray(boxes, jnp.int32)
        levels = jnp.float32(sigmas[index] / 2)
        states = (jnp.asarray(hwc(x)).reshape(-1, 32, 32, 3) + 1) / 2

        def one(x, sigma, boxes, classifier=classifier, label=label):
            target = Target(classifier, label, boxes)
            shown = exploding(x, sigma)
            score = guidance.score(golden.prior, target, shown, sigma)[1]
            # With respect to the state of the release, in [-1, 1].
            return score / alpha(sigma) / 2

        found = jax.lax.map(lambda a: jax.jit(one)(*a), (states, levels, boxes))
        gaps = np.abs(np.asarray(found) - expected).max((1, 2, 3))
        # Of gradients up to 2.6 the rounding of a state is more than of small ones.
        largest = np.maximum(1, np.abs(expected).max((1, 2, 3)))
        yield at_least(
            f"steps whose gradient agrees, {name}",
            np.mean(gaps <= 1e-5 * largest),
            share,
            absolutely=float(np.mean(gaps <= 1e-5)),
            largest=float(gaps.max()),
            median=float(np.median(gaps)),
        )


def end_to_end(golden, name):
    """Yield pictures and scores of a run with the smooth classifier."""
    guidance, settings, of_pictures, of_scores = RUNS[name]
    with opened(golden, "gdm_exp61") as saved:
        images = jnp.asarray(saved["img_uint8"] / 255, jnp.float32)
        sequence = saved["boxes_sequence_yxs"]
    with opened(golden, "gdm_smooth") as saved:
        saved = {k: saved[f"{name}_{k}"] for k in KEPT if f"{name}_{k}" in saved.files}
    if guidance.crops:
        sequence = saved.get("boxes_yxs", sequence)
        settings = dict(settings, boxes=jnp.asarray(sequence, jnp.int32))
    detector = DiffGuard(
        guidance=guidance, side=32, perceptual=golden.dists, **settings
    )
    seen = looked(detector, golden.prior, golden.smooth, images)
    yield check(f"{name}: stop indices", gap(seen.stop, saved["rev_t"]), 0, 0)
    recon = hwc(saved["recon"])
    n = len(recon)
    if recon.ndim == 5:
        if recon.shape[1] == 2:
            unguided = gap(2 * seen.reference[:n] - 1, recon[:, 1])
            yield check(f"{name}: unguided", unguided, 0, 5e-5)
        recon = recon[:, 0]
    guided = gap(2 * seen.guided[:n] - 1, recon)
    yield check(f"{name}: guided", guided, 0, of_pictures)
    for score, tolerance in (("logits", of_scores), ("dists", 2e-6), ("l2", 1e-4)):
        found = compared(golden, score, seen.reference, seen.guided)
        if score == "dists":
            # Rounded to float16, the saved alpha and beta do not quite sum to 1.
            found = (1 - found) * golden.dists_total
        else:
            found = -found
        yield check(
            f"{name}: score {score}", gap(found, saved[f"score_{score}"]), 0, tolerance
        )


RELU = ("pred_label", *(f"gen_img0_{n}" for n in ("index", "x_guided", "grad")))
RELU = (*RELU, "gen_img0_boxes_yxs")
SMOOTH = ("pred_label", "gen_index", "gen_x", "grad", "boxes_yxs")
SMOOTH = tuple(f"exp61_{n}" for n in SMOOTH)
KEPT = "rev_t", "recon", "boxes_yxs", "score_logits", "score_dists", "score_l2"


def of_latents(folder):
    """Yield latents, masks and pictures of the latent variant."""
    prior, autoencoder, classifier = load_latent(folder)
    with np.load(folder / "dg_ldm_exp225.npz") as saved:
        images = jnp.asarray(saved["img_uint8"] / 255, jnp.float32)
        labels = jnp.asarray(saved["pred_label"], jnp.int32)
        names = "z0", "inv_latent", "mask_latent", "dec_in", "dec_out_unclamped"
        z0, inverted, mask, down, pictures = (saved[n] for n in names)
    fixed = dict(steps=25, skipped=0, ahead=0, stop_psnr=-np.inf)
    guidance = ClassifierFree(10.0, 0.3)
    detector = DiffGuard(guidance=guidance, autoencoder=autoencoder, **fixed)

    @jax.jit
    def steps(detector, given, image, label, down):
        given = given._replace(image=image)
        x = detector.encode(image)
        up = detector.invert(given, x)
        key, size = jax.random.key(0), x.shape[:2]
        target = detector.guidance.aim(key, given.classifier, label, image, size)
        guided = detector.generate(given, up, target)
        return x, up.latent, target.mask, guided, detector.decode(down, image)

    given, recorded = Given(prior, classifier=classifier), jnp.asarray(hwc(down))
    found = [
        steps(detector, given, *each)
        for each in zip(images, labels, recorded, strict=True)
    ]
    z, up, masks, guided, decoded = (
        np.stack(part) for part in zip(*found, strict=True)
    )
    yield check("latent: encoded", gap(z, hwc(z0)), 0, 1e-4)
    yield check("latent: inverted", gap(up, hwc(inverted[-1])), 0, 3e-4)
    yield check("latent: mask", np.sum(masks != mask), 0, 0)
    yield check("latent: generated", gap(guided, hwc(down)), 0, 6e-4)
    yield check("latent: decoded", gap(2 * decoded - 1, hwc(pictures)), 0, 1e-5)


@jax.jit
def looked(detector, prior, classifier, images):
    given = functools.partial(Given, prior, classifier=classifier)
    key = jax.random.key(0)
    return jax.vmap(lambda x: detector.look(key, given(image=x)))(images)


def compared(golden, name, reference, guided):
    """Return a distance of clipped images, by name."""

    def one(a, b):
        a, b = jnp.clip(a, 0, 1), jnp.clip(b, 0, 1)
        if name == "logits":
            smooth = golden.smooth
            return logits.l1(*(smooth.of_features(smooth.features(x)) for x in (a, b)))
        return golden.dists(a, b) if name == "dists" else pixel.l2(a, b)

    return np.asarray(jax.jit(jax.vmap(one))(reference, guided))


def gap(found, expected):
    """Return the largest difference."""
    difference = np.asarray(found, np.float64) - np.asarray(expected, np.float64)
    return float(np.abs(difference).max())


if __name__ == "__main__":
    flags.mark_flag_as_required("golden")
    app.run(main)
