"""Pages load nothing from outside, nothing that they do not need, and no script twice.

Jupyter Book adds thebe (from a CDN, for live code) and some scripts twice over, which logs errors in the
browser's console; Sphinx adds MathJax, whose work is done when the book is built (formulas.py). All these are dropped
from every page. A search lists excerpts by fetching the pages it found, which browsers refuse to a page opened from a
file: there it lists titles only.

The theme brings its icons twice, as a font and as a script of 1.5 MB that replaces each letter of the font by a
drawing. The font does.
"""

import re
from pathlib import Path

NO_EXCERPTS_FROM_FILES = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'


def _name(script) -> str:
    return str(getattr(script, "filename", script) or "")


def _clean(app, pagename, templatename, context, doctree):
    kept, seen = [], set()
    for script in context.get("script_files", []):
        name = _name(script)
        body = str(getattr(script, "attributes", {}).get("body", ""))
        if re.search("thebe|mathjax", (name + body).lower()) or (name or body) in seen:
            continue
        seen.add(name or body)
        kept.append(script)
    context["script_files"] = kept


ICONS = re.compile(r'\s*<script [^>]*src="[^"]*/scripts/fontawesome\.js[^"]*"></script>')


def _drop_icons(app, exception):
    """The theme's template names that script itself, so it is taken from the pages that were written."""
    if exception is not None or app.builder.format != "html":
        return
    for file in Path(app.outdir).rglob("*.html"):
        page = file.read_text(encoding="utf-8")
        if ICONS.search(page):
            file.write_text(ICONS.sub("", page), encoding="utf-8")
    for script in (Path(app.outdir) / "_static" / "scripts").glob("fontawesome.js*"):
        script.unlink()


def setup(app):
    app.connect("build-finished", _drop_icons)
    app.add_js_file(None, body=NO_EXCERPTS_FROM_FILES)
    app.connect("html-page-context", _clean, priority=900)
