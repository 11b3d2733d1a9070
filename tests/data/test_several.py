"""Sets of different readers in one config, through what a run does with it."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from klip_jax.config import build
from klip_jax.run.named_images import image_sets

BYTES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "own.npz", test_images=BYTES, test_labels=np.arange(4))
    return tmp_path


def pictures(folder, name="id"):
    groups = {name: ("own.npz", "test_images")}
    return dict(name="npz.load_arrays", groups=groups, root=str(folder))


NOISE = dict(name="noise.load", groups=("gaussian", "blobs"), per_group=2)
NOISE["shape"] = (8, 8, 1)


@pytest.mark.parametrize("kind", ["named", "tuple"])
def test_a_config_of_several(folder, kind):
    parts = dict(a_pictures=pictures(folder), noise=NOISE)
    data = parts if kind == "named" else tuple(parts.values())
    data = dict(name="several.load", data=data, measurements="")
    config = ConfigDict(dict(data=data, calibration=dict(healthy=None))).to_dict()
    images = image_sets(config)["data"]
    assert images.groups == ("id",) * 4 + ("gaussian",) * 2 + ("blobs",) * 2
    assert images.labels == (0, 1, 2, 3, -1, -1, -1, -1)
    np.testing.assert_allclose(images.images[:4, ..., 0] * 255, BYTES, atol=1e-4)


def test_one_of_several_is_changed_by_its_name(folder):
    config = ConfigDict(dict(data=dict(name="several.load", data=dict(noise=NOISE))))
    config.data.data.noise.per_group = 3
    assert len(build("data", config.to_dict()["data"])) == 6


def test_groups_do_not_clash(folder):
    def load(data):
        return build("data", dict(name="several.load", data=data))

    clash = dict(a=pictures(folder, "blobs"), b=NOISE)
    words = r"group 'blobs' is in data\.data\.a and in data\.data\.b; give each"
    with pytest.raises(ValueError, match=words):
        load(clash)
    with pytest.raises(ValueError, match=r"'id' is in data\.data\.0 and in data\.data"):
        load((pictures(folder), pictures(folder)))
    with pytest.raises(ValueError, match=r"data\.data\.s is a Source, not an ImageSet"):
        load(dict(s=dict(name="phantom_set.source")))
    with pytest.raises(ValueError, match=r"data\.data\.0 is a str, not an ImageSet"):
        load(("npz.load",))
    with pytest.raises(ValueError, match=r"data\.data is empty"):
        load(())
    with pytest.raises(ValueError, match="the groups differ in size"):
        load((pictures(folder), NOISE | dict(shape=(8, 8, 3))))
