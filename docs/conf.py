"""Sphinx configuration: MyST pages, numpydoc docstrings, PyData theme."""

import tomllib
from pathlib import Path

import fastrelu

URLS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["urls"]

project = "fastrelu"
copyright = "2026, the fastrelu developers"
release = version = fastrelu.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
extensions += ["sphinx_gallery.gen_gallery", "sphinx_design"]
myst_enable_extensions = ["colon_fence"]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "show_signature": False,
    "only_warn_on_example_error": False,
    "abort_on_example_error": True,
}
html_theme = "pydata_sphinx_theme"
html_title = "fastrelu"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "icon_links": [{"name": "Source", "url": URLS["Source"], "icon": "fa-brands fa-github"}],
}
html_sidebars = {"index": []}
html_static_path = ["_static"]
exclude_patterns = ["_build", "examples", "_functions.rst"]
# The list of functions follows from the rows; pages for them are made of what is in these files
FUNCTIONS = "\n   ".join(fastrelu._operations.FUNCTIONS)
(Path(__file__).parent / "_functions.rst").write_text(
    f".. currentmodule:: fastrelu\n\n.. autosummary::\n   :toctree: generated\n\n   {FUNCTIONS}\n"
)
autosummary_generate = ["api.rst", "_functions.rst"]
numpydoc_show_class_members = False
nitpicky = False
myst_heading_anchors = 3
