"""The documentation as a site: `make docs`. Warnings, such as links to nowhere, are errors."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from reference_pages import write_reference  # noqa: E402

from diptych import __version__  # noqa: E402

project = "Diptych"
copyright = "the authors of Diptych"  # noqa: A001
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
default_role = "literal"  # docstrings are written as Markdown
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
suppress_warnings = ["myst.header"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
copybutton_prompt_text = "$ "
html_theme = "furo"
html_title = f"Diptych {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6863", "color-brand-content": "#0b6863"},
    "dark_css_variables": {"color-brand-primary": "#82d2c8", "color-brand-content": "#82d2c8"},
}

write_reference(HERE / "reference")


def setup(app):
    """Escapes what reStructuredText reads in docstrings, and puts the site in the browser beside the pages."""

    def escape(app, what, name, thing, options, lines):
        for place, line in enumerate(lines):
            parts = re.split(r"(``.+?``|:\w+:`[^`]*`|`[^`]+`)", line)
            parts[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts[::2]]
            for i in range(1, len(parts), 2):  # code that a letter follows, as in "`model`s"
                if re.match(r"\w", parts[i + 1]):
                    parts[i] += "\\ "
            lines[place] = "".join(parts)

    def publish(app, error):
        if error is None and app.builder.name == "html":
            from diptych.site import write_site

            write_site(Path(app.outdir, "try"))

    app.connect("autodoc-process-docstring", escape)
    app.connect("build-finished", publish)
