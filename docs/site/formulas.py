"""A hook of mkdocs: formulas in LaTeX become MathML, which browsers draw themselves.

No script and no font is loaded, so that the site reads without a network.
"""

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\(?:\(|\[)(.*?)\\(?:\)|\])</\1>', re.DOTALL
)


def on_page_content(content: str, **_) -> str:
    """Return the HTML of a page with its formulas as MathML."""

    def drawn(match):
        display = "block" if match[1] == "div" else "inline"
        formula = convert(html.unescape(match[2]).strip(), display=display)
        return f"<{match[1]}>{formula}</{match[1]}>"

    return _FORMULA.sub(drawn, content)
