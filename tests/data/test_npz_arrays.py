"""Groups whose images lie in different files."""

import numpy as np
import pytest

from klip_jax.data import npz

RNG = np.random.default_rng(0)


def test_groups_from_different_files(tmp_path):
    own = RNG.integers(0, 256, (6, 4, 4), dtype=np.uint8)
    far = np.repeat(np.arange(9, dtype=np.uint8), 16).reshape(9, 4, 4)
    np.savez(tmp_path / "own.npz", test_images=own)
    np.savez(tmp_path / "far.npz", images=far)
    groups = dict(id=("own.npz", "test_images"), digit=["far.npz", "images"])
    loaded = npz.load_arrays(groups=groups, root=str(tmp_path), per_group=3)
    assert loaded.groups == ("id",) * 3 + ("digit",) * 3 and loaded.masks is None
    # Evenly spaced: a file sorted by class gives all its classes.
    assert loaded.ids[3:] == ("digit_00000", "digit_00004", "digit_00008")
    np.testing.assert_allclose(loaded.images[3:, 0, 0, 0] * 255, [0, 4, 8], atol=1e-5)
    np.testing.assert_allclose(loaded.images[1, ..., 0] * 255, own[2], atol=1e-4)
    groups["digit"] = ("far.npz", "images", 0.0, 8.0)  # greys of its own
    loaded = npz.load_arrays(groups=groups, root=str(tmp_path), per_group=3)
    np.testing.assert_allclose(loaded.images[3:, 0, 0, 0], [0, 0.5, 1])
    np.testing.assert_allclose(loaded.images[1, ..., 0] * 255, own[2], atol=1e-4)
    groups["digit"] = ("far.npz", "images", 0.0)
    with pytest.raises(ValueError, match=r"digit: give \(file, array\) or"):
        npz.load_arrays(groups=groups, root=str(tmp_path))
    groups["digit"] = ("far.npz", "images")
    with pytest.raises(ValueError, match=r"per_group=7, but .*own\.npz, .* has 6"):
        npz.load_arrays(groups=groups, root=str(tmp_path), per_group=7)
    groups["digit"] = ("far.npz", "test_images")
    with pytest.raises(ValueError, match="no array 'test_images'; it has"):
        npz.load_arrays(groups=groups, root=str(tmp_path))
    groups["digit"] = ("absent.npz", "images")
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such data"):
        npz.load_arrays(groups=groups, root=str(tmp_path))


def test_a_part_of_each_file(tmp_path):
    images = np.repeat(np.arange(10, dtype=np.uint8), 16).reshape(10, 4, 4)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(10))
    settings = dict(groups=dict(id=("a.npz", "images")), root=str(tmp_path))
    assert npz.load_arrays(**settings, part=(0, 0.3)).labels == (0, 1, 2)
    last = npz.load_arrays(**settings, part=(0.3, 1.0), per_group=3)
    assert last.labels == (3, 6, 9) and last.ids[0] == "id_00003"
    np.testing.assert_allclose(last.images[:, 0, 0, 0] * 255, [3, 6, 9], atol=1e-5)
    words = r"per_group=4, but part of .*a\.npz, images has 3 images"
    with pytest.raises(ValueError, match=words):
        npz.load_arrays(**settings, part=(0, 0.3), per_group=4)
