"""Sphinx as `python -m sphinx`, without what costs half of a site and says the same of every page.

That is the tree of all pages at the side, drawn anew on each, and the words of a page in the index of the search.
A few pages have both.
"""

import sys
from typing import Any

WHOLE = ("index", "method", "generated/core/contrast")


def setup(app: Any) -> dict[str, Any]:
    """What Sphinx calls first."""
    app.connect("env-updated", _unsearched)
    app.connect("html-page-context", _without_tree, priority=100)  # before the theme draws it
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _unsearched(app: Any, env: Any) -> None:
    for page in set(env.found_docs) - set(WHOLE):
        env.metadata[page]["nosearch"] = ""


def _without_tree(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if page not in WHOLE:
        context.pop("toctree", None)


if __name__ == "__main__":
    from sphinx import application
    from sphinx.cmd.build import main

    application.builtin_extensions += ("tests.plain_site",)  # beside those of docs/conf.py
    sys.exit(main())
