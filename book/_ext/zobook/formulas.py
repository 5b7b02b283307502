"""Every formula is typeset while the book is built, and the finished pages hold drawings: they need no MathJax.

So a reader waits for no formula, sees them without scripts too, and the text does not jump when they arrive. MathJax
runs under the node that comes with playwright. A formula that fails, also by an unknown macro, fails the build.

A browser may break a line after a formula as after a picture. So the mark that follows one is tied to it.
"""

import html
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
# A formula as Sphinx writes it: its element, perhaps with its number, and TeX between \( and \) or \[ and \].
NUMBER = r'\s*<span class="eqno">(?:(?!</span>).)*</span>'
WRITTEN = re.compile(rf'(<(span|div) class="math notranslate[^>]*>(?:{NUMBER})?)\s*\\[(\[]([^<]*)\\[)\]]\s*(?=</\2>)', re.DOTALL)


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


def typeset(formulas: list[tuple[str, bool]], macros: dict) -> dict:
    """Typeset pairs (TeX, displayed): ``errors`` by position, ``html`` of each, the ``glyphs`` by name, the ``style``."""
    task = {
        "mathjax": str(mathjax.folder()),
        "macros": macros,
        "formulas": [{"tex": tex, "display": display} for tex, display in formulas],
    }
    done = subprocess.run([node_program(), str(SCRIPT)], input=json.dumps(task), capture_output=True, text=True)
    if done.returncode != 0:
        raise ExtensionError(f"formulas could not be typeset: {done.stderr.strip()[-2000:]}")
    found = json.loads(done.stdout)
    return found | {"errors": {int(index): message for index, message in found["errors"].items()}}


def _collect(app, doctree):
    for node in doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block)):
        where = app.env.doc2path(app.env.docname), node.line
        app.zobook_formulas.append((as_browser_sees_it(node), isinstance(node, nodes.math_block), where))


def written(page: str) -> list[tuple[str, bool]]:
    """The formulas in a page's HTML, as pairs (TeX, displayed)."""
    return [(html.unescape(tex), tag == "div") for _, tag, tex in WRITTEN.findall(page)]


def drawn(page: str, drawings: dict[tuple[str, bool], str], glyphs: dict[str, str], style: str) -> str:
    """The page with its formulas replaced by their drawings, and with the glyphs and the style that these use."""
    page = WRITTEN.sub(lambda found: found[1] + drawings[html.unescape(found[3]), found[2] == "div"], page)
    used = "".join(glyphs[name] for name in sorted(set(re.findall(r'xlink:href="#(MJX-[^"]+)"', page))))
    page = page.replace("</head>", f"<style>{style}</style>\n</head>", 1)
    return re.sub(r"<body[^>]*>", lambda body: f'{body[0]}\n<svg style="display: none"><defs>{used}</defs></svg>', page, count=1)


def _macros(app) -> dict:
    return (app.config.mathjax3_config or {}).get("tex", {}).get("macros", {})


def _check(app, env):
    found = app.zobook_formulas
    if not found:
        return
    for index, message in typeset([(tex, display) for tex, display, _ in found], _macros(app))["errors"].items():
        tex, _, (path, line) = found[index]
        logger.warning("formula %r cannot be typeset: %s", tex, message, location=f"{path}:{line or ''}")
    found.clear()


def tied(body: str) -> str:
    """``body`` with each formula in a line and the marks that follow it in one piece."""
    return BEFORE_MARK.sub(r'<span class="with-mark">\g<0></span>', body)


def _tie(app, pagename, templatename, context, doctree):
    if "body" in context:
        context["body"] = tied(context["body"])


def _draw(app, exception):
    """Draw the formulas of all pages that were written in this build: of the others none is left as TeX."""
    if exception is not None or app.builder.format != "html":
        return
    pages = {file: file.read_text(encoding="utf-8") for file in Path(app.outdir).rglob("*.html")}
    pages = {file: page for file, page in pages.items() if WRITTEN.search(page)}
    formulas = sorted({formula for page in pages.values() for formula in written(page)})
    if not formulas:
        return
    found = typeset(formulas, _macros(app))
    drawings = dict(zip(formulas, found["html"], strict=True))
    for file, page in pages.items():
        file.write_text(drawn(page, drawings, found["glyphs"], found["style"]), encoding="utf-8")


def setup(app):
    app.zobook_formulas = []
    app.connect("html-page-context", _tie)
    app.connect("doctree-read", _collect)
    app.connect("env-updated", _check)
    app.connect("build-finished", _draw)
