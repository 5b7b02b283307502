"""What this book asks of Sphinx beyond Jupyter Book: one idea per file.

Whatever is wrong is reported as a Sphinx warning, and the book is built with warnings as failures.
"""

import zlib
from pathlib import Path

from . import (
    alt_text,
    cache_key,
    citation,
    correctness_page,
    docstrings,
    formulas,
    image_sizes,
    launch,
    ledger,
    ledger_page,
    public_names,
    scripts,
    semantics,
    source_pages,
    taxonomy,
)

PARTS = (
    alt_text,
    cache_key,
    citation,
    correctness_page,
    docstrings,
    formulas,
    image_sizes,
    launch,
    ledger,
    ledger_page,
    public_names,
    scripts,
    semantics,
    source_pages,
    taxonomy,
)


def own_version() -> int:
    """Changes with every change of these files; Sphinx then reads all pages again instead of trusting old ones."""
    files = sorted(file for kind in ("*.py", "*.js") for file in Path(__file__).parent.glob(kind))
    return zlib.crc32(b"\0".join(file.read_bytes() for file in files))


def setup(app):
    for part in PARTS:
        part.setup(app)
    return {"version": "1", "env_version": own_version(), "parallel_read_safe": False, "parallel_write_safe": True}
