"""Keys are made of names, and do not collide."""

import hashlib

import jax
import numpy as np

from klip_jax import keys


def test_the_words_are_those_of_sha_256():
    digest = hashlib.sha256(b"scan 1").hexdigest()
    words = keys.words("scan 1")
    assert words.dtype == np.uint32 and f"{words[0]:08x}{words[1]:08x}" == digest[:16]


def test_an_image_s_key_depends_on_its_name_alone():
    many = keys.image_keys(3, ["a", "b", "ü"])
    one = keys.image_keys(3, ["b"])
    assert many[1] == one[0] and many[0] != many[1]
    root = jax.random.key(3)
    words = keys.words("b")
    expected = jax.random.fold_in(jax.random.fold_in(root, words[0]), words[1])
    assert one[0] == expected
    assert keys.image_keys(4, ["b"])[0] != one[0]


def test_names_whose_crc32_is_one_have_keys_of_their_own():
    # "plumless" and "buckeroo" have one CRC32, by which keys were made once.
    a, b = keys.image_keys(0, ["plumless", "buckeroo"])
    assert a != b
