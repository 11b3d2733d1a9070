"""Pieces of the report page as HTML: escaped text, numbers with intervals, tables.

The page needs no network and no script: style and pictures are inside it, and its
security policy forbids everything else.
"""

import base64
import html
from collections.abc import Iterable, Sequence

_STYLE = """
:root { --ink: #1c2733; --quiet: #6b7785; --rule: #d9dee4; --ours: #c0392b; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 1120px;
  color: var(--ink); background: #fff; 
  font: .94rem/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.7rem; font-weight: 600; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; font-weight: 600; margin: 2.6rem 0 .7rem; padding-top: .6rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: .95rem; font-weight: 600; margin: 1.2rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: #2b6c9f; text-decoration: none; }
a:hover { text-decoration: underline; }
.quiet, figcaption, th { color: var(--quiet); }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem 3.2rem; margin: 1.4rem 0; }
.tiles b { display: block; font-size: 2rem; font-weight: 600; line-height: 1.2; }
.tiles span { font-size: .85rem; color: var(--quiet); display: block; }
.verdict { border-left: 3px solid #2e8b57; padding: .1rem 0 .1rem .9rem; }
.verdict.lost { border-color: var(--ours); }
.columns { display: grid; gap: 0 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
table { border-collapse: collapse; font-size: .86rem; width: 100%; }
th { font-weight: 500; text-align: left; white-space: nowrap; }
th, td { padding: .22rem .6rem .22rem 0; border-bottom: 1px solid #eef1f4;
  vertical-align: middle; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.ours td { font-weight: 600; }
tr.won td:first-child { color: var(--ours); }
.narrow { max-width: 34rem; }
.wide { width: auto; }
.wide td:first-child { min-width: 9.5rem; }
.wide .n { padding-left: 1.6rem; }
svg { display: block; }
figure { margin: 0 0 1.3rem; break-inside: avoid; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .82rem; }
ul { padding-left: 1.1rem; max-width: 52rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.4rem;
  font-size: .86rem; margin: 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { html { font-size: 11px; } body { padding: 0; max-width: none; }
  h2, h3 { break-after: avoid; } tr, .wide { break-inside: avoid; }
  .columns { grid-template-columns: 1fr 1fr 1fr; } a { color: inherit; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
@page { margin: 14mm; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: Iterable[str]) -> str:
    """Return the whole page; `body` holds HTML, `title` text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def text(value) -> str:
    """Return `value` as escaped text."""
    return html.escape(str(value), quote=True)


def section(title: str, *parts: str) -> str:
    """Return a heading and its parts, or nothing if there are no parts."""
    parts = [part for part in parts if part]
    return "\n".join([f"<h2>{text(title)}</h2>", *parts]) if parts else ""


def paragraph(sentence: str, kind: str = "") -> str:
    """Return a paragraph of text."""
    return f'<p class="{kind}">{text(sentence)}</p>' if sentence else ""


def interval(found: dict, places: int = 2) -> str:
    """Return "0.93 [0.88, 0.97]" of {"value", "low", "high"}."""
    value, low, high = (f"{found[k]:.{places}f}" for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


def tile(name: str, found: dict, note: str = "", *, places: int = 2) -> str:
    """Return one headline number with its 95 % interval below it."""
    value = f"{found['value']:.{places}f}"
    low, high = (f"{found[k]:.{places}f}" for k in ("low", "high"))
    return (
        f"<div><span>{text(name)}</span><b>{value}</b>"
        f"<span>95 % interval {low} to {high}</span><span>{text(note)}</span></div>"
    )


def whisker(found: dict, color: str) -> str:
    """Return a small picture of an AUROC and its interval on [0, 1], chance marked."""
    x = {k: 4 + 132 * min(1, max(0, found[k])) for k in ("value", "low", "high")}
    return (
        '<svg width="140" height="14" role="img" aria-hidden="true">'
        '<path d="M4 7H136" stroke="#e3e8ed"/>'
        '<path d="M70 1V13" stroke="#b5bec8" stroke-dasharray="2 2"/>'
        f'<path d="M{x["low"]:.1f} 7H{x["high"]:.1f}" stroke="{color}" '
        'stroke-width="2"/>'
        f'<circle cx="{x["value"]:.1f}" cy="7" r="3.5" fill="{color}"/></svg>'
    )


def table(
    head: Sequence[str],
    rows: Iterable[tuple[str, Sequence[str]]],
    *,
    numeric: Sequence[int] = (),
    kind: str = "",
) -> str:
    """Return a table; rows are (class, cells), cells and head are HTML.

    `numeric` are the columns set to the right.
    """

    def row(tag, cells):
        kinds = [' class="n"' if i in numeric else "" for i in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{cell}</{tag}>"
            for cell, kind in zip(cells, kinds, strict=True)
        )

    lines = [f"<thead><tr>{row('th', head)}</tr></thead>", "<tbody>"]
    lines += [f'<tr class="{name}">{row("td", cells)}</tr>' for name, cells in rows]
    return "\n".join([f'<table class="{kind}">', *lines, "</tbody></table>"])


def picture(png: bytes, alt: str, *, anchor: str = "", caption: str = "") -> str:
    """Return a figure with the picture inside the page."""
    data = base64.b64encode(png).decode()
    name = f' id="{text(anchor)}"' if anchor else ""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return (
        f'<figure{name}><img alt="{text(alt)}" src="data:image/png;base64,{data}">'
        f"{below}</figure>"
    )


def facts_list(facts: dict[str, str]) -> str:
    """Return name and value pairs, one a line."""
    lines = [f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in facts.items()]
    return "\n".join(["<dl>", *lines, "</dl>"]) if lines else ""


def sentences(items: Iterable[str]) -> str:
    """Return a list of sentences."""
    lines = [f"<li>{text(item)}</li>" for item in items]
    return "\n".join(["<ul>", *lines, "</ul>"]) if lines else ""
