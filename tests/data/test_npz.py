import numpy as np
import pytest
import tiny

from klip_jax.data import base_npz, npz

RNG = np.random.default_rng(0)


@pytest.fixture
def grouped(tmp_path):
    return tiny.write_data(tmp_path / "data.npz", 6)


@pytest.fixture
def plain(tmp_path):
    split = np.array([0, 1, 0, 1, 1])
    images = RNG.integers(50, 256, (5, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "p.npz", images=images, split=split, patient=np.arange(5) // 2)
    return tmp_path, images


def test_groups_with_what_is_known(grouped):
    root = str(grouped.parent)
    loaded = npz.load(file="data.npz", root=root, groups=("lesion", "id"), per_group=4)
    with np.load(grouped) as data:
        expected = np.concatenate([data["lesion_images"][:4], data["id_images"][:4]])
        np.testing.assert_allclose(loaded.images[..., 0], expected / 255, rtol=1e-6)
        np.testing.assert_array_equal(loaded.masks[:4], data["lesion_masks"][:4] > 0)
        np.testing.assert_array_equal(loaded.eligible[4:], data["id_eligible"][:4] > 0)
    assert loaded.images.dtype == np.float32 and loaded.masks.dtype == bool
    assert loaded.ids[3:5] == ("lesion_0003", "id_0000")
    assert loaded.groups == ("lesion",) * 4 + ("id",) * 4
    assert loaded.patients == ("100", "100", "101", "101", "0", "0", "1", "1")
    # No masks were given for the healthy.
    assert loaded.masks.shape == (8, 4 * 4, 16) and not loaded.masks[4:].any()


def test_one_array_of_images_and_its_splits(plain):
    root, images = plain
    loaded = npz.load(file="p.npz", root=str(root), offset=50, scale=205)
    np.testing.assert_allclose(loaded.images[..., 0], (images - 50.0) / 205, atol=1e-6)
    assert loaded.groups == ("id",) * 5 and loaded.masks is None
    test = npz.load(file="p.npz", root=str(root), split="test", per_group=2)
    np.testing.assert_allclose(test.images[..., 0], images[[1, 3]] / 255, rtol=1e-6)
    assert test.ids == ("p_00001", "p_00003") and test.patients == ("0", "1")
    train = npz.load(file="p.npz", root=str(root), split="train")
    assert train.ids == ("p_00000", "p_00002")


def test_squares_of_pixels_become_one(grouped):
    settings = dict(file="data.npz", root=str(grouped.parent), groups=("lesion", "id"))
    fine, coarse = npz.load(**settings), npz.load(**settings, shrink=2)
    mean = fine.images.reshape(12, 8, 2, 8, 2, 1).mean((2, 4))
    np.testing.assert_allclose(coarse.images, mean, atol=1e-6)
    for name in ("masks", "eligible", "body"):
        share = getattr(fine, name).reshape(12, 8, 2, 8, 2).mean((2, 4))
        np.testing.assert_array_equal(getattr(coarse, name), share >= 0.5)
    with pytest.raises(
        ValueError, match=r"16x16, which data\.shrink=3 does not divide"
    ):
        npz.load(**settings, shrink=3)
    with pytest.raises(ValueError, match=r"data\.shrink=0: the side of a square"):
        npz.load(**settings, shrink=0)


def test_healthy_images_and_their_body(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    images[:, 2:6, 2:6] = 200
    images[:, 3, 3] = 0  # a hole is inside
    area = np.array([0, 5, 0, 0])
    split = np.array([0, 0, 0, 1])
    np.savez(tmp_path / "b.npz", images=images, tumour=area, split=split)
    settings = dict(file="b.npz", root=str(tmp_path), healthy="tumour", inside=0.5)
    loaded = npz.load(**settings, split="train")
    assert loaded.ids == ("b_00000", "b_00002")
    expected = np.zeros((8, 8), bool)
    expected[2:6, 2:6] = True
    np.testing.assert_array_equal(loaded.body, [expected, expected])
    np.testing.assert_array_equal(loaded.eligible, loaded.body)
    with pytest.raises(ValueError, match=r"no array 'tumor'; it has .*'tumour'"):
        npz.load(**settings | dict(healthy="tumor"))
    with pytest.raises(ValueError, match=r"data\.healthy='tumour' is for `images`"):
        npz.load(**settings, groups=("id",))


def test_an_oval_is_the_body_of_aligned_images(tmp_path):
    masks = np.zeros((2, 20, 10), np.uint8)
    masks[1, 3:5, 2] = 1
    images = np.zeros((2, 20, 10), np.uint8)
    np.savez(tmp_path / "o.npz", images=images, masks=masks)
    settings = dict(file="o.npz", root=str(tmp_path))
    assert npz.load(**settings).eligible is None
    loaded = npz.load(**settings, oval=(0.5, 0.4, 0.25, 0.4))
    np.testing.assert_array_equal(loaded.masks, masks > 0)
    # Half axes of 5 rows and 4 columns around (10, 4) in units of pixels.
    assert loaded.body.sum(1).max() == 10 and loaded.body.sum(2).max() == 8
    assert loaded.body[0, 5, 3:5].all() and not loaded.body[0, 4].any()
    assert abs(loaded.body[0].sum() - np.pi * 5 * 4) < 4
    np.testing.assert_array_equal(loaded.eligible, loaded.body)
    for oval in ((0.5, 0.4, 0.25), (0.5, 0.4, 0.0, 0.4)):
        with pytest.raises(ValueError, match=r"data\.oval=.*give centre and half axes"):
            npz.load(**settings, oval=oval)


def test_a_part_is_held_out_by_patient(tmp_path):
    patient = np.array(["b"] * 3 + ["a"] * 5 + ["c", "d"])
    images = np.zeros((10, 4, 4), np.uint8)
    np.savez(tmp_path / "p.npz", images=images, patient=patient, split=np.zeros(10))
    np.savez(tmp_path / "q.npz", images=images)

    def load(part, file="p.npz", **settings):
        loaded = npz.load(file=file, root=str(tmp_path), part=part, **settings)
        return loaded.ids if loaded.patients is None else loaded.patients

    assert load((0, 0.5)) == ("b",) * 3 + ("a",) * 5
    assert load((0.5, 1), split="train") == ("c", "d")
    assert load((0.0, 0.9), "q.npz") == tuple(f"q_{i:05d}" for i in range(9))
    assert load((0.9, 1.0), "q.npz") == ("q_00009",)
    with pytest.raises(ValueError, match=r"data\.part=\(0\.9, 0\.1\): give shares"):
        load((0.9, 0.1))
    with pytest.raises(ValueError, match="is for `images`, not for groups"):
        load((0.0, 0.9), groups=("id",))


def test_the_root_may_be_in_the_environment(plain, monkeypatch):
    root, _ = plain
    monkeypatch.setenv("KLIP_DATA", str(root))
    assert len(npz.load(file="p.npz").ids) == 5
    with pytest.raises(FileNotFoundError, match=r"q\.npz: no such data; .*KLIP_DATA"):
        npz.load(file="q.npz")


def test_colour_and_floats_pass(tmp_path):
    images = RNG.uniform(size=(3, 4, 5, 3))
    np.savez(tmp_path / "c.npz", images=images)
    loaded = npz.load(file="c.npz", root=str(tmp_path), scale=1.0)
    np.testing.assert_allclose(loaded.images, images, rtol=1e-6)


def test_rounding_below_the_range_is_clipped_and_more_is_not(tmp_path):
    images = np.full((2, 3, 3), 100, np.uint8)
    images[0, 0] = 49
    np.savez(tmp_path / "d.npz", images=images)
    settings = dict(file="d.npz", root=str(tmp_path), offset=50, scale=205)
    assert npz.load(**settings).images.min() == 0
    images[0, 0] = 47
    np.savez(tmp_path / "d.npz", images=images)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], found \[-0\.0146"):
        npz.load(**settings)


BAD = {
    "no group": (
        dict(groups=("id", "cat")),
        r"no group 'cat'; it has \['id', 'lesion'",
    ),
    "no images": (dict(), r"no array 'images'; it has \['id_body'"),
    "split": (dict(groups=("id",), split="test"), "data.split='test' is for `images`"),
    "scale": (dict(groups=("id",), scale=0), "data.scale=0"),
    "range": (
        dict(groups=("id",), scale=99),
        "data.npz, id_images: images must lie in",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_named(grouped, case):
    settings, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        npz.load(file="data.npz", root=str(grouped.parent), **settings)


def test_splits_need_a_split(plain, tmp_path):
    np.savez(tmp_path / "p.npz", images=np.zeros((2, 4, 4)))
    settings = dict(file="p.npz", root=str(tmp_path))
    with pytest.raises(ValueError, match="no array 'split'"):
        npz.load(split="test", **settings)
    with pytest.raises(ValueError, match="'train', 'test' or '', got 'val'"):
        npz.load(split="val", **settings)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            dict(images=np.zeros((4, 4))),
            r"images must be \[N, H, W\(, C\)\], got \(4, 4",
        ),
        (dict(images=np.zeros((0, 4, 4))), r"got \(0, 4, 4\)"),
        (dict(images=np.where(np.eye(3)[None] > 0, np.nan, 1)), "3 pixels are NaN"),
        (dict(images=np.array([None, "a"], object)), "not a whole, plain .npz"),
    ],
)
def test_images_that_are_none(tmp_path, arrays, words):
    np.savez(tmp_path / "e.npz", **arrays, allow_pickle=True)
    with pytest.raises(ValueError, match=words):
        npz.load(file="e.npz", root=str(tmp_path))


def test_masks_and_groups_must_fit(tmp_path):
    images = np.zeros((3, 4, 4))
    settings = dict(file="f.npz", root=str(tmp_path))
    np.savez(tmp_path / "f.npz", a_images=images, a_masks=images[:, :2])
    with pytest.raises(
        ValueError, match=r"a_masks is \(3, 2, 4\).*images are \(3, 4, 4"
    ):
        npz.load(groups=("a",), **settings)
    np.savez(tmp_path / "f.npz", a_images=images, a_masks=images[:2])
    with pytest.raises(ValueError, match=r"a_masks is \(2, 4, 4\)"):
        npz.load(groups=("a",), **settings)
    np.savez(tmp_path / "f.npz", a_images=images, b_images=images[:, :2])
    with pytest.raises(ValueError, match=r"differ in size: .* in 'b', .* in 'a'"):
        npz.load(groups=("a", "b"), **settings)


def test_a_truncated_file_is_named(grouped):
    whole = grouped.read_bytes()
    for keep in (0, 50, len(whole) // 2, len(whole) - 1):
        grouped.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"data\.npz: not a whole, plain \.npz"):
            npz.load(file="data.npz", root=str(grouped.parent), groups=("id",))


def test_the_real_slices_can_be_read(shared_data):
    root = str(shared_data / "data")
    groups = ("id", "lesion_mid")
    greys = dict(root=root, offset=50.0, scale=205.0, per_group=3)
    loaded = npz.load(file="abdomen_ood_64.npz", groups=groups, **greys)
    assert loaded.images.shape == (6, 64, 64, 1)
    assert loaded.masks[3:].any((1, 2)).all() and not loaded.masks[:3].any()
    # A lesion was put where one could have been.
    for mask, eligible in zip(loaded.masks[3:], loaded.eligible[3:], strict=True):
        assert (mask & eligible).any()
    train = npz.load(file="abdomen_ct_64.npz", split="train", **greys)
    assert train.images.shape == (3, 64, 64, 1)


def test_masks_of_labels(tmp_path):
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[:, 1:7, 1:7], labels[:, 3:6, 3:6] = 1, 2
    images = RNG.integers(0, 256, (2, 8, 8), np.uint8)
    np.savez(tmp_path / "l.npz", a_images=images, a_masks=labels)
    settings = dict(file="l.npz", root=str(tmp_path), groups=("a",))
    with pytest.raises(ValueError, match=r"labels 0, 1, 2; say with data\.label"):
        npz.load(**settings)
    loaded = npz.load(**settings, label=2)
    assert loaded.masks.sum() == 2 * 9 and loaded.regions == ("masks",)
    assert npz.load(**settings, label=2, shrink=2).masks[0].sum() == 3


def test_more_images_than_there_are_is_said(grouped):
    settings = dict(file="data.npz", root=str(grouped.parent), groups=("id",))
    with pytest.raises(ValueError, match=r"per_group=500, but 'id' of .*has 6 images"):
        npz.load(**settings, per_group=500)
    with pytest.raises(ValueError, match="per_group=-1"):
        npz.load(**settings, per_group=-1)


def test_only_what_is_asked_for_is_read(tmp_path):
    images = RNG.integers(0, 256, (3, 4, 4), np.uint8)
    other = np.array([None], object)  # would not be read without pickle
    np.savez(tmp_path / "o.npz", images=images, notes=other, allow_pickle=True)
    assert len(npz.load(file="o.npz", root=str(tmp_path))) == 3
    shapes = base_npz.array_shapes(tmp_path / "o.npz")
    assert shapes["images"] == (3, 4, 4) and shapes["notes"] == (1,)
    with pytest.raises(ValueError, match=r"o\.npz: no array 'y'; it has"):
        base_npz.read_arrays(tmp_path / "o.npz", ["y"])


def test_images_under_the_same_name_are_another_set(grouped):
    settings = dict(file="data.npz", root=str(grouped.parent), groups=("id", "lesion"))
    before = npz.load(**settings).digest()
    with np.load(grouped) as archive:
        arrays = dict(archive)
    arrays["lesion_masks"][0, 0, 0] ^= 1
    np.savez(grouped, **arrays)
    assert npz.load(**settings).digest() != before
