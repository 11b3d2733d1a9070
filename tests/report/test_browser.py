"""The page in a browser: headless Chromium, driven by Playwright.

pip install playwright; apt-get install chromium
python -m pytest -m slow tests/report/test_browser.py
"""

import io

import numpy as np
import pytest
from chromium import chromium
from fake_page import write_page
from fake_results import fake_image, fake_set
from PIL import Image

HOSTILE = "<img src=x onerror=\"document.title='broken'\">"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    images = [*fake_set(3), fake_image(HOSTILE, "lesion")]
    p = [0.9, 0.3, 0.08, 0.02, 0.001, np.nan, 0.04]
    for i, (image, value) in enumerate(zip(images, p, strict=True)):
        image["p_value"] = {"klip": value}
        image["score"] |= {"klip": 10.0 - i}
    images[1]["misfit"] = 9.0
    # Ten times the scale of the others.
    images[4]["arrays"]["klip/heatmap"] = 10 * images[4]["arrays"]["klip/heatmap"]
    images[5]["score"] = {}
    return write_page(tmp_path_factory.mktemp("browser"), images)


@pytest.fixture
def open_page(browser, report):
    """Open the page; after the test, nothing may have been complained about."""
    contexts, said = [], []

    def open_(width=1280, height=800, **settings):
        viewport = dict(width=width, height=height)
        contexts.append(browser.new_context(viewport=viewport, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: r.url.startswith("http") and said.append(r.url))
        page.goto(report.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not said


def visible(page, what):
    return page.locator(f"{what}:visible")


def names(page, what=".card"):
    return visible(page, what).evaluate_all("all => all.map(a => a.dataset.name)")


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def style(page, what, name):
    return page.locator(what).first.evaluate(
        "(e, name) => getComputedStyle(e)[name]", name
    )


def test_cards_stand_by_p(open_page):
    page = open_page()
    first = ["lesion_002", "lesion_001", "lesion_000", HOSTILE, "id_002", "id_001"]
    assert names(page) == [*first, "id_000"]
    assert page.title() == "3 of 6 images need a look · a_run"
    assert page.locator("h1").inner_text() == "3 of 6 images need a look"


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_the_screen(open_page, width):
    page = open_page(width, 844, has_touch=True)
    for name in ("Images", "How well it works here", "Settings"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    tab(page, "Images")
    page.locator(".others summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".card .open").first.click()
    viewer = page.locator("#viewer")
    assert viewer.evaluate("v => v.scrollWidth") <= width
    assert viewer.locator("#stage").bounding_box()["width"] > 0.5 * width


def test_tabs_are_one_at_a_time_and_by_keys(open_page):
    page = open_page()
    tabs = page.get_by_role("tab")
    assert tabs.count() == 3 and visible(page, "section.tab").count() == 1
    tabs.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert visible(page, "section.tab").get_attribute("id") == "how-well"
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert visible(page, "section.tab").get_attribute("id") == "settings"
    tab(page, "Images")
    assert page.evaluate("location.hash") == "#images"


def test_filters_choose_cards_and_rows(open_page):
    page = open_page()
    page.get_by_role("button", name="flagged").click()
    assert len(names(page)) == 3
    assert sorted(names(page, "#scores tbody tr")) == sorted(names(page))
    page.get_by_placeholder("name or group").fill("LESION_001")
    assert names(page) == ["lesion_001"]
    page.get_by_role("button", name="measurement does not fit").click()
    assert names(page) == [] and visible(page, "#nothing").count() == 1
    page.get_by_placeholder("name or group").fill("")
    assert names(page) == ["id_001"]
    page.get_by_role("button", name="all").click()
    assert len(names(page)) == 7


def test_a_link_of_the_table_finds_a_card_that_was_filtered_away(open_page):
    page = open_page()
    page.get_by_placeholder("name or group").fill("id_000")
    page.evaluate("location.hash = '#image-4'")
    page.wait_for_function("!document.querySelector('#image-4').hidden")
    assert len(names(page)) == 7
    assert page.get_by_placeholder("name or group").input_value() == ""


def test_the_table_sorts_both_ways_and_what_has_no_number_is_last(open_page):
    page = open_page()
    rows = "#scores tbody tr"
    by_score = ["id_000", "id_001", "id_002", "lesion_000", "lesion_001", HOSTILE]
    head = page.locator("#scores th", has_text="score")
    head.get_by_role("button").click()
    assert names(page, rows) == [*reversed(by_score), "lesion_002"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert names(page, rows) == [*by_score, "lesion_002"]
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("#scores th", has_text="image").get_by_role("button").press("Enter")
    assert names(page, rows) == sorted(names(page, rows))
    assert head.get_attribute("aria-sort") is None


def test_full_size_by_mouse_and_keys(open_page):
    page = open_page()
    page.locator(".card .frame").nth(0).click()
    viewer, name = page.locator("#viewer"), page.locator("#viewer-name")
    assert viewer.is_visible() and name.inner_text() == "lesion_002"
    page.keyboard.press("ArrowRight")
    assert name.inner_text() == "lesion_001"
    assert "flagged" in page.locator("#viewer-badges").inner_text()
    assert "peak row" in page.locator("#viewer-numbers").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    assert name.inner_text() == "lesion_002"
    page.keyboard.press("m")
    assert not page.locator("#over").is_visible()
    page.keyboard.press("m")
    assert page.locator("#over").is_visible()
    page.keyboard.press("ArrowDown")
    assert page.locator("#opacity").input_value() == "60"
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.wait_for_function(
        "document.activeElement.closest('[data-name=lesion_002]')"
    )
    # Only the images that are shown are gone through.
    page.get_by_placeholder("name or group").fill("id_")
    page.locator(".card:visible .open").first.press("Enter")
    for expected in ("id_002", "id_001", "id_000", "id_000"):
        assert name.inner_text() == expected
        page.keyboard.press("ArrowRight")


def test_sliders_of_the_viewer(open_page):
    page = open_page()
    page.locator(".card .open").nth(1).click()
    page.locator("#opacity").fill("25")
    assert style(page, "#over", "opacity") == "0.25"
    page.locator("#window").fill("50")
    page.locator("#level").fill("40")
    linear = page.locator("#window-level feFuncG")
    # The window from 0.15 to 0.65 becomes black to white.
    slope, intercept = (float(linear.get_attribute(k)) for k in ("slope", "intercept"))
    assert (0.15 * slope + intercept, 0.65 * slope + intercept) == pytest.approx((0, 1))
    page.locator("#opacity").focus()
    page.keyboard.press("ArrowRight")  # moves the slider, not the image
    assert page.locator("#opacity").input_value() == "26"
    assert page.locator("#viewer-name").inner_text() == "lesion_001"
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 50)
    page.mouse.up()
    assert float(page.locator("#window").input_value()) == pytest.approx(60, abs=1)
    page.get_by_role("button", name="Reset").click()
    assert page.locator("#window").input_value() == "100"
    # What is chosen stays chosen from image to image.
    assert page.locator("#which-image").input_value() == "Reconstruction"
    page.locator("#which-image").select_option("Truth")
    page.locator("#which-map").select_option("gradient")
    page.locator("#next").click()
    truth = page.locator(".card").nth(2).locator("[data-title=Truth] img")
    assert page.locator("#base").get_attribute("src") == truth.get_attribute("src")
    assert page.locator("#which-map").input_value() == "gradient"
    page.locator("#show-marks").uncheck()
    assert not page.locator("#viewer .marks").is_visible()


def pixels(page, what):
    shot = page.locator(what).first.screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def test_one_scale_for_all_maps_and_their_colours(open_page):
    page = open_page()
    calm = '[data-name="lesion_000"] [data-kind=map] .frame'
    own = pixels(page, calm)
    # The brightest of inferno, where the map reaches its scale; black where it is 0.
    assert np.abs(own - [252, 255, 164]).sum(-1).min() < 12
    assert np.abs(own - [0, 0, 4]).sum(-1).min() < 12
    page.get_by_label("one scale for all maps").check()
    shared = pixels(page, calm)
    assert shared.sum() < 0.5 * own.sum()
    scale = page.locator('[data-name="lesion_000"] .scale')
    ends = scale.first.inner_text().split()
    page.get_by_label("one scale for all maps").uncheck()
    assert ends != scale.first.inner_text().split()
    assert np.array_equal(pixels(page, calm), own)


def test_light_dark_and_what_the_system_says(open_page):
    light, dark = "rgb(251, 250, 248)", "rgb(16, 19, 23)"
    page = open_page()
    assert style(page, "body", "backgroundColor") == light
    button = page.get_by_role("button", name="Colours of the page")
    assert button.inner_text() == "Theme: auto"
    page.emulate_media(color_scheme="dark")
    assert style(page, "body", "backgroundColor") == dark
    button.click()
    assert button.inner_text() == "Theme: light"
    assert style(page, "body", "backgroundColor") == light
    button.click()
    page.emulate_media(color_scheme="light")
    assert style(page, "body", "backgroundColor") == dark
    page.reload()
    assert style(page, "body", "backgroundColor") == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(open_page, scheme):
    """At least 4.5 : 1 of every colour of text on the paper, as WCAG AA asks."""
    page = open_page(color_scheme=scheme)

    def luminance(color):
        values = [float(v) / 255 for v in color[4:-1].split(",")]
        linear = [
            v / 12.92 if v <= 0.04 else ((v + 0.055) / 1.055) ** 2.4 for v in values
        ]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    paper = luminance(style(page, "body", "backgroundColor"))
    kinds = ("flagged", "borderline", "clear", "misfit", "failed")
    texts = ["h1", ".lead", ".note", ".eyebrow span", "#scores a"]
    for what in [*texts, *(f".badge.{kind}" for kind in kinds)]:
        color = luminance(style(page, what, "color"))
        low, high = sorted((paper, color))
        assert (high + 0.05) / (low + 0.05) >= 4.5, what


def test_nothing_moves_where_that_is_asked_for(open_page):
    page = open_page(reduced_motion="reduce")
    assert style(page, "html", "scrollBehavior") == "auto"
    assert float(style(page, ".filters button", "transitionDuration")[:-1]) == 0


def test_without_a_script_everything_is_there(open_page):
    page = open_page(java_script_enabled=False)
    assert visible(page, ".card").count() == 7
    assert visible(page, "section.tab").count() == 3
    assert visible(page, ".needs-js").count() == 0
    assert visible(page, "#scores tbody tr").count() == 7
    page.get_by_role("link", name="Settings").click()
    assert page.url.endswith("#settings")
