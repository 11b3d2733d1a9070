"""The pictures of the README and the docs: the report of the default run in a browser.

    python -m klip_jax.main
    pip install playwright; apt-get install chromium fonts-inter
    python experiments/screenshots.py

docs/phantom.png is the first card; docs/report*.png are the page in light and dark, on
a phone, and an image at full size. Prints one JSON object with the checks: no word of
the browser's console, nothing wider than the screen.
"""

import io
import json
import pathlib
import sys

from absl import app, flags
from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/phantom_ct", "A run with its report.html.")
flags.DEFINE_string("target", "docs", "Folder of the pictures.")
flags.DEFINE_string("chromium", "/usr/bin/chromium", "The browser.")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
WIDE, PHONE = dict(width=1280, height=860), dict(width=390, height=844)


def main(_) -> None:
    page_file = pathlib.Path(FLAGS.workdir).resolve() / "report.html"
    if not page_file.is_file():
        sys.exit(f"{page_file}: no report here; run python -m klip_jax.main first")
    said: list[str] = []
    widths = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=FLAGS.chromium, args=list(ARGUMENTS)
        )
        for name, viewport, scheme, shot in (
            ("phantom", WIDE, "light", card),
            ("report", WIDE, "light", top),
            ("report_dark", WIDE, "dark", top),
            ("report_phone", PHONE, "light", phone),
            ("report_full_size", WIDE, "dark", full_size),
            ("report_how_well", WIDE, "light", how_well),
        ):
            page = browser.new_page(
                viewport=viewport,
                color_scheme=scheme,
                device_scale_factor=1.5,
                reduced_motion="reduce",
            )
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(page_file.as_uri())
            image = Image.open(io.BytesIO(shot(page))).convert("RGB")
            # 256 colours are a third of the bytes; this method keeps thin lines best.
            method, dither = Image.Quantize.FASTOCTREE, Image.Dither.NONE
            image = image.quantize(256, method=method, dither=dither)
            image.save(pathlib.Path(FLAGS.target) / f"{name}.png", optimize=True)
            width = page.evaluate("document.documentElement.scrollWidth")
            widths[name] = width - viewport["width"]
            page.close()
        browser.close()
    checks = [
        dict(name="words of the console", value=len(said), target=0, ok=not said),
        *(
            dict(name=f"{name}: pixels too wide", value=more, target=0, ok=more <= 0)
            for name, more in widths.items()
        ),
    ]
    print(json.dumps({"said": said, "checks": checks}, indent=2))
    sys.exit(not all(check["ok"] for check in checks))


def card(page) -> bytes:
    """The first card, without what is for the mouse."""
    page.add_style_tag(
        content=".card { padding: 1.2rem !important } .card + .card { border: 0 }"
        ".card .open, .others { display: none !important }"
    )
    return page.locator(".card").first.screenshot()


def top(page) -> bytes:
    """The first screen."""
    return page.screenshot()


def phone(page) -> bytes:
    """The first card on a phone."""
    page.locator(".card").first.evaluate("c => c.scrollIntoView()")
    return page.screenshot()


def full_size(page) -> bytes:
    """The first image at full size."""
    page.locator(".card .open").first.click()
    return page.screenshot()


def how_well(page) -> bytes:
    """The tab of what is known."""
    page.get_by_role("tab", name="How well it works here").click()
    return page.screenshot()


if __name__ == "__main__":
    app.run(main)
