"""The page of a fake run."""

from fake_results import write

from klip_jax.report.evaluate import evaluate
from klip_jax.report.finish import write_report


def write_page(folder, images, *, order="p", without_data=False, **settings):
    """Write a run of `images` and its report; return the path of the page."""
    store, data = write(folder / "a_run", images, **settings)
    data = None if without_data else data
    return write_report(store, data, evaluate(store, data), order=order)


def page_text(folder, images, **settings):
    """Write a run of `images` and its report; return the text of the page."""
    return write_page(folder, images, **settings).read_text()
