import dataclasses

import numpy as np
import pytest
from fake_page import write_page
from fake_results import DETECTORS, data_of, fake_image, fake_set, write

from klip_jax.data.base_geometry import Fit
from klip_jax.report import cards, p_values, pictures, settings
from klip_jax.report.finish import finish
from klip_jax.report.table import read_table
from klip_jax.run.store import Store


def test_images_that_the_main_detector_keeps_are_shown(tmp_path):
    image = fake_image("id_0")
    kept = {"guided": image["images"] / 2, "input": image["images"]}
    kept["inverted"] = np.zeros((4, 4, 1))  # a latent is no picture
    image["arrays"] |= {f"klip/{name}": array for name, array in kept.items()}
    about = {"extras": {name: list(array.shape) for name, array in kept.items()}}
    settings = dict(detectors={"klip": DETECTORS["klip"] | about})
    store, data = write(tmp_path / "scanner", [image], **settings)
    shown = pictures.read_shown(store, read_table(store), data, 0, ["klip"])
    assert list(shown.images) == ["Naive inversion", "Reconstruction"]
    np.testing.assert_array_equal(shown.truth, image["images"].astype(np.float32))
    assert list(shown.extras) == ["Guided"]
    np.testing.assert_allclose(shown.extras["Guided"], kept["guided"], atol=1e-3)
    for name in ("std", "naive"):
        del image["arrays"][f"reconstruction/{name}"]
    store, data = write(tmp_path / "none", [image], **settings)
    shown = pictures.read_shown(store, read_table(store), data, 0, ["klip"])
    assert list(shown.images) == ["Image"] and shown.truth is None


def test_a_card_says_where_the_peak_is(tmp_path):
    images = fake_set(2)
    images[0]["arrays"]["klip/heatmap"][20, 9] = 50.0
    store, data = write(tmp_path / "run", images)
    table = read_table(store)
    shown = {
        i: pictures.read_shown(store, table, data, i, ["klip", "gradient"])
        for i in (2, 0)
    }
    judged = p_values.judge(table, {})
    anchors = {i: f"image-{i}" for i in shown}
    data = dataclasses.replace(data, spacing=(2.0, 0.5))
    made = cards.cards(table, judged, shown, anchors, data)
    assert [card["anchor"] for card in made] == ["image-2", "image-0"]
    card = made[1]
    assert card["peak_text"] == "row 20, column 9 (41.0 mm down, 4.8 mm across)"
    assert card["circle"] == {"x": 9.5, "y": 20.5, "r": "3"}
    assert card["map"]["name"] == "klip" and not card["map"]["signed"]
    assert [other["name"] for other in card["others"]] == ["gradient"]
    assert card["outline"] == "" and made[0]["outline"].startswith("M")
    # Its own scale over the one for all: what the page multiplies by.
    for card in made:
        own, shared = card["map"]["limits"][1], float(card["map"]["shared"][1])
        assert float(card["map"]["ratio"]) == pytest.approx(own / shared, rel=0.05)


def test_the_peak_is_told_in_the_pixels_of_the_input():
    # 10 rows and 20 columns cut out of 30 x 40, half as large, in a frame of 8 x 12.
    fit = Fit((30, 40), (4, 6, 10, 20), (5, 10), (1, 2), (8, 12))
    said = cards.peak_text((3, 4), (2.0, 3.0), fit)
    # Image row 3 is row 2 of what was resized: the middle of rows 4 and 5 of the cut.
    assert fit.pixel(3, 4) == (8.5, 10.5)
    assert said == "row 8, column 10 of the input (9.0 mm down, 16.5 mm across)"
    assert cards.peak_text((3, 4), None, fit) == "row 8, column 10 of the input"


def test_the_peak_is_not_in_the_padding(tmp_path):
    image = fake_image("id_0")
    image["arrays"]["klip/heatmap"][[1, 20], [2, 9]] = 80.0, 50.0
    store, data = write(tmp_path / "run", [image])
    fit = Fit((24, 24), (0, 0, 24, 24), (24, 24), (4, 4), (32, 32))
    for fits, peak in ((None, (1, 2)), ((fit,), (20, 9))):
        some = dataclasses.replace(data, fits=fits)
        shown = pictures.read_shown(store, read_table(store), some, 0, ["klip"])
        assert shown.peak == peak


def test_the_peak_without_millimetres():
    assert cards.peak_text((3, 4), None) == "row 3, column 4"
    assert cards.peak_text(None, (1.0, 1.0)) == ""


def test_settings_that_are_empty_are_not_listed():
    nested = {"name": "a", "law": "", "healthy": None, "net": {"x": None}, "draws": 0}
    assert settings.settings_text(nested) == "name a, draws 0"


def test_files_beside_the_page_are_linked(tmp_path, monkeypatch):
    store, _ = write(tmp_path / "run", fake_set(3), chunk=2)
    for name in ("scores.csv", "law.npz"):
        (store.folder / name).write_bytes(b"")
    (store.folder / "nifti").mkdir()
    names = [link["href"] for link in settings.downloads(store)]
    assert names == [
        "scores.csv",
        "law.npz",
        "config.json",
        "maps.zarr",
        *(f"scores/part-0000{i}.parquet" for i in range(3)),
        "nifti/",
    ]
    monkeypatch.setattr(settings, "PARTS", 2)
    assert "scores/" in [link["href"] for link in settings.downloads(store)]


def test_a_geometry_that_fits_better_is_told(tmp_path):
    path = write_page(tmp_path, [fake_image("id_0") | {"misfit": 3.0}])
    store = Store(path.parent)
    assert settings.hints(store) == {}
    (path.parent / "geometry.json").write_text('{"id_0": "1.1 with <b>angles</b>"}')
    finish(path.parent, data_of([fake_image("id_0")]))
    assert path.read_text().count("1.1 with &lt;b&gt;angles&lt;/b&gt;") == 2
    (path.parent / "geometry.json").write_text("[1")
    with pytest.raises(ValueError, match=r"geometry\.json"):
        settings.hints(store)
