"""How Sphinx builds these pages: `make docs`, or `python -m sphinx -W -n docs build/docs`.

The pages are Markdown that a code host shows as it is; what only the built site has (the reference, and the files of
the repository's root) is written to `docs/generated` by `docs/reference.py` before Sphinx reads anything.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import mdp
import mdp.core

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import reference  # noqa: E402 - it lies beside this file

project = "mdp"
version = release = mdp.__version__
html_title = "mdp"
copyright = "the authors of mdp, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_static"]
nitpicky = True
# types of Python and other libraries have no pages here, and their sites are not asked
# (the short names are those of modules that import them for type checkers only, so as to start without torch)
nitpick_ignore_regex = [("py:class", r"(torch|numpy|np|pathlib|collections|fractions)\..*|NDArray|Tensor")]
# types of results and type variables that mdp.core does not export
UNNAMED = ("networks.pair.Network", "networks.transfer.Match", "photometry.PhotometryDraw", "photometry.DistortionDraw")
UNNAMED += ("photometry.Draw", "methods._pixel_encoder.PixelSettings", "taxonomy.Merge")
nitpick_ignore = [("py:class", f"mdp.core.{name}") for name in UNNAMED]

smartquotes = False
highlight_language = "none"  # a fence without a language is a command or its output
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 130
toc_object_entries = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["mdp.css"]
html_js_files = ["copy.js"]
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
# pages that are HTML already, and what they are called in the site, where study.html is the page made of study.md
WHOLE_PAGES = {"study.html": "study-report.html", "four-sets.html": "four-sets.html"}


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls first."""
    reference.write(HERE / "generated")
    app.add_html_math_renderer("mathml", (_inline_math, _leave), (_block_math, _leave))
    app.add_transform(_Links)
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _plain_docstring)
    app.connect("autodoc-process-signature", _hide_fields)
    app.connect("autodoc-skip-member", _skip)
    app.connect("build-finished", _copy_whole_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# Equations as MathML, which browsers draw themselves: no script, no font from elsewhere


def _inline_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_math(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="equation">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _leave(writer: Any, node: nodes.Element) -> None: ...


# Links


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files of the repository's root that have a page here lead to it."""
    source[0] = reference.site_links(source[0], depth=name.count("/"))


class _Links(SphinxTransform):
    """`mdp.core.nce` in code letters leads to its reference; whole HTML pages are opened, not downloaded."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        in_reference = self.env.docname.startswith("generated/")  # or a file of the repository's root
        for node in list(self.document.findall(nodes.literal)):
            name = node.astext().removeprefix("mdp.core.")
            if (in_reference or name != node.astext()) and name in mdp.core.__all__ and not _linked(node):
                link = pending_xref("", refdomain="py", reftype="obj", reftarget=f"mdp.core.{name}", refexplicit=True)
                node.replace_self(link)
                link += node
        for node in list(self.document.findall(download_reference)):
            page = WHOLE_PAGES.get(node["reftarget"].removeprefix("../"))
            if page:
                node.replace_self(
                    nodes.reference("", "", *node.children, refuri=f"{'../' if in_reference else ''}{page}")
                )


def _copy_whole_pages(app: Sphinx, error: Exception | None) -> None:
    for name, page in WHOLE_PAGES.items():
        if error is None:
            shutil.copyfile(HERE / name, Path(app.outdir) / page)


def _linked(node: nodes.Node) -> bool:
    kinds = (nodes.reference, pending_xref, nodes.title, download_reference)
    return node.parent is not None and (isinstance(node.parent, kinds) or _linked(node.parent))


# Docstrings are plain text; they are shown as such


def _plain_docstring(app: Sphinx, what: str, name: str, object_: Any, options: Any, lines: list[str]) -> None:
    lines[:] = reference.as_rst(lines)
    if what == "class":
        lines += reference.fields_block(object_)


def _hide_fields(
    app: Sphinx, what: str, name: str, object_: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """The fields of a class stand below it, with their comments: they need not be its signature too."""
    return ("", None) if what == "class" and reference.fields_block(object_) else None


def _skip(app: Sphinx, what: str, name: str, object_: Any, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples have docstrings that Python made."""
    return True if (getattr(object_, "__doc__", "") or "").startswith("Alias for field") else None
