"""Every picture needs words that stand for it where it cannot be seen.

For a figure drawn by a cell these are, in this order: the cell's metadata ``mystnb.image.alt``; else the text
form of the same output, which ``zolib.notebook.show(figure, alt="...")`` writes. Elsewhere: the alternative text
of the image, and for an inline SVG a role with an ``aria-label`` (or ``aria-hidden="true"``).
"""

import re
from html.parser import HTMLParser

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)

DEFAULT_REPR = re.compile(r"^<.*>$", re.DOTALL)  # such as <Figure size 640x480 with 1 Axes>


def cells(doctree):
    """Pairs (number of the cell, counted from 1 over all cells; its node) of a chapter's code cells."""
    for node in doctree.findall(nodes.container):
        if node.get("nb_element") == "cell_code":
            yield node["cell_index"] + 1, node


def ancestors(node):
    """The node itself, its parent, and so on up to the document."""
    while node is not None:
        yield node
        node = node.parent


def words_of_output(bundle) -> str:
    """The text form of one output, if somebody wrote it."""
    for form in bundle.children:
        if form.get("mime_type") == "text/plain":
            text = " ".join(form.astext().split())
            return "" if DEFAULT_REPR.match(text) else text
    return ""


def name_figures(doctree) -> None:
    """Give the images of each cell's outputs the words of the same output."""
    for _, cell in cells(doctree):
        for bundle in cell.findall(nodes.container):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            words = words_of_output(bundle)
            for image in bundle.findall(nodes.image):
                if not image.get("alt") and words:
                    image["alt"] = words


class _Pictures(HTMLParser):
    """Finds pictures without words in a piece of HTML."""

    def __init__(self):
        super().__init__()
        self.nameless = []

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        if has.get("aria-hidden") == "true":
            return
        if tag == "img" and not has.get("alt"):
            self.nameless.append("<img> without alt")
        named = has.get("aria-label") or has.get("aria-labelledby")
        if tag == "svg" and not (has.get("role") in ("img", "group") and named):
            self.nameless.append('<svg> without role="img" (or "group", if it holds links) and aria-label')


def nameless_in_html(html: str) -> list[str]:
    parser = _Pictures()
    parser.feed(html)
    return parser.nameless


def nameless(doctree):
    """Pairs (node, what is missing) of every picture without words."""
    for image in doctree.findall(nodes.image):
        if not (image.get("alt") or "").strip():
            yield image, "image without alternative text"
    for raw in doctree.findall(nodes.raw):
        if "html" in raw.get("format", ""):
            for problem in nameless_in_html(raw.astext()):
                yield raw, problem


def _check(app, doctree):
    name_figures(doctree)
    numbers = {id(cell): number for number, cell in cells(doctree)}
    for node, problem in nameless(doctree):
        number = next((numbers[id(above)] for above in ancestors(node) if id(above) in numbers), None)
        line = next((above.line for above in ancestors(node) if above.line), None)
        if number is not None:
            problem = f"cell {number}: {problem}; show it with zolib.notebook.show(figure, alt=\"...\")"
        else:
            problem = f"{problem}; say in words what it shows"
        logger.warning(problem, location=(app.env.docname, line))


def setup(app):
    app.connect("doctree-read", _check)
