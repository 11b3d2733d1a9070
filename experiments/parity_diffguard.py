"""DiffGuard against saved runs of its release on small networks, number by number.

    python experiments/parity_diffguard.py --golden=FOLDER

The folder holds the files dg_*.npz and dg_*.safetensors: inputs and outputs of the
release (cure-lab/DiffGuard at 6125295), of DiffNB (luping-liu/DiffOOD at 1c87ba0) and
of OpenOOD (3c35632), whose networks were made small. The guidance of a classifier with
ReLU jumps where a unit flips, so it is compared step by step from the saved states, and
end to end tightly with a smooth classifier only. `--only=latent,diffnb` makes a part.
Prints one JSON object with `checks`. About 6 minutes on two cores.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from checks import check, finish
from lab import golden_gradients, golden_parts
from lab.golden_diffguard import gap, hwc, load
from lab.golden_diffnb import diffnb
from lab.golden_latent import of_latents
from lab.golden_openood import openood

from klip_jax.detectors.diffguard import DiffGuard
from klip_jax.distances import logits, pixel
from klip_jax.guidance.classifier import AtBlend, AtState
from klip_jax.types import Given

GOLDEN = flags.DEFINE_string("golden", None, "Folder of the saved runs.")
ONLY = flags.DEFINE_list("only", [], "Names of parts; none for all of them.")
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
# End to end with ReLU: three times what float64 differs by from the release.
LOOSE = dict(pictures=1.5e-2, logits=0.18, dists=2.4e-4, l2=2e-2)
KEPT = "rev_t", "recon", "boxes_yxs", "xT"
KEPT = (*KEPT, "score_logits", "score_dists", "score_ssim", "score_l2")


def main(_):
    golden = load(GOLDEN.value)
    of_folder = dict(
        schedules=golden_parts.schedules,
        resizes=golden_parts.resizes,
        openood=openood,
        networks=golden_parts.networks,
        dists=golden_parts.dists_full,
        steps=golden_gradients.one_by_one,
        gradients=golden_gradients.of_runs,
        kinds=golden_gradients.of_kinds,
        diffnb=diffnb,
        latent=of_latents,
    )
    parts = {n: functools.partial(f, golden.folder) for n, f in of_folder.items()}
    for part in (inversion, pictures, relu):
        parts[part.__name__] = functools.partial(part, golden)
    parts |= {name: functools.partial(end_to_end, golden, name) for name in RUNS}
    unknown = set(ONLY.value) - set(parts)
    if unknown:
        raise app.UsageError(
            f"--only={','.join(unknown)}: parts are {', '.join(parts)}"
        )
    finish(dict(checks=[c for n in ONLY.value or parts for c in parts[n]()]))


def opened(golden, name):
    return np.load(golden.folder / f"dg_{name}.npz")


def inversion(golden):
    """Yield the latents and where they stopped, and what the stop was told."""
    with opened(golden, "gdm_exp61") as saved:
        images = jnp.asarray(saved["img_uint8"] / 255, jnp.float32)
        detector = DiffGuard(**AES, side=32, perceptual=golden.dists)
        up = inverted(detector, golden.prior, images)
        wrong = np.abs(np.asarray(up.stop) - saved["rev_t"]).max()
        yield check("stop indices", wrong, 0, 0)
        yield check("latents", gap(2 * up.latent - 1, hwc(saved["xT"])), 0, 1.5e-4)
        alone = inverted(detector, golden.prior, images[2:3])
        yield check("stop index alone", alone.stop[0], saved["rev_t"][2], 0)
        told = detector.encode(images[0])
        states = jnp.asarray(hwc(saved["inv_img0_latent"]) / 2 + 0.5)
        psnr = jax.vmap(lambda x: pixel.psnr(x, told))(states)
        of = jax.jit(lambda x: golden.dists(x, told))
        similar = (1 - np.asarray(jax.lax.map(of, states))) * golden.dists_total
        n = len(states)
        ours = np.asarray(psnr) + 20 * math.log10(255 / 2)
        yield check("PSNR of states", gap(ours, saved["trace_psnr"][0, :n]), 0, 4.5e-4)
        expected = saved["trace_dists"][0, :n]
        yield check("DISTS of states", gap(similar, expected), 0, 4e-6)


@jax.jit
def inverted(detector, prior, images):
    def one(image):
        return detector.invert(Given(prior), detector.encode(image))

    return jax.vmap(one)(images)


def pictures(golden):
    """Yield the differences of scores of pictures that were saved."""
    with opened(golden, "gdm_exp61") as saved:
        first = {n: saved[n] for n in ("imgr", *(k for k in KEPT if k in saved.files))}
        images = jnp.asarray(saved["img_uint8"] / 255, jnp.float32)
    with opened(golden, "gdm_variants") as saved:
        variants = {name: saved[name] for name in saved.files}
    for name in RUNS:
        run = first
        if name != "exp61":
            n = len(name) + 1
            run = {k[n:]: v for k, v in variants.items() if k.startswith(f"{name}_")}
        imgr, reference = hwc(run["imgr"]), images
        if imgr.ndim == 5:
            reference, imgr = imgr[:, 1], imgr[:, 0]
        pair = jnp.asarray(reference), jnp.asarray(imgr)
        bounds = dict(logits=2e-5, dists=2e-6, ssim=2e-5, l2=1e-5)
        for kind, tolerance in bounds.items():
            ours = compared(golden, golden.classifier, kind, *pair)
            worst = gap(ours, run[f"score_{kind}"])
            yield check(f"{name}: {kind} of saved pictures", worst, 0, tolerance)


def relu(golden):
    """Yield the differences of a run with ReLU, whose guidance jumps."""
    yield from end_to_end(golden, "exp61", smooth=False)


def end_to_end(golden, name, smooth=True):
    """Yield pictures and scores of a run, with the smooth classifier or with ReLU."""
    guidance, settings, of_pictures, of_logits = RUNS[name]
    bounds = dict(pictures=of_pictures, logits=of_logits, dists=2e-6, l2=1e-4)
    bounds = bounds if smooth else LOOSE
    with opened(golden, "gdm_exp61") as saved:
        images = jnp.asarray(saved["img_uint8"] / 255, jnp.float32)
        sequence = saved["boxes_sequence_yxs"]
        run = {k: saved[k] for k in KEPT if k in saved.files}
    classifier = golden.classifier
    if smooth:
        classifier = golden.smooth
        with opened(golden, "gdm_smooth") as saved:
            named = {k: f"{name}_{k}" for k in KEPT}
            run = {k: saved[n] for k, n in named.items() if n in saved.files}
    else:
        name = f"{name} with ReLU"
    if guidance.crops:
        sequence = run.get("boxes_yxs", sequence)
        settings = dict(settings, boxes=jnp.asarray(sequence, jnp.int32))
    detector = DiffGuard(
        guidance=guidance, side=32, perceptual=golden.dists, **settings
    )
    seen = looked(detector, golden.prior, classifier, images)
    yield check(f"{name}: stop indices", gap(seen.stop, run["rev_t"]), 0, 0)
    if "xT" in run:
        worst = gap(2 * seen.inverted - 1, hwc(run["xT"]))
        yield check(f"{name}: latents", worst, 0, 1.5e-4)
    recon = hwc(run["recon"])
    n = len(recon)
    if recon.ndim == 5:
        if recon.shape[1] == 2:
            unguided = gap(2 * seen.reference[:n] - 1, recon[:, 1])
            yield check(f"{name}: unguided", unguided, 0, 5e-5)
        recon = recon[:, 0]
    guided = gap(2 * seen.guided[:n] - 1, recon)
    yield check(f"{name}: guided", guided, 0, bounds["pictures"])
    for kind in ("logits", "dists", "l2"):
        ours = compared(golden, classifier, kind, seen.reference, seen.guided)
        worst = gap(ours, run[f"score_{kind}"])
        yield check(f"{name}: score {kind}", worst, 0, bounds[kind])


@jax.jit
def looked(detector, prior, classifier, images):
    given = functools.partial(Given, prior, classifier=classifier)
    key = jax.random.key(0)
    return jax.vmap(lambda x: detector.look(key, given(image=x)))(images)


def compared(golden, classifier, name, reference, guided):
    """Return a score of the release of clipped images, by name; higher is alike."""

    def one(a, b):
        a, b = jnp.clip(a, 0, 1), jnp.clip(b, 0, 1)
        if name == "logits":
            both = (classifier.of_features(classifier.features(x)) for x in (a, b))
            return -logits.l1(*both)
        if name == "dists":
            # Rounded to float16, the saved alpha and beta do not quite sum to 1.
            return (1 - golden.dists(a, b)) * golden.dists_total
        return pixel.ssim(a, b) if name == "ssim" else -pixel.l2(a, b)

    return np.asarray(jax.jit(jax.vmap(one))(reference, guided))


if __name__ == "__main__":
    flags.mark_flag_as_required("golden")
    app.run(main)
