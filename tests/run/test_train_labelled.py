"""Networks that know classes: a classifier, and a prior that is told them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from klip_jax import hub
from klip_jax.checkpoint import load_weights
from klip_jax.priors.labelled import Labelled
from klip_jax.run import steps, train, trained_prior
from klip_jax.run.training_images import as_bytes, as_source, checked_labels

RESNET = dict(
    name="resnet.ResNet", stages=(1,), width=2, classes=2, mean=(0.5,), std=(0.25,)
)
UNET = dict(
    name="conditional_unet.ConditionalUNet",
    channels=(2,),
    blocks=(1,),
    attention=(),
    classes=2,
    embedding=4,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Dark images of class 0, bright ones of class 1, and some without labels."""
    folder = tmp_path_factory.mktemp("classes")
    rng, labels = np.random.default_rng(0), np.arange(12) % 2
    grey = np.where(labels, 180, 60)[:, None, None]
    images = np.uint8(grey + rng.integers(0, 40, (12, 16, 16)))
    np.savez(
        folder / "classes.npz",
        train_images=images,
        train_labels=labels,
        three_images=images,
        three_labels=np.arange(12) % 3,
        bare_images=images,
    )
    return folder


def labelled(files, root, net, **changes):
    """Return a resolved config that trains `net` on images with labels."""
    data = dict(name="npz.load_arrays", root=str(root))
    data |= dict(groups=dict(id=("classes.npz", "train_images")))
    changes = dict(train__data=data, train__test=dict(data), train__net=net) | changes
    config = tiny.settings(files, **changes)
    config["train"]["recipe"] |= dict(steps=4, batch=4, checkpoint_every=2, warmup=1)
    return config


def classifier(files, root, **changes):
    config = labelled(files, root, RESNET, **dict(train__prior=None) | changes)
    config["train"]["recipe"] |= dict(optimiser="sgd", learning_rate=0.1, ema=0.5)
    return config


@pytest.fixture(scope="module")
def straight(files, root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return train.train_weights(
        train.prepare(classifier(files, root), folder), progress=False
    )


@pytest.mark.slow
def test_a_classifier_is_trained_and_read_by_name(straight, root):
    own, record = hub.load_classifier(straight)
    assert own.classes == 2 and record["image_shape"] == [16, 16, 1]
    quality = record["quality"]
    assert quality.keys() == {"train", "test"} and record["counts"]["test"] == 12
    assert 0.4 <= quality["test"]["accuracy"] <= quality["test"]["confidence"] + 0.6
    with np.load(root / "classes.npz") as archive:
        images = np.float32(archive["train_images"][..., None] / 255)
        labels = archive["train_labels"]
    right = np.mean(
        [own.predict(x) == y for x, y in zip(jnp.asarray(images), labels, strict=True)]
    )
    assert right == quality["test"]["accuracy"]
    # The statistics are those of images seen, no longer the first ones.
    mean = own.variables["batch_stats"]["stem_norm"]["mean"]
    assert np.abs(mean).max() > 1e-3
    card = straight.with_suffix(".md").read_text()
    assert "| held-out images | 12 |" in card and record["sha256"] in card
    assert not (straight.parent / "samples.png").exists()


@pytest.mark.slow
def test_a_killed_classifier_goes_on_bit_for_bit(
    straight, files, root, tmp_path, monkeypatch
):
    def write(path, rows, write=steps._write_log):
        write(path, rows)
        if rows[-1][0] == 4:  # a checkpoint of step 2 is there
            raise KeyboardInterrupt

    settings = classifier(files, root)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "_write_log", write)
        with pytest.raises(KeyboardInterrupt):
            train.train_weights(train.prepare(settings, tmp_path), progress=False)
    resumed = train.train_weights(train.prepare(settings, tmp_path), progress=False)
    pairs = map(jax.tree.leaves, (load_weights(resumed)[0], load_weights(straight)[0]))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_prior_is_told_the_class(files, root, tmp_path, monkeypatch):
    monkeypatch.setattr(trained_prior, "ERROR_LEVELS", (0.1, 1.0))
    job = train.prepare(labelled(files, root, UNET), tmp_path)
    path = train.train_weights(job, progress=False)
    prior, record = hub.load(path)
    assert isinstance(prior, Labelled) and prior.classes == 2
    errors = record["errors"]
    names = {"train", "test", "train_labelled", "test_labelled"}
    assert names < errors.keys() and errors["errors"] == errors["train"]
    assert "| held-out, told the class |" in path.with_suffix(".md").read_text()
    with Image.open(tmp_path / "samples.png") as image:
        assert image.size == (6 * 16, 3 * 16)  # both classes and none


def test_labels_and_dropout_reach_the_loss(files, root, tmp_path, monkeypatch):
    # What takes seconds is tried elsewhere.
    monkeypatch.setattr(trained_prior.TrainedPrior, "init", lambda self, key: None)
    monkeypatch.setattr(train, "_check_step", lambda job: None)
    config = labelled(files, root, UNET, train__recipe__label_dropout=0.25)
    job = train.prepare(config, tmp_path)
    assert job.recipe.label_dropout == 0.25 and job.trained.classes == 2
    images, labels = job.source.arrays
    assert images.dtype == np.uint8 and labels.tolist() == [0, 1] * 6
    image, label = job.source.draw(job.source.arrays, jax.random.key(0))
    assert image.dtype == np.float32 and (image.mean() > 0.5) == (label == 1)


def array(name):
    return dict(id=("classes.npz", f"{name}_images"))


BAD = {
    "no labels": (
        dict(train__data__groups=array("bare")),
        "train.data: these images have no labels, but the network knows 2 classes",
    ),
    "no labels to test": (
        dict(train__test__groups=array("bare")),
        "train.test: these images have no labels",
    ),
    "class": (
        dict(train__data__groups=array("three")),
        "'id_00002' has the label 2, but train.net has the classes 0 .. 1",
    ),
    "prior": (
        dict(train__prior=tiny.PRIOR),
        "resnet.ResNet' is a classifier, which has no prior; set train.prior=None",
    ),
    "channels": (
        dict(train__net__mean=(0.5, 0.5, 0.5)),
        "images of 1 channels, but mean has 3 numbers",
    ),
    "stem": (dict(train__net__stem="vgg"), "stem='vgg': must be of"),
    "net": (
        dict(train__net=tiny.NET),
        "train.prior=None, as for a classifier, but 'unet.UNet' is none",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_trained_is_refused_before_the_claim(
    files, root, tmp_path, case
):
    changes, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        train.prepare(classifier(files, root, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_without_classes_stay_as_they_were(files, root):
    images = train.build("data", labelled(files, root, UNET)["train"]["data"])
    assert as_source(images).arrays.dtype == np.float32
    assert as_bytes(images).dtype == np.uint8
    np.testing.assert_allclose(as_bytes(images) / 255, images.images, atol=1e-6)
    assert checked_labels(images, 2, "here").tolist() == [0, 1] * 6
    # What is no byte stays what it is.
    dark = images.take([0, 1])
    object.__setattr__(
        dark,
        "reader",
        lambda i: images.read(i)._replace(images=0.3 * images.read(i).images),
    )
    assert as_bytes(dark).dtype == np.float32


def test_phantoms_have_no_labels():
    source = train.build("data", dict(name="phantom_set.source", size=32))
    with pytest.raises(ValueError, match="a source of images with no labels"):
        as_source(source, 3)
