"""Pages load nothing from outside, and no script twice.

Jupyter Book adds thebe (from a CDN, for live code) and some scripts twice over, which logs errors in the
browser's console. Both are dropped from every page.
"""


def _name(script) -> str:
    return str(getattr(script, "filename", script) or "")


def _clean(app, pagename, templatename, context, doctree):
    kept, seen = [], set()
    for script in context.get("script_files", []):
        name = _name(script)
        body = str(getattr(script, "attributes", {}).get("body", ""))
        if "thebe" in (name + body).lower() or (name or body) in seen:
            continue
        seen.add(name or body)
        kept.append(script)
    context["script_files"] = kept


def setup(app):
    app.connect("html-page-context", _clean, priority=900)
