"""Executed chapters are kept only as long as nothing they depend on has changed.

Jupyter Book keys its cache of executed notebooks by their own code alone, so a change of the library would
leave stale numbers in the book. The folder of that cache is therefore named by a hash over every file of the
library, of the data, of the claims and of the pins.
"""

import hashlib
from pathlib import Path

WATCHED = ("zolib", "data", "book/claims.toml", "constraints.txt", "pyproject.toml")
IGNORED = {"__pycache__", ".ipynb_checkpoints", ".DS_Store"}


def watched_files(root: Path) -> list[Path]:
    """Every file that a chapter's outputs may depend on, in a fixed order."""
    found = []
    for name in WATCHED:
        path = root / name
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += [p for p in path.rglob("*") if p.is_file() and not IGNORED & set(p.parts)]
    return sorted(found)


def key(root: Path) -> str:
    digest = hashlib.sha256()
    for path in watched_files(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _name_the_cache(app, config):
    root = Path(app.srcdir)
    config.nb_execution_cache_path = str(root / "_build" / ".jupyter_cache" / key(root))


def setup(app):
    app.connect("config-inited", _name_the_cache, priority=100)
