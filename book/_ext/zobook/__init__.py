"""What this book asks of Sphinx beyond Jupyter Book: one idea per file."""

from . import cache_key, mathjax, scripts


def setup(app):
    for part in (cache_key, mathjax, scripts):
        part.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
