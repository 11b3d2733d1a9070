"""DiffGuard by config: a prior of latents, sizes that differ, and what cannot be."""

import dataclasses

import fake_run
import jax
import numpy as np
import pytest

from klip_jax import hub, struct
from klip_jax.checkpoint import save_weights
from klip_jax.classifiers.resnet import ResNet
from klip_jax.data.base import in_memory
from klip_jax.distances.base_vgg import VGG16
from klip_jax.nets.vq_autoencoder import VQAutoencoder
from klip_jax.run import detect, job, law, parts
from klip_jax.run.store import Store

PICTURE, LATENT = (16, 16, 3), (8, 8, 3)
RESNET = dict(name="resnet.ResNet", stages=[1], width=4, classes=3)
CODES = dict(name="vq_autoencoder.VQAutoencoder", width=32, multipliers=[1, 1])
CODES |= dict(blocks=1, codes=5)
RECORD = fake_run.RECORD | dict(image_shape=list(LATENT))
FREE = dict(name="classifier_free.ClassifierFree", weight=2.0, cut=0.3)
LATENTS = dict(name="diffguard.DiffGuard", guidance=FREE, steps=25, skipped=0)
LATENTS |= dict(ahead=0, stop_psnr=-float("inf"), autoencoder=dict(weights="codes"))
PIXELS = dict(name="diffguard.DiffGuard", steps=25, side=8)
PIXELS |= dict(guidance=dict(name="classifier.AtBlend", crops=2))
MSP = dict(name="classifier_logits.MSP")


@struct.dataclass
class Three(fake_run.White):
    """A prior of three classes, which differ in nothing."""

    classes: int = struct.field(pytree_node=False, default=3)
    null_class: bool = struct.field(pytree_node=False, default=True)

    def given(self, label):
        if label is None and not self.null_class:
            raise ValueError("label=None: this network was trained with a class always")
        return fake_run.White(self.mean, self.var)

    def __call__(self, x, sigma):
        return self.given(None)(x, sigma)


@struct.dataclass
class EverySecond:
    """An autoencoder of every second pixel, for what needs no network."""

    def encode(self, x):
        if x.shape[0] % 2:
            raise ValueError(f"{x.shape[0]} does not divide into this network's grids")
        return x[::2, ::2]

    def decode(self, z):
        return z.repeat(2, 0).repeat(2, 1)


def pictures(side=16, count=4, bright=1.0, seed=0):
    x = np.random.default_rng(seed).uniform(0, bright, (count, side, side, 3))
    ids = [f"picture {i}" for i in range(count)]
    return in_memory(np.float32(x), ids, ["id"] * count)


def write(name, kind, settings, shape, seed=0, **more):
    """Write random weights of a network that sees an image."""
    net = kind(**{k: v for k, v in settings.items() if k != "name"})
    rng = np.random.default_rng(seed)
    empty = hub.empty_of_image(net, shape)
    some = jax.tree.map(lambda a: rng.uniform(0.1, 0.5, a.shape), empty)
    record = more or dict(net=settings, image_shape=shape)
    arrays = record.pop("arrays", {})
    save_weights(f"{name}.safetensors", some | arrays, record)


def write_dists(name, seed=0):
    halves = np.full(13, 1 / 26)
    more = dict(distance=dict(name="perceptual.DISTS"))
    more |= dict(arrays={"alpha": halves, "beta": halves})
    small = dict(pooling="l2", widths=(2,) * 5)
    write(name, VGG16, small, PICTURE, seed, **more)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of weights, each called by what it is of."""
    folder = tmp_path_factory.mktemp("home")
    for side in (8, 16):
        write(folder / f"names_{side}", ResNet, RESNET, (side, side, 3))
    write(folder / "ten", ResNet, RESNET | dict(classes=10), PICTURE)
    write(folder / "codes", VQAutoencoder, CODES, PICTURE)
    write_dists(folder / "dists")
    return folder


@pytest.fixture(autouse=True)
def weights(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KLIP_HOME", str(home))
    fake_run.install(monkeypatch, Three(), RECORD)


@pytest.fixture
def quick(monkeypatch):
    """`EverySecond` for codes."""

    def load(name, setting):
        own = name == "codes"
        return (EverySecond(), {}) if own else hub.load_autoencoder(name, setting)

    monkeypatch.setitem(parts.LOADED, "autoencoder", load)


def settings(detector, **changes):
    detectors = dict(diffguard=detector, msp=MSP)
    data = dict(name="test_run_diffguard:pictures", measurements="")
    made = fake_run.settings(data=data, scan=None, detectors=detectors)
    made |= dict(main="diffguard", classifier=dict(weights="names_16"))
    made["calibration"]["draws"] = 0
    for name, value in changes.items():
        part, _, field = name.partition("__")
        made[part][field] = value
    return made


def test_a_prior_of_latents_is_reached_by_name(tmp_path):
    made = job.prepare(settings(LATENTS), tmp_path / "run")
    assert made.shapes.picture == PICTURE and made.shape == LATENT
    about = made.rehearsed["diffguard"].about
    assert about["network_calls"] == 25 + 2 * 25
    assert about["extras"]["inverted"] == list(LATENT)
    assert about["extras"]["guided"] == about["extras"]["input"] == list(PICTURE)


def test_other_weights_under_the_same_name_are_another_run(tmp_path, home):
    own = dict(perceptual=dict(weights="dists"), distance="perceptual")
    made = job.prepare(settings(PIXELS | own), tmp_path / "run")
    assert made.detectors["diffguard"].perceptual.net == VGG16("l2", (2,) * 5)
    assert made.shapes.picture == PICTURE and made.shape == LATENT
    write_dists(tmp_path / "checkpoints/dists", seed=1)
    with pytest.raises(ValueError, match="same config with other weights of detect"):
        job.prepare(settings(PIXELS | own), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("detector", [LATENTS, PIXELS], ids=["latents", "pixels"])
def test_it_runs_from_a_config(detector, tmp_path):
    own = dict(perceptual=dict(weights="dists"), distance="perceptual")
    made = job.prepare(settings(detector | own), tmp_path / "run")
    viewer = made.viewer()
    assert detect.seconds_per_call(made) > 0
    detect.detect(made, law.references(made, viewer, progress=False), viewer)
    scores = Store(tmp_path / "run").scores(names=["detector", "score"])
    told = scores["score"][scores["detector"] == "diffguard"]
    assert len(told) == 4 and np.all(np.isfinite(told))


BAD = {
    "another size": (
        {k: v for k, v in LATENTS.items() if k != "autoencoder"},
        {},
        r"of pictures of \(16, 16, 3\) it shows the prior \(16, 16, 3\), which is for "
        r"\(8, 8, 3\); give .* its side .* and autoencoder",
    ),
    "another side": (PIXELS | dict(side=32), {}, r"shows the prior \(32, 32, 3\), whi"),
    "side of latents": (LATENTS | dict(side=32), {}, r"shows the prior \(16, 16, 3\)"),
    "an odd side": (LATENTS | dict(side=15), {}, "does not divide into this network"),
    "classes": (
        LATENTS,
        dict(classifier__weights="ten"),
        "the classifier names 10 classes, but the prior knows 3",
    ),
    "classifier's size": (
        LATENTS,
        dict(classifier__weights="names_8"),
        r"names_8 names images of \(8, 8, 3\), but the pictures are \(16, 16, 3\)",
    ),
    "range": (LATENTS, dict(data__bright=255.0), "pixels that are NaN or outside"),
    "draws": (
        LATENTS,
        dict(calibration__draws=8),
        r"the images are \(16, 16, 3\), but a draw of the model is of \(8, 8, 3\)",
    ),
    "a prior's detector": (
        dict(name="noised_reconstruction.AnoDDPM"),
        {},
        r"AnoDDPM: of pictures of \(16, 16, 3\) it shows the prior \(16, 16, 3\)",
    ),
    "threshold": (PIXELS | dict(stop_psnr=48.5), {}, "=48.5: .*set released_stop_psnr"),
    "crop": (
        PIXELS | dict(guidance=dict(name="classifier.AtBlend", crop_side=24)),
        {},
        r"crop_side=24: must lie in \[1, 8\], inside an image of 8 x 8",
    ),
    # The map is always of the last stage: there is no layer to choose.
    "cam layer": (
        LATENTS | dict(guidance=FREE | dict(layer="layer9")),
        {},
        "ClassifierFree: no setting 'layer'; there are .*'cut'",
    ),
    "cut": (LATENTS | dict(guidance=FREE | dict(cut=3.0)), {}, "cut=3.0: must be in"),
    "absent": (
        LATENTS | dict(autoencoder=dict(weights="nope")),
        {},
        "diffguard.autoencoder.weights='nope': no such weights in .*--mode=convert",
    ),
    "published": (
        LATENTS | dict(perceptual=dict(weights="imagenet_ldm_256_autoencoder")),
        {},
        "download https://ommer-lab.com.*, then python -m klip_jax.main --mode=convert "
        "--source=model.ckpt --target=checkpoints/imagenet_ldm_256.safetensors",
    ),
    "another setting": (
        LATENTS | dict(autoencoder=dict(name="x", weights="codes")),
        {},
        r"detectors.diffguard.autoencoder: no setting 'name'; there are \['weights'\]",
    ),
    "no text": (LATENTS | dict(perceptual=dict(weights=3)), {}, "weights=3: give a na"),
    "another kind": (
        LATENTS | dict(autoencoder=dict(weights="names_16")),
        {},
        "weights of a classifier, not of an autoencoder: give them as classifier.wei",
    ),
    "no distance": (
        LATENTS | dict(perceptual=dict(weights="codes")),
        {},
        "weights of an autoencoder, not of a distance: give them as autoencoder.wei",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_line_before_compute(case, tmp_path, quick):
    detector, changes, words = BAD[case]
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        job.prepare(settings(detector, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (fake_run.White(), "White knows no classes: classifier-free guidance needs"),
        (Three(null_class=False), "label=None: this network was trained with a class"),
    ],
)
def test_labels_that_the_variant_needs(prior, words, tmp_path, quick, monkeypatch):
    fake_run.install(monkeypatch, prior, RECORD)
    with pytest.raises(ValueError, match=words):
        job.prepare(settings(LATENTS), tmp_path / "run")


def test_a_distance_of_other_arrays_is_refused():
    weights, _ = hub.load_perceptual("dists")
    tree = {"params": dict(weights.params["params"]), "alpha": weights.alpha}
    with pytest.raises(ValueError, match="beta is missing, where 13 numbers are need"):
        type(weights).of(tree)
    tree["params"].pop("conv_3_1")
    with pytest.raises(ValueError, match="params/conv_3_1 is missing"):
        type(weights).of(tree)
    assert dataclasses.replace(weights).net.widths == (2,) * 5
