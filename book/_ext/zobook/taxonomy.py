"""The directive ``catalogue-table``: the learning rules of ``zolib.catalogue``, one row each.

On the page the key of a rule, its name in the literature and its reference share a column, so that a table of
eight fits beside the contents.
"""

import sys

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import zolib

WIDTHS = (25, 7, 12, 11, 11, 13, 10, 11)  # in per cent


class CatalogueTable(SphinxDirective):
    def run(self):
        module = sys.modules["zolib.catalogue"]
        for name in ("catalogue", "methods"):
            self.env.note_dependency(sys.modules[f"zolib.{name}"].__file__)
        table = nodes.table(classes=["catalogue", "sortable", "colwidths-given"])
        group = nodes.tgroup(cols=len(WIDTHS))
        group += [nodes.colspec(colwidth=width) for width in WIDTHS]
        group += nodes.thead("", self.row(nodes.paragraph(text="rule"), *module.COLUMNS[2:]))
        body = nodes.tbody()
        for key, title, *cells in zolib.catalogue.table().rows:
            body += self.row(nodes.paragraph("", f"{title}. ", nodes.literal(text=key)), *cells)
        group += body
        table += group
        return [table]

    @staticmethod
    def row(first, *others):
        row = nodes.row()
        row += [nodes.entry("", first), *(nodes.entry("", nodes.paragraph(text=cell)) for cell in others)]
        return row


def setup(app):
    app.add_directive("catalogue-table", CatalogueTable)
