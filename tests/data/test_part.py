"""A share of a set by patient: nobody is on both sides, and nobody moves."""

import numpy as np
import pytest

from klip_jax.config import build
from klip_jax.data import part
from klip_jax.data.base import in_memory


@pytest.fixture(scope="module")
def images():
    ids = [f"image {i}" for i in range(60)]
    patients = tuple(f"patient {i // 3}" for i in range(60))
    pixels = np.arange(60, dtype=np.float32).reshape(60, 1, 1, 1) / 60
    groups = ["id" if i % 2 else "odd" for i in range(60)]
    return in_memory(pixels, ids, groups, patients=patients)


def test_the_shares_divide_the_patients(images):
    parts = [part.load(data=images, share=s) for s in ((0, 0.6), (0.6, 0.9), (0.9, 1))]
    patients = [set(p.patients) for p in parts]
    assert set.union(*patients) == set(images.patients)
    assert sum(map(len, patients)) == 20 and sum(map(len, parts)) == 60
    for own in parts:
        places = [part.place(name) for name in own.patients]
        assert np.ptp(places) < 0.6
        # Pixels go with their names.
        numbers = [int(name.split()[1]) for name in own.ids]
        np.testing.assert_allclose(own.images.ravel(), np.float32(numbers) / 60)


def test_a_patient_stays_when_others_come(images):
    few = images.take(range(30))
    kept = set(part.load(data=few).ids)
    assert kept == set(part.load(data=images).ids) & set(few.ids)


def test_groups_and_a_limit(images):
    own = part.load(data=images, share=(0.0, 1.0), groups=("id",), most=7)
    assert set(own.groups) == {"id"} and len(own) == 7
    assert own.ids[0] == "image 1" and own.ids[-1] == "image 59"  # evenly spaced


def test_what_cannot_be_shared(images):
    with pytest.raises(ValueError, match="give 0 <= lowest < highest <= 1"):
        part.load(data=images, share=(0.9, 0.1))
    with pytest.raises(ValueError, match="none of the 20 patients of 60 images"):
        part.load(data=images, groups=("lesion",))
    with pytest.raises(ValueError, match="not an ImageSet"):
        build("data", dict(name="part.load", data=3))
