"""What this book asks of Sphinx beyond Jupyter Book: one idea per file.

Whatever is wrong is reported as a Sphinx warning, and the book is built with warnings as failures.
"""

from . import alt_text, cache_key, docstrings, formulas, ledger, ledger_page, mathjax, public_names, scripts


def setup(app):
    for part in (alt_text, cache_key, docstrings, formulas, ledger, ledger_page, mathjax, public_names, scripts):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
