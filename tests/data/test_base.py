"""A set reads what it is asked for, and knows itself by its pixels."""

import numpy as np
import pytest

from klip_jax.data.base import Images, ImageSet, count_of, in_memory, natural
from klip_jax.data.base_join import join

RNG = np.random.default_rng(0)
PIXELS = np.float32(RNG.uniform(size=(5, 4, 3, 1)))
MASKS = RNG.uniform(size=(5, 4, 3)) > 0.5
IDS = tuple(f"image {i} (ä).v1" for i in range(5))


def make(**changes):
    settings = dict(masks=MASKS, patients=("a", "a", "b", "b", "c")) | changes
    return in_memory(PIXELS, IDS, ("id",) * 3 + ("x",) * 2, **settings)


def test_a_set_in_memory():
    made = make()
    assert len(made) == 5 and made.shape == (4, 3, 1) and made.regions == ("masks",)
    some = made.read([3, 0, 3])
    np.testing.assert_array_equal(some.images, PIXELS[[3, 0, 3]])
    np.testing.assert_array_equal(some.masks, MASKS[[3, 0, 3]])
    assert some.eligible is None and some.body is None
    np.testing.assert_array_equal(made.images, PIXELS)
    np.testing.assert_array_equal(made.masks, MASKS)
    assert made.eligible is None and made.body is None


def test_a_part_of_a_part():
    part = make().take([4, 1, 2]).take(np.array([2, 0]))
    assert part.ids == (IDS[2], IDS[4]) and part.groups == ("id", "x")
    assert part.patients == ("b", "c")
    np.testing.assert_array_equal(part.images, PIXELS[[2, 4]])
    assert make(patients=None).take([0]).patients is None


def test_nothing_is_read_before_it_is_asked_for():
    asked = []

    def reader(index):
        asked.append(list(index))
        return Images(PIXELS[index])

    made = ImageSet(IDS, ("id",) * 5, (4, 3, 1), reader)
    made = join([made.take([0, 1]), made.take([4, 2])])
    assert asked == []
    np.testing.assert_array_equal(made.read([3, 0]).images, PIXELS[[2, 0]])
    assert sorted(asked) == [[0], [2]]
    asked.clear()
    assert made.images is made.images and len(asked) == 2  # once, of each part


def test_the_digest_is_of_every_pixel_and_name():
    first = make().digest()
    assert first == make().digest() and len(first) == 64
    pixels = PIXELS.copy()
    pixels[4, 3, 2, 0] += 1e-6
    masks = MASKS ^ (np.arange(60).reshape(5, 4, 3) == 59)
    others = [
        in_memory(pixels, IDS, make().groups, masks=MASKS, patients=make().patients),
        make(masks=masks),
        make(masks=None),
        make(masks=None, eligible=MASKS),
        make(patients=None),
        make().take([1, 0, 2, 3, 4]),
        make().take(range(4)),
    ]
    digests = {first, *(other.digest() for other in others)}
    assert len(digests) == 8
    assert join([make().take([0, 1]), make().take([2, 3, 4])]).digest() == first


def test_where_only_some_know_a_region():
    known, open_ = make(body=MASKS).take([0, 1]), make(masks=None).take([2])
    both = join([open_, known])
    assert both.regions == ("masks", "body") and both.eligible is None
    assert not both.masks[0].any() and both.body[0].all()
    np.testing.assert_array_equal(both.body[1:], MASKS[:2])
    np.testing.assert_array_equal(both.read([2, 0]).images, PIXELS[[1, 2]])
    assert join([known, make(patients=None)]).patients is None


def test_sets_that_do_not_fit():
    wide = in_memory(PIXELS[:, :2], IDS, ("wide",) * 5)
    with pytest.raises(ValueError, match=r"differ in size: .* in 'wide', .* in 'id'"):
        join([make(), wide])
    with pytest.raises(ValueError, match="name at least one group"):
        join([])
    with pytest.raises(ValueError, match=r"masks are \(5, 2, 3\), but the images"):
        make(masks=MASKS[:, :2])


def test_counts_of_a_group():
    assert count_of(0, 7, "x") == 7 and count_of(3, 7, "x") == 3
    with pytest.raises(ValueError, match="per_group=-1: at least 1, or 0 for all"):
        count_of(-1, 7, "x")
    with pytest.raises(ValueError, match="per_group=8, but x has 7 images"):
        count_of(8, 7, "x")


def test_two_comes_before_ten():
    names = ["b10", "b9", "a", "b9.5", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a", "b9", "b9.5", "b10"]
