"""Sphinx configuration: MyST pages, numpydoc docstrings, PyData theme."""

import fastrelu

project = "fastrelu"
copyright = "2026, the fastrelu developers"
release = version = fastrelu.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
html_theme = "pydata_sphinx_theme"
html_title = "fastrelu"
html_theme_options = {"show_toc_level": 2}
html_static_path = ["_static"]
exclude_patterns = ["_build"]
autosummary_generate = True
numpydoc_show_class_members = False
nitpicky = False
myst_heading_anchors = 3
