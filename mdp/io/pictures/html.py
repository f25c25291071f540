"""Pages and small pieces of HTML; what comes from a run goes through `text`, so that no name becomes markup."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from mdp.io.files.reading import printable


def document(title: str, body: str, script: str, style: str = "", mark: str = "") -> str:
    """A whole page: one file without a request to anywhere, in the style of all pages (`page.css`) and `style`.

    Its own policy allows the browser this script, by its digest, and forbids everything else.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{mark}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>\n'
        f"<style>{text_of(Path(__file__).parent / 'page.css')}{style}</style></head>\n<body>{body}"
        f"<script>{script}</script></body></html>\n"
    )


def text_of(path: Path) -> str:
    """A file of the package that becomes part of a page."""
    return path.read_text(encoding="utf-8")


def text(value: object, length: int = 300) -> str:
    r"""The value as text for a page: escaped, without control characters, cut where it is too long.

    >>> print(text("<b>&\x1b"), text("abcdef", 3))
    &lt;b&gt;&amp;\x1b abc...
    """
    words = printable(value)
    return escape(words if len(words) <= length else f"{words[:length]}...")


def lines(value: str, most: int, length: int = 400) -> str:
    """Text of several lines for a page; the last `most` of them."""
    rows = value.splitlines()
    left = [f"({len(rows) - most:,} lines before these)"] if len(rows) > most else []
    return "\n".join([*left, *(text(row, length) for row in rows[-most:])])


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already; the first cell of a row is its heading."""
    label = re.sub("<[^>]*>", "", caption).strip()
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}"><table class="{kind}">'
        f"<caption>{caption}</caption><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def bar(share: float, words: str) -> str:
    """A bar for a share in 0..1, and what it says."""
    drawn = f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>'
    return f'<span class="value">{drawn} {words}</span>'


def folded(summary: str, body: str, is_open: bool = False) -> str:
    """A part that is folded away until its heading is opened."""
    return f"<details{' open' if is_open else ''}><summary>{summary}</summary>{body}</details>"


def section(name: str, title: str, body: str) -> str:
    """A part of the page that a link `#name` leads to."""
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>\n{body}</section>\n'
