"""How Sphinx makes the site out of these pages and of the docstrings: `make docs`."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from types import FunctionType, GenericAlias

from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

import aiodocker_images

project = "aiodocker-images"
author = "The aiodocker-images authors"
project_copyright = author
version = release = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# One backtick in a docstring is a name, as in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

# The project is read here and where it is kept: links to its other files lead there from both.
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False

_REFERENCE = Path(__file__).parent / "reference"  # written by each build, and not kept
# A page of the reference, and the modules whose public names it has. A module that stands nowhere is an error.
_PAGES = {
    "services": (
        "Services",
        ["service", "_api.build_options", "_archive.streams", "_distribution.service", "_distribution.config"],
    ),
    "mirroring": ("Mirroring and transfers", ["_mirror"]),
    "layouts": (
        "Layouts, archives and tags",
        ["_distribution.layouts", "_distribution.docker_archive", "_distribution.tag_selection"],
    ),
    "results": ("Results", ["results", "_distribution.results", "_distribution.manifests"]),
    "progress": ("Progress", ["progress", "shared_pulls", "buildkit"]),
    "models": ("What the Engine answers", ["models", "_api.events"]),
    "names": ("Names, versions, filters and retries", ["reference", "api_version", "_encoding", "_retry"]),
    "credentials": ("Credentials and endpoints", ["credentials", "_dockercli.keychain", "endpoint"]),
    "errors": ("Errors", ["errors"]),
    "testing": ("The testing kit", ["testing"]),
}


def _directive(name: str, value: object) -> str:
    if isinstance(value, type) and not isinstance(value, GenericAlias):
        options = ["   :members:"]
        if issubclass(value, BaseException):
            options.append("   :show-inheritance:")
        return "\n".join([f".. autoclass:: {name}", *options, ""])
    if isinstance(value, FunctionType):
        return f".. autofunction:: {name}\n"
    return f".. autodata:: {name}\n   :no-value:\n"


def write_reference(_app: Sphinx, _config: object) -> None:
    """Write a page for each group of modules, with every public name of each: `__all__` is the only list."""
    _REFERENCE.mkdir(exist_ok=True)
    forgotten = {*aiodocker_images.__all__} - {"__version__"}
    for page, (title, homes) in _PAGES.items():
        package = "aiodocker_images.testing" if homes == ["testing"] else "aiodocker_images"
        text = [f"# {title}", "", "```{eval-rst}", f".. currentmodule:: {package}", ""]
        for home in homes:
            module = import_module(f"aiodocker_images.{home}")
            forgotten -= {*module.__all__}
            text += [_directive(name, getattr(module, name)) for name in module.__all__]
        (_REFERENCE / f"{page}.md").write_text("\n".join([*text, "```", ""]), encoding="utf-8")
    if forgotten:
        raise ConfigError(f"docs/conf.py: no page of the reference has {sorted(forgotten)}")


def read_sections(  # noqa: PLR0917 - the arguments of autodoc's event
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Make lists of the sections of a docstring ("Args:").

    Napoleon as an extension would take the text before the first colon of an attribute's docstring for its type.
    """
    if what in ("class", "exception", "function", "method"):
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_ivar=True), app, what, name, value, options).lines()
    elif what == "data" and isinstance(value, Mapping):
        lines.clear()  # the docstring of dict


def setup(app: Sphinx) -> None:
    """Have the reference written before the pages are read."""
    app.connect("config-inited", write_reference)
    app.connect("autodoc-process-docstring", read_sections)
