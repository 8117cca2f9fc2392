"""How the documentation is built: ``python -m sphinx -W --keep-going -b html docs site``. Nothing is downloaded."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import graphsparse  # noqa: E402

project = "graphsparse"
author = "The graphsparse developers"
version = release = graphsparse.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # `sparsify` in a docstring is a link to it

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None}

autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True, "no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Warns", "returns_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "graphsparse"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}


def missing_names(documented: set[str]) -> list[str]:
    """Every public name that no page of the reference describes, as ``module.name``."""
    rooms = [f"graphsparse.{name}" for name in graphsparse._ROOMS]
    names = [f"{room}.{name}" for room in rooms for name in importlib.import_module(room).__all__]
    names += [f"{home}.{name}" for name, home in graphsparse._HOME.items()]  # gs.x is documented where x lives
    return sorted({name for name in [*rooms, *names] if name not in documented})


def check_complete(app: Any, env: Any) -> None:
    """Warn, which a strict build takes as an error, of public names without a place in the reference."""
    from sphinx.util import logging

    for name in missing_names(set(env.get_domain("py").objects)):
        logging.getLogger(__name__).warning("%s is public, but no page under docs/api describes it", name)


def write_inline_math(writer: Any, node: Any) -> None:
    """A formula in a line, as MathML: browsers draw it by themselves, without scripts or fonts from elsewhere."""
    writer.body.append(convert(node.astext(), display="inline"))
    raise SkipNode


def write_math_block(writer: Any, node: Any) -> None:
    """A formula of its own; on a narrow screen it scrolls in its place."""
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (write_inline_math, None), (write_math_block, None))
    app.connect("env-check-consistency", check_complete)
