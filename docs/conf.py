"""The documentation as a site: `python -m sphinx -W docs build/site`, then open build/site/index.html. Nothing is fetched, then or when read."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import duroxide  # noqa: E402 - the path comes first

project = "duroxide"
author = "the duroxide authors"
version = release = duroxide.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "repository_links"]
exclude_patterns = ["examples", "_ext"]

html_theme = "furo"
html_title = f"duroxide {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "native"
copybutton_prompt_text = "$ "

myst_heading_anchors = 3
myst_links_external_new_tab = False
myst_enable_extensions = ["colon_fence"]
# `source:` is what repository_links makes of links to files of the repository.
myst_url_schemes = {"http": None, "https": None, "mailto": None, "source": None}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_class_signature = "mixed"
maximum_signature_line_length = 160
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
add_module_names = False
default_role = "py:obj"  # names in docstrings stand in single backticks: links where they are public, plain code elsewhere
