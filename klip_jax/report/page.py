"""The page of a run: its template, and the table of scores.

The page needs no network: style, script and pictures are inside it. Its security policy
allows that one script, by its hash, and nothing else; the template escapes every text.
"""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from klip_jax.report import text
from klip_jax.report.p_values import BADGES, Judged
from klip_jax.report.table import Table

LISTED = 1000
"""Images in the table of scores; scores.csv has all."""

TEMPLATES = pathlib.Path(__file__).parent / "templates"


def render(fields: dict[str, Any]) -> str:
    """Return the page; `finish.write_report` says what `fields` are."""
    script = _file("reading.js")
    inside = {
        "style": Markup(_file("style.css")),
        "script": Markup(script),
        "colors": Markup(_file("colors.svg")),
        "policy": policy(script),
        "badges": BADGES,
    }
    return _environment().get_template("report.html").render(fields | inside)


def policy(script: str) -> str:
    """Return the page's security policy: this script, styles and pictures inside it."""
    digest = hashlib.sha256(script.encode()).digest()
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        "style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(digest).decode()}'"
    )


def score_rows(
    table: Table, judged: Judged, rows: Sequence[int], anchors: dict[int, str]
) -> list[dict[str, Any]]:
    """Return lines of the table of scores, of the main detector.

    Args:
      table, judged: of the run.
      rows: images to list, in this order.
      anchors: of those with a card on the page, by row.
    """
    columns = table.columns[table.main]
    lines = []
    for i in rows:
        score = text.plus_minus(columns["score"][i], columns["stderr"][i])
        first_bad = int(table.first_bad_step[i])
        if broke := text.where_it_broke(columns["score"][i], first_bad):
            score += f", {broke}"
        numbers = {"score": columns["score"][i], "p": judged.p[i]}
        numbers["misfit"] = table.misfit[i]
        known = {k: float(v) for k, v in numbers.items() if np.isfinite(v)}
        lines.append(
            {
                "anchor": anchors.get(i, ""),
                "name": table.ids[i],
                "group": table.groups[i],
                "badge": judged.badges[i],
                "badge_text": BADGES[judged.badges[i]],
                "misfits": bool(judged.misfit[i]),
                "score": score,
                "p": text.p_text(known["p"]).removeprefix("= ") if "p" in known else "",
                "misfit": f"{known['misfit']:.2f}" if "misfit" in known else "",
                "values": {k: f"{v:.6g}" for k, v in known.items()},
            }
        )
    return lines


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": text.interval, "number": text.number}
    return environment


@functools.cache
def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
