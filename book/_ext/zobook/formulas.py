"""Every formula is typeset while the book is built, so that a broken one fails the build and not the reader.

The pages typeset their formulas in the browser; the same MathJax is run here under the node that comes with
playwright. Unknown macros, which a browser would show in red, are errors here.

A browser may break a line after a formula as after a picture. So the mark that follows one is tied to it.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util import logging

from . import mathjax

logger = logging.getLogger(__name__)
SCRIPT = Path(__file__).with_name("formulas.js")
BEFORE_MARK = re.compile(r'<span class="math[^"]*">[^<]*</span>[,.;:!?)\]\u2019\u201d]+')


def node_program() -> str:
    """The node shipped inside playwright's wheel, or one on the path."""
    import playwright

    driver = Path(playwright.__file__).parent / "driver"
    for name in ("node", "node.exe"):
        if (driver / name).exists():
            return str(driver / name)
    found = shutil.which("node")
    if found is None:
        raise ExtensionError("no node to typeset formulas with: run make venv again")
    return found


def as_browser_sees_it(node) -> str:
    """The TeX of one formula as Sphinx will write it into the page."""
    text = node.astext()
    if isinstance(node, nodes.math) or node.get("no-wrap", node.get("nowrap")):
        return text
    parts = [part for part in text.split("\n\n") if part.strip()]
    parts = [rf"\begin{{split}}{part}\end{{split}}" if r"\\" in part else part for part in parts]
    if len(parts) > 1:
        return r"\begin{align}\begin{aligned}" + r" \\ ".join(parts) + r"\end{aligned}\end{align}"
    return parts[0] if parts else ""


def typeset(formulas: list[tuple[str, bool]], macros: dict) -> dict[int, str]:
    """Typeset pairs (TeX, displayed); the errors by position."""
    task = {
        "mathjax": str(mathjax.folder()),
        "macros": macros,
        "formulas": [{"tex": tex, "display": display} for tex, display in formulas],
    }
    done = subprocess.run([node_program(), str(SCRIPT)], input=json.dumps(task), capture_output=True, text=True)
    if done.returncode != 0:
        raise ExtensionError(f"formulas could not be typeset: {done.stderr.strip()[-2000:]}")
    return {int(index): message for index, message in json.loads(done.stdout).items()}


def _collect(app, doctree):
    for node in doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)):
        where = app.env.doc2path(app.env.docname), node.line
        app.zobook_formulas.append((as_browser_sees_it(node), isinstance(node, nodes.math_block), where))


def _check(app, env):
    found = app.zobook_formulas
    if not found:
        return
    macros = (app.config.mathjax3_config or {}).get("tex", {}).get("macros", {})
    for index, message in typeset([(tex, display) for tex, display, _ in found], macros).items():
        tex, _, (path, line) = found[index]
        logger.warning("formula %r cannot be typeset: %s", tex, message, location=f"{path}:{line or ''}")
    found.clear()


def tied(body: str) -> str:
    """``body`` with each formula in a line and the marks that follow it in one piece."""
    return BEFORE_MARK.sub(r'<span class="with-mark">\g<0></span>', body)


def _tie(app, pagename, templatename, context, doctree):
    if "body" in context:
        context["body"] = tied(context["body"])


def setup(app):
    app.zobook_formulas = []
    app.connect("html-page-context", _tie)
    app.connect("doctree-read", _collect)
    app.connect("env-updated", _check)
