"""Every detector of `detection.py` on one image: the same y, the same samples.

`record` is what one image yields: maps [H, W] and features, for the detectors that are
fitted on in-distribution images or have a score alone. `fitted` turns features into
maps and scores once the law of the in-distribution ones is known. Names say what a
detector looks at: "y" its measurements, "x^" the mean of our posterior samples, "x" the
true image, which no detector has in practice: a bound.
"""

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import kl, sde
from klip_jax.detectors import diffpath, klip, klip_release, msma, subset_variance
from klip_jax.detectors import noised_reconstruction as noised
from klip_jax.detectors import sinogram_error as sinogram
from klip_jax.detectors.base import level_statistics, z_score
from klip_jax.detectors.controls import controls
from klip_jax.filters import pool
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.mri import Cartesian
from klip_jax.samplers.resampling import resampling

OURS = "KLIP as configured (y)"
RELEASED = "KLIP as released"
# At 64 pixels its fourth config has the window and the blocks of the third.
RELEASES = ("chaos_song_image", "chaos_song_dataset", "chaos_padis_image")
LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)  # that reconstructions start from, image units
STEPS = 10  # of each reconstruction
MSMA = tuple(float(s) for s in np.geomspace(0.01, 1.0, 10))
PATH = tuple(float(s) for s in np.geomspace(0.01, 20.0, 10))
SHARES = (0.5, 0.75)  # of the measurements that a subset keeps
# Along which axis of y: whole views, whole lines; of others each number alone.
SLICES = {ParallelBeam: 0, Cartesian: 1}


def record(
    prior, operator, measure, key, x, eligible, noise_std, settings, released=True
):
    """Return (maps {name: [H, W]}, features {name: array}) of one image. Pure.

    `measure` simulates what `operator` inverts; the same unless a model error is asked.
    `released` runs KLIP as released as well.
    """
    key_noise, key, key_rest = jax.random.split(key, 3)
    y = measure(x) + noise_std * jax.random.normal(key_noise, operator.out_shape)
    likelihood = ConditionalGaussian(operator, y, noise_std, settings.inflation)
    key_samples, key_levels = jax.random.split(key)
    keys = jax.random.split(key_rest, 6)
    chains = klip.posterior_samples(key_samples, likelihood, prior, settings)
    mean, std = chains.x.mean(0), chains.x.std(0)
    levels = sde.log_levels(settings.levels, *settings.window)
    raw, filtered = (
        kl.levels_kl(
            key_levels,
            prior,
            likelihood,
            chains.x,
            levels,
            scale=settings.scale,
            emphasis=emphasis,
        ).heatmap
        for emphasis in (0.0, 1.0)
    )
    mixed = (1 - settings.emphasis) * raw + settings.emphasis * filtered
    maps = {
        OURS: pool(mixed, settings.pooling)[kl.MAPS.index(settings.map)],
        "KLIP guided (y)": raw[0],
        "KLIP coherent (y)": raw[1],
        "KLIP coherent guided (y)": raw[2],
        "KLIP coherent, filtered (y)": filtered[1],
        "KLIP coherent guided, filtered (y)": filtered[2],
    }
    names = "scale", "emphasis", "pooling"
    filters = {name: getattr(settings, name) for name in names}
    simple = controls(y, operator, prior, mean, std, eligible, **filters)
    rank = jnp.argsort(jnp.argsort(mean.mean(-1).ravel())) / mean[..., 0].size
    simple["equalised_intensity"] = rank.reshape(mean.shape[:2])
    simple["random"] = jax.random.uniform(keys[3], mean.shape[:2])
    maps |= {f"control: {name}": control for name, control in simple.items()}
    residual = y - jax.vmap(operator)(chains.x)
    misfit = jnp.sum(residual**2) / (settings.samples * noise_std**2)
    features = {"KL + half the misfit (y)": raw[0].sum() + 0.5 * misfit}
    of_release = klip_release.maps(keys[4], y, operator, prior) if released else None
    for config in RELEASES if released else ():
        found = klip_release.detection(of_release, config)
        maps[f"{RELEASED}, {config} (y)"] = found.heatmap
        features[f"{RELEASED}, {config} (y)"] = found.score
    levels = jnp.asarray(LEVELS)
    for name, image, key in (("x^", mean, keys[0]), ("x", x, keys[1])):
        found = noised.errors(key, image, prior, levels, steps=STEPS)
        for level, error in zip(LEVELS, found, strict=True):
            maps[f"AnoDDPM {level} ({name})"] = error
        features[f"DDPM-OOD ({name})"] = found
        found = msma.features(image, prior, jnp.asarray(MSMA), block=settings.block)
        features[f"MSMA ({name})"] = found.image
        features[f"block MSMA ({name})"] = found.blocks
        features[f"DiffPath ({name})"] = diffpath.features(
            image, prior, jnp.asarray(PATH)
        )
    found = sinogram.mixed(
        sinogram.errors(keys[2], y, operator, noise_std, prior, levels, steps=STEPS),
        0.5,
    )
    features["sinogram error (y)"] = found.sinogram
    features["sinogram error, image domain (y)"] = found.image
    for share in SHARES:
        found = subset_variance.reconstructions(
            keys[5],
            y,
            operator,
            noise_std,
            prior,
            klip.sampler_levels(settings),
            share=share,
            axis=SLICES.get(type(operator)),
            sampler=resampling(),
        )
        maps[f"subset variance {share} (y)"] = found.variance
    return maps, features


def network_calls(name, settings):
    """Return the network calls an image costs, those of the posterior samples too."""
    sampler = settings.samples * settings.steps
    if name.startswith(RELEASED):
        return klip_release.network_calls()
    own = {
        "KL": settings.network_calls - sampler,
        "control": 0,
        "supervised bound": 1,
        "control: denoised_distance": 1,
        "AnoDDPM": noised.network_calls(1, steps=STEPS),
        "DDPM-OOD": noised.network_calls(len(LEVELS), steps=STEPS),
        "MSMA": msma.network_calls(len(MSMA)),
        "block MSMA": msma.network_calls(len(MSMA)),
        "DiffPath": diffpath.network_calls(len(PATH)),
        "sinogram error": sinogram.network_calls(len(LEVELS), steps=STEPS),
        "subset variance": subset_variance.network_calls(settings.steps),
    }
    start = max((s for s in own if name.startswith(s)), key=len)
    sampled = start.startswith(("KL", "control")) or "(x^)" in name
    return own[start] + sampled * sampler


def fitted(reference, features, block):
    """Return (maps {name: [N, H, W]}, scores {name: [N]}) of features of N images.

    Args:
      reference: {name: features of in-distribution images [M, ...]}; a feature that is
        not there is a score itself.
      features: {name: features of the images [N, ...]}.
      block: side of the blocks of block features.
    """
    maps, scores = {}, {}
    for name, found in features.items():
        own = reference.get(name)
        if own is None:
            scores[name] = np.asarray(found)
        elif name.startswith(("DDPM-OOD", "sinogram error")):
            law = level_statistics(own)
            maps[name] = np.asarray(
                jax.vmap(lambda e, law=law: z_score(e, *law))(found)
            )
            scores[name] = maps[name].mean((1, 2))
        elif name.startswith("block MSMA"):
            distance = msma.mahalanobis(msma.fit(own), found)
            maps[name] = np.kron(distance, np.ones((block, block)))
        elif name.startswith("MSMA"):
            scores[name] = np.asarray(msma.mahalanobis(msma.fit(own), found))
        else:
            one, six = diffpath.fit_1d(own), diffpath.fit_6d(own)
            scores[name.replace("DiffPath", "DiffPath-1D")] = diffpath.score_1d(
                one, found
            )
            scores[name.replace("DiffPath", "DiffPath-6D")] = diffpath.score_6d(
                six, found
            )
    return maps, scores
