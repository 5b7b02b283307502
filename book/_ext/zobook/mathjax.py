"""MathJax comes from an installed package, never from the network and never from the repository."""

import importlib.metadata
import shutil
from pathlib import Path

from sphinx.errors import ExtensionError


def folder() -> Path:
    """The MathJax folder inside the installed sphinx-mathjax-offline (its name has hyphens: not importable)."""
    files = importlib.metadata.distribution("sphinx-mathjax-offline").files or []
    for file in files:
        if file.name == "tex-svg.js":
            return Path(file.locate()).parent
    raise ExtensionError("sphinx-mathjax-offline is installed without tex-svg.js: run make venv again")


def _copy(app, exception):
    if exception is None and app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "mathjax"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder() / "tex-svg.js", target / "tex-svg.js")
        # \boldsymbol, \cancel and their like are loaded when a formula first uses them
        extensions = Path("input", "tex", "extensions")
        shutil.copytree(folder() / extensions, target / extensions, dirs_exist_ok=True)


def setup(app):
    app.connect("build-finished", _copy)
