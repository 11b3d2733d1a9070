"""The published runs on ImageNet: at full size by shapes, in small by numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_configs import get_config

from klip_jax import config, hub
from klip_jax.checkpoint import save_weights
from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.resnet import ResNet
from klip_jax.convert import published
from klip_jax.convert.diffusers import betas
from klip_jax.distances.base_vgg import VGG16
from klip_jax.distances.perceptual import DISTS
from klip_jax.nets.adm import ADM
from klip_jax.nets.latent_unet import LatentUNet
from klip_jax.nets.vq_autoencoder import VQAutoencoder
from klip_jax.priors.autoencoder import Autoencoder
from klip_jax.priors.epsilon import Epsilon
from klip_jax.priors.labelled import Labelled
from klip_jax.run import detect, job, law, parts
from klip_jax.run.store import Store
from klip_jax.types import Given

NAMES = "imagenet_diffguard_gdm", "imagenet_diffguard_ldm"
SIDES = dict(zip(NAMES, (224, 256), strict=True))
IMAGENET = dict(stages=(3, 4, 6, 3), block="bottleneck", stem="imagenet")
BETAS = tuple(betas({}))


def of_image(net, side):
    x = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x)


def perceptual(widths=(64, 128, 256, 512, 512)):
    net, k = VGG16("l2", widths), 3 + sum(widths)
    both = (jax.ShapeDtypeStruct((k,), jnp.float32) for _ in range(2))
    return DISTS(of_image(net, 32), *both, net)


def parts_of(name):
    """Return prior, classifier and what the detector holds, at full size: shapes."""
    net = ResNet(**IMAGENET, classes=1000)
    classifier = Classifier(net, of_image(net, 224), (SIDES[name], SIDES[name], 3))
    if name.endswith("gdm"):
        net = ADM()
        prior = Epsilon(hub.empty_params(net, (256, 256, 3)), net, betas=BETAS)
        return prior, classifier, None
    net, codes = LatentUNet(), VQAutoencoder()
    params = hub.empty_params(net, (64, 64, 3))
    prior = Labelled(Epsilon(params, net, betas=BETAS, low=0.0))
    return prior, classifier, Autoencoder(of_image(codes, 256), codes)


def detector_of(name, autoencoder, distance, monkeypatch):
    made = {"autoencoder": autoencoder, "perceptual": distance}
    for key, part in made.items():
        monkeypatch.setitem(parts.LOADED, key, lambda *_, part=part: (part, {}))
    chosen = get_config(name).to_dict()["detectors"]["diffguard"]
    return config.build("detectors", parts.with_weights(chosen, "it"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_published_run_builds_at_full_size(name, monkeypatch):
    prior, classifier, autoencoder = parts_of(name)
    detector = detector_of(name, autoencoder, perceptual(), monkeypatch)
    side = SIDES[name]
    seen = (256, 256, 3) if autoencoder is None else (64, 64, 3)

    def look(prior, classifier, detector, image):
        given = Given(prior, image=image, classifier=classifier)
        return detector.look(jax.random.key(0), given)

    image = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
    encoded = jax.eval_shape(lambda detector, x: detector.encode(x), detector, image)
    assert encoded.shape == seen
    looked = jax.eval_shape(look, prior, classifier, detector, image)
    assert looked.inverted.shape == seen
    assert looked.guided.shape == looked.reference.shape == image.shape
    sizes = [leaf.size for leaf in jax.tree.leaves(prior.params)]
    expected = 552_814_086 if autoencoder is None else 400_920_579 + 1001 * 512
    assert sum(sizes) == expected


def test_settings_are_those_of_the_published_runs(monkeypatch):
    gdm, ldm = (detector_of(name, None, abs, monkeypatch) for name in NAMES)
    assert (gdm.steps, gdm.climbed, gdm.ahead, gdm.side) == (100, 90, 2, 256)
    assert gdm.network_calls == 274 and gdm.calls_of(jnp.float32(59)) == 184
    assert (gdm.released_stop_psnr, gdm.stop_distance) == (48.5, 0.62)
    assert (gdm.guidance.scale, gdm.guidance.crops) == (3.0, 8)
    assert (gdm.guidance.crop_side, gdm.guidance.reduction) == (224, "sum")
    assert (gdm.against, ldm.against) == ("unguided", "input")
    assert gdm.distance == ldm.distance == "perceptual"
    assert (ldm.steps, ldm.skipped, ldm.ahead) == (25, 0, 0)
    assert ldm.stop_psnr == -math.inf and ldm.stop_distance == math.inf
    assert (ldm.guidance.weight, ldm.guidance.cut) == (10.0, 0.3)


@pytest.fixture
def lists(tmp_path, monkeypatch):
    """A picture of each set, as OpenOOD lays them out; nothing else is here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KLIP_HOME", raising=False)
    rng = np.random.default_rng(0)
    for name in ("imagenet", "species", "inaturalist", "openimage_o", "imagenet_o"):
        folder = tmp_path / "images_largescale" / name
        folder.mkdir(parents=True)
        pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((320, 260)).save(folder / "0.png")
        path = tmp_path / f"benchmark_imglist/imagenet/test_{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}/0.png {0 if name == 'imagenet' else -1}\n")
    return tmp_path


def settings_of(name, root):
    settings = get_config(name).to_dict()
    settings["data"]["root"] = str(root)
    settings["data"]["per_group"], settings["train"] = 1, {}
    return settings


@pytest.mark.parametrize("name", NAMES)
def test_what_is_absent_is_told_with_the_command_that_makes_it(name, lists):
    settings = settings_of(name, lists)
    weights = settings["prior"]["weights"]
    file = published.FILES[weights].source
    words = rf"'{weights}': no such .*download https://.*{file} .*bytes.*, then python "
    words += rf"-m klip_jax.main --mode=convert --source={file} --target=checkpoints/"
    with pytest.raises(FileNotFoundError, match=words) as caught:
        job.prepare(settings, lists / "run")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    parts_of_it = settings["detectors"]["diffguard"]
    asked = [v["weights"] for k, v in parts_of_it.items() if k in parts.LOADED]
    asked += [settings["classifier"]["weights"], weights]
    assert set(asked) <= published.FILES.keys()


def write(name, kind, module, shape, settings, **more):
    """Write random weights of a narrow network."""
    net, rng = kind(**settings), np.random.default_rng(0)
    sees_noise = "prior" in more
    empty = (hub.empty_params if sees_noise else hub.empty_of_image)(net, shape)

    def some(leaf):
        fan_in = math.prod(leaf.shape[:-1]) or 1
        spread = fan_in**-0.5 if leaf.ndim > 1 else 0.0
        return np.float32(spread * rng.standard_normal(leaf.shape) + (leaf.ndim == 1))

    record = dict(net=dict(name=module, **settings), image_shape=shape, **more)
    if module == "":
        record = dict(distance=dict(name="perceptual.DISTS"))
    arrays = jax.tree.map(some, empty)
    k = 3 + sum(settings["widths"]) if module == "" else 0
    halves = np.full(k, 0.5 / max(k, 1))
    arrays |= {"alpha": halves, "beta": halves} if k else {}
    save_weights(f"checkpoints/{name}.safetensors", arrays, record, dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_some_steps_of_narrow_networks(name, lists):
    """Of the same families, grids and pictures; full width takes minutes a step."""
    settings, side = settings_of(name, lists), SIDES[name]
    resnet = functools.partial(write, f"imagenet_resnet50_{side}", ResNet)
    narrow = IMAGENET | dict(width=4, classes=1000)
    resnet("resnet.ResNet", (side, side, 3), narrow)
    small = dict(pooling="l2", widths=(4,) * 5)
    write("dists", VGG16, "", (32, 32, 3), small)
    errors = dict(errors=dict(levels=[], errors=[]))
    prior = dict(name="epsilon.Epsilon", betas=BETAS)
    own = dict(steps=2, skipped=0) if name.endswith("ldm") else dict(steps=20)
    if name.endswith("gdm"):
        net = dict(width=32, head_channels=32)
        more = dict(prior=prior, **errors)
        write("imagenet_adm_256", ADM, "adm.ADM", (256, 256, 3), net, **more)
        own["skipped"] = 18
    else:
        net, more = dict(width=32), dict(prior=prior | dict(low=0.0), **errors)
        module = "latent_unet.LatentUNet"
        write("imagenet_ldm_256", LatentUNet, module, (64, 64, 3), net, **more)
        module, codes = "vq_autoencoder.VQAutoencoder", dict(width=32, codes=16)
        beside = f"{settings['prior']['weights']}_autoencoder"
        write(beside, VQAutoencoder, module, (256, 256, 3), codes)
    settings["detectors"]["diffguard"] |= own
    made = job.prepare(settings, lists / "run")
    viewer = made.viewer()
    detect.detect(made, law.references(made, viewer), viewer, progress=False)
    scores = Store(lists / "run").scores(["detector", "group", "score"])
    told = scores["detector"] == "diffguard"
    assert np.sum(told) == 5 and np.all(np.isfinite(scores["score"]))
