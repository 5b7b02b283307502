"""MathJax comes from an installed package, never from the network and never from the repository."""

import importlib.metadata
from pathlib import Path

from sphinx.errors import ExtensionError


def folder() -> Path:
    """The MathJax folder inside the installed sphinx-mathjax-offline (its name has hyphens: not importable)."""
    files = importlib.metadata.distribution("sphinx-mathjax-offline").files or []
    for file in files:
        if file.name == "node-main.js":
            return Path(file.locate()).parent
    raise ExtensionError("sphinx-mathjax-offline is installed without node-main.js: run make venv again")
