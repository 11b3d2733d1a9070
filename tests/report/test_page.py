import base64
import hashlib
import html
import io
import re

import numpy as np
import pytest
from fake_page import page_text, write_page
from fake_results import DETECTORS, fake_image, fake_set
from PIL import Image

from klip_jax.report import finish, page

HOSTILE = '"><script>alert("x")</script>{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return page_text(tmp_path_factory.mktemp("page"), fake_set(2))


def names_shown(text):
    return re.findall(
        r'<article class="card" id="[^"]+"[^>]* data-name="([^"]+)"', text
    )


def test_the_pictures_are_on_the_page_and_small(text):
    inline = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    # Naive inversion, reconstruction, map, overlay of both, truth, two controls' maps.
    assert len(inline) == 4 * 8
    pictures = [base64.b64decode(png) for png in inline]
    assert max(map(len, pictures)) < 8_000
    assert {Image.open(io.BytesIO(png)).size for png in pictures} == {(32, 32)}
    for said in ("Naive inversion", "Reconstruction", "Overlay", "Truth", "klip map"):
        assert f"<figcaption>{said}" in text


def test_no_network_and_one_script_that_its_hash_allows(text):
    assert not re.search(r"<link|https?://|@import|url\((?!#)|<iframe| on\w+=", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    rules = dict(
        rule.strip().split(" ", 1) for rule in html.unescape(policy).split(";")
    )
    assert rules == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
    }


def test_every_link_leads_somewhere(text):
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    files = [h for h in re.findall(r'href="([^"]+)"', text) if h[0] != "#"]
    assert files == ["config.json", "maps.zarr", "scores/part-00000.parquet"]


def test_what_is_said_is_text(text):
    for said in ("position template", "klip minus this", "whole body", "klip/tilt"):
        assert said in text
    assert "energy of the noise (median;" in text and "geometry" not in text
    assert "klip/density" not in text
    # What nobody set is not listed.
    assert "noise_std 0.1" in text and "<dt>measurements" not in text


def test_names_come_from_the_run(tmp_path):
    """Nothing on the page knows what a detector is called."""
    detectors = {n: d for n, d in DETECTORS.items() if n != "klip"}
    text = page_text(tmp_path, fake_set(2), main="gradient", detectors=detectors)
    assert "gradient minus this" in text and "gradient map" in text
    assert not re.search("klip(?!-theme|_jax)", text, re.IGNORECASE)


@pytest.mark.parametrize(("misfit", "said"), [(9.0, "geometry"), (0.1, "is larger")])
def test_data_that_do_not_fit_are_named(tmp_path, misfit, said):
    images = [image | {"misfit": misfit} for image in fake_set(2)]
    text = page_text(tmp_path, images)
    assert said in text and "4 images do not fit the measurement" in text
    assert len(re.findall(r"<article[^>]* misfit", text)) == 4


def test_hostile_text_is_escaped(tmp_path):
    images = [fake_image("id_0"), fake_image("x_0", HOSTILE)]
    images[0]["image_id"] = HOSTILE
    about = {"unit": HOSTILE, "about": HOSTILE, "curves": [HOSTILE] * 3}
    detectors = {"klip": DETECTORS["klip"] | about}
    text = page_text(tmp_path, images, detectors=detectors)
    assert text.count("<script") == 1 and 'alert("x")' not in text
    assert text.count("{{ 7 * 7 }}") == text.count("&lt;/script&gt;{{ 7 * 7 }}") >= 8


def test_without_truth_groups_masks_and_scanner(tmp_path):
    images = [image | {"misfit": np.nan} for image in fake_set(1, ("",))]
    for image in images:
        for name in ("mean", "std", "naive"):
            del image["arrays"][f"reconstruction/{name}"]
    text = page_text(tmp_path, images, without_data=True)
    assert "Localization and PSNR: the data are not at hand." in text
    assert "1 of unknown group" in text
    assert "How well it works here" not in text and 'id="how-well"' not in text
    assert "energy of the noise" not in text and "Overlay" not in text
    assert "klip map" in text


def test_failed_images_are_shown_as_such(tmp_path):
    bad = fake_image("bad", "lesion")
    nan = np.full((32, 32), np.nan)
    bad["arrays"] |= {"klip/heatmap": nan, "reconstruction/mean": nan[..., None]}
    bad |= {"score": {}, "p_value": {}, "first_bad_step": 7}
    text = page_text(tmp_path, [bad])
    assert "1 image failed and has no score." in text
    assert text.count("not finite from step 7") == 2  # its card, its row
    assert 'data-badge="failed"' in text and "<dt>peak</dt>" not in text


def test_empty_run(tmp_path):
    assert "0 images" in page_text(tmp_path, [])


@pytest.mark.parametrize(("order", "first"), [("p", "b_2"), ("name", "a_1")])
def test_order(tmp_path, order, first):
    images = [fake_image(name) for name in ("a_1", "b_2")]
    for image, p in zip(images, (0.7, 0.2), strict=True):
        image["p_value"] |= {"klip": p}
    assert names_shown(page_text(tmp_path, images, order=order))[0] == first


def test_another_order_is_refused(tmp_path):
    with pytest.raises(ValueError, match="order='size'"):
        write_page(tmp_path, fake_set(1), order="size")


def test_of_many_images_some_are_shown(tmp_path, monkeypatch):
    for name, value in {"ALL": 4, "MOST": 2, "FEW": 2}.items():
        monkeypatch.setattr(finish, name, value)
    monkeypatch.setattr(page, "LISTED", 5)
    read = []
    whole = finish.pictures.read_shown
    monkeypatch.setattr(
        finish.pictures,
        "read_shown",
        lambda *args: read.append(args[3]) or whole(*args),
    )
    images = [fake_image(f"id_{i}") for i in range(4)]
    images += [fake_image(f"x_{i}", "x") for i in range(4)]
    p = (0.9, 0.8, 0.7, 0.6, 0.3, 0.2, 0.1, np.nan)
    for image, value in zip(images, p, strict=True):
        image["p_value"] |= {"klip": value}
    images[-1]["score"] = {}  # it failed: nothing to look at
    text = page_text(tmp_path, images)
    assert names_shown(text) == ["x_2", "x_1", "id_3", "id_0"]
    assert sorted(read) == [0, 3, 5, 6]
    assert "The 5 lowest p-values of 8; scores.csv holds all." in text
    assert text.count("<tr data-badge") == 5
    assert ">x_0<" in text and ">id_1<" not in text
