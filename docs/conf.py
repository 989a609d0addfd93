"""Settings of the site: `python -m sphinx -W docs site` builds it into `site/`."""

import os
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# As HTML: what a notebook's own renderer writes only a notebook reads.
os.environ.setdefault("PLOTLY_RENDERER", "notebook_connected")

project = "jaxattr"
author = "The jaxattr authors"
copyright = f"2026, {author}"
release = metadata.version("jaxattr")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.mermaid",
    "sphinx_copybutton",
    "myst_nb",
    "pages",
]
default_role = "code"

html_theme = "furo"
html_title = "jaxattr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#a81529", "color-brand-content": "#134b8a"},
    "dark_css_variables": {"color-brand-primary": "#f9bfa0", "color-brand-content": "#a5cee3"},
}

autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_custom_sections = ["Reference"]
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
