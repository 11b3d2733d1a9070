"""DiffNB against a saved run of its release on small networks, dg_nb.npz."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from checks import check

from klip_jax.convert import ddim
from klip_jax.detectors.diffnb import LEVELS, RELEASED_ASKED, DiffNB, transfer
from klip_jax.guidance.base_preserving import exploding, preserving
from klip_jax.guidance.classifier_free import ClassifierFree, Label
from klip_jax.guidance.guided import Guided
from klip_jax.priors.labelled import Labelled
from klip_jax.types import Given
from lab.golden_diffguard import gap, hwc, network, resnet

DETECTOR = DiffNB(asked=RELEASED_ASKED)


def diffnb(folder: Path):
    """Yield the differences of levels, states, pictures, vectors and distances."""
    prior = Labelled(network(ddim.convert, folder, "nb_unet"))
    classifier = resnet(folder, "nb_classifier", (32, 32, 3))
    with np.load(folder / "dg_schedules.npz") as saved:
        abar = saved["nb_alphabar_f32"].astype(np.float64)
        expected = np.sqrt((1 - abar) / abar)[:361:20]
        levels = gap(2 * np.asarray(LEVELS) / expected, 1)
        yield check("levels of DiffNB", levels, 0, 1e-12)
        for start, timestep in zip(DETECTOR.starts, (120, 240, 360), strict=True):
            of_start = saved[f"nb_t{timestep}_alpha_index_from"]
            unlike = np.sum(of_start != 20 * np.arange(start, 0, -1))
            yield check(f"indices of DiffNB from {timestep}", unlike, 0, 0)
    with np.load(folder / "dg_nb.npz") as saved:
        run = {name: saved[name] for name in saved.files}
    images = jnp.asarray(run["img_uint8"] / 255, jnp.float32)
    noise, labels = jnp.asarray(hwc(run["noise"])), jnp.asarray(run["y_pred"])
    yield from networks(prior, run, images)
    yield from steps(prior, run, images)
    yield from trajectory(prior, run, images, noise, labels)
    yield from scores(prior, classifier, run, images, noise, labels)


def networks(prior, run, images):
    """Yield the difference of the network's noise."""
    apply = jax.jit(jax.vmap(prior.prior.net.apply, (None, 0, 0, 0)))
    noise = apply(prior.params, hwc(run["net_x"]), run["net_t"], run["net_y"])
    yield check("DiffNB: network", gap(noise, hwc(run["net_out"])), 0, 7e-6)


def steps(prior, run, images):
    """Yield the differences of one step with a noise that is given."""
    noise = jnp.asarray(hwc(run["tran_eps"]))
    for name, k in (("119_to_99", 6), ("19_to_-1", 1)):
        sigma, lower, asked = LEVELS[k], LEVELS[k - 1], RELEASED_ASKED[k - 1]

        def known(x, sigma):
            return x - sigma * noise

        start = exploding(images[:3], sigma)
        after = transfer(known, start, sigma, lower, asked)
        after = 2 * preserving(after, lower) - 1
        expected = hwc(run[f"tran_out_{name}"])
        yield check(f"DiffNB: step {name}", gap(after, expected), 0, 2e-6)


def trajectory(prior, run, images, noise, labels):
    """Yield the differences of noised images and of the longest chain's states."""
    for name, k in (("0", 0), ("120", 6), ("240", 12), ("360", 18)):
        noised = preserving(images + LEVELS[k] * noise[0], LEVELS[k])
        expected = hwc(run[f"img_n_t{name}_rep0"])
        yield check(f"DiffNB: noised to {name}", gap(2 * noised - 1, expected), 0, 1e-6)

    @jax.jit
    def chain(x, z, label):
        denoiser = Guided(prior, ClassifierFree(DETECTOR.weight), Label(label))
        levels, asked = jnp.asarray(LEVELS[::-1]), jnp.asarray(RELEASED_ASKED[::-1])

        def step(state, at):
            sigma, lower, asked = at
            return transfer(denoiser, state, sigma, lower, asked), preserving(
                state, sigma
            )

        start = x + levels[0] * z
        end, states = jax.lax.scan(step, start, (levels[:-1], levels[1:], asked))
        return jnp.concatenate([states, preserving(end, levels[-1])[None]])

    states = jax.lax.map(lambda a: chain(*a), (images[:3], noise[0, :3], labels[:3]))
    states = np.swapaxes(2 * np.asarray(states) - 1, 0, 1)
    yield check("DiffNB: states", gap(states, hwc(run["traj_t360_rep0"])), 0, 1.5e-5)


def scores(prior, classifier, run, images, noise, labels):
    """Yield the differences of pictures, vectors and both kinds of distances."""

    @jax.jit
    def one(x, z, label):
        given = Given(prior, image=x, classifier=classifier)
        pictures = jax.lax.map(lambda z: DETECTOR.reconstruct(given, label, z), z)
        return jnp.clip(pictures, 0, 1)

    pictures = jax.lax.map(lambda a: one(*a), (images, noise.swapaxes(0, 1), labels))
    ours = np.asarray(pictures).transpose(2, 0, 1, 3, 4, 5)
    yield check("DiffNB: pictures", gap(ours, hwc(run["imgr"])), 0, 1.5e-5)
    seen = jax.jit(jax.vmap(classifier.predict))(images)
    yield check("DiffNB: labels", np.sum(seen != labels), 0, 0)
    for kind, saved in (("logits", "logits"), ("features", "feature")):
        for against, name in (("clean", "global"), ("previous", "local")):
            detector = DETECTOR.replace(compared=kind, against=against)

            @jax.jit
            def compared(pictures, detector=detector):
                given = Given(prior, classifier=classifier)
                vectors = detector.vectors(given, pictures)
                return vectors, detector.compare(vectors)

            vectors, distances = jax.vmap(jax.vmap(compared))(pictures)
            if against == "clean":
                ours = np.asarray(vectors).transpose(2, 0, 1, 3)
                yield check(f"DiffNB: {kind}", gap(ours, run[saved]), 0, 1e-4)
            ours = np.asarray(distances).mean(1).T
            expected = run[f"dist_{name}_{saved}"]
            yield check(f"DiffNB: {name}, {kind}", gap(ours, expected), 0, 2.1e-5)
