"""Pages load nothing from outside, nothing that they do not need, and no script twice.

Jupyter Book adds thebe (from a CDN, for live code) and some scripts twice over, which logs errors in the
browser's console; Sphinx adds MathJax, whose work is done when the book is built (formulas.py). All these are dropped
from every page. A search lists excerpts by fetching the pages it found, which browsers refuse to a page opened from a
file: there it lists titles only.
"""

import re

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


def setup(app):
    app.add_js_file(None, body=NO_EXCERPTS_FROM_FILES)
    app.connect("html-page-context", _clean, priority=900)
