"""Labels go with their images: taken, joined, read from files and drawn."""

import jax
import numpy as np
import pytest

from klip_jax.data import npz
from klip_jax.data.base import in_memory, labelled_source
from klip_jax.data.base_join import join

RNG = np.random.default_rng(0)
PIXELS = np.float32(RNG.uniform(size=(4, 3, 3, 1)))
BYTES = RNG.integers(0, 256, (4, 3, 3), np.uint8)


def make(labels=(3, 0, 1, -1)):
    return in_memory(PIXELS, "abcd", ("id",) * 3 + ("x",), labels=labels)


def test_labels_follow_their_images():
    images = make()
    assert images.labels == (3, 0, 1, -1)
    assert images.take([3, 1]).take([1]).labels == (0,)
    assert join([images.take([2]), images.take([0])]).labels == (1, 3)
    unknown = make(None)
    assert unknown.labels is None and unknown.take([1]).labels is None
    assert join([images, unknown]).labels is None
    assert len({images.digest(), unknown.digest(), make((3, 0, 2, -1)).digest()}) == 3
    assert make(np.array([3, 0, 1, -1])).digest() == images.digest()
    with pytest.raises(ValueError, match="3 labels for 4 images"):
        make((1, 2, 3))


def test_labelled_images_are_drawn_in_pairs():
    source = labelled_source(PIXELS, (3, 0, 1, 7))
    keys = jax.random.split(jax.random.key(0), 40)
    drawn = jax.jit(jax.vmap(source.draw, (None, 0)))(source.arrays, keys)
    images, labels = map(np.asarray, drawn)
    assert labels.dtype == np.int32 and set(labels.tolist()) == {0, 1, 3, 7}
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_array_equal(image, PIXELS[(3, 0, 1, 7).index(label)])
    with pytest.raises(ValueError, match="image 2 has the label -1, which is no class"):
        labelled_source(PIXELS, (3, 0, -1, 7))
    with pytest.raises(ValueError, match="1 labels for 4 images"):
        labelled_source(PIXELS, (3,))


def test_files_know_labels(tmp_path):
    own, far = np.uint8([5, 6, 7, 8]), np.uint8([0, 1, 2, 3])
    np.savez(
        tmp_path / "g.npz", id_images=BYTES, id_labels=own, x_images=BYTES, x_labels=far
    )
    settings = dict(file="g.npz", root=str(tmp_path), per_group=2)
    assert npz.load(**settings, groups=("x", "id")).labels == (-1, -1, 5, 6)
    split = np.array([0, 1, 0, 1])
    np.savez(tmp_path / "p.npz", images=BYTES, labels=own, split=split)
    plain = dict(file="p.npz", root=str(tmp_path))
    assert npz.load(**plain, split="test").labels == (6, 8)
    np.savez(tmp_path / "u.npz", images=BYTES, test_images=BYTES)
    assert npz.load(file="u.npz", root=str(tmp_path)).labels is None
    # Names of classes and numbers with a fraction are no labels.
    np.savez(tmp_path / "f.npz", images=BYTES, labels=own / 2)
    assert npz.load(file="f.npz", root=str(tmp_path)).labels is None
    np.savez(tmp_path / "w.npz", images=BYTES, labels=own[:3])
    with pytest.raises(ValueError, match=r"w\.npz: 3 numbers in 'labels' for 4 images"):
        npz.load(file="w.npz", root=str(tmp_path))


def test_labels_of_arrays_in_different_files(tmp_path):
    labels = np.arange(4)
    np.savez(tmp_path / "own.npz", test_images=BYTES, test_labels=labels, images=BYTES)
    np.savez(tmp_path / "far.npz", images=BYTES, labels=labels)
    groups = dict(id=("own.npz", "test_images"), digit=("far.npz", "images"))
    settings = dict(root=str(tmp_path), per_group=2)
    assert npz.load_arrays(groups=groups, **settings).labels == (0, 3, -1, -1)
    groups["id"] = ("own.npz", "images")
    assert npz.load_arrays(groups=groups, **settings).labels is None


def test_the_real_digits_have_labels(shared_data):
    groups = dict(id=("mnist_28.npz", "test_images"))
    root = str(shared_data / "data")
    digits = npz.load_arrays(groups=groups, root=root, per_group=20)
    assert set(digits.labels) <= set(range(10)) and len(digits.labels) == 20
