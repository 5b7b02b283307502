"""The directive ``catalogue-table``: the learning rules of ``zolib.catalogue``, one row each."""

import sys

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import zolib


class CatalogueTable(SphinxDirective):
    def run(self):
        module = sys.modules["zolib.catalogue"]
        for name in ("catalogue", "methods"):
            self.env.note_dependency(sys.modules[f"zolib.{name}"].__file__)
        table = nodes.table(classes=["catalogue"])
        group = nodes.tgroup(cols=len(module.COLUMNS))
        group += [nodes.colspec(colwidth=1) for _ in module.COLUMNS]
        group += nodes.thead("", self.row(module.COLUMNS))
        body = nodes.tbody()
        body += [self.row(cells) for cells in zolib.catalogue.table().rows]
        group += body
        table += group
        return [table]

    @staticmethod
    def row(cells):
        row = nodes.row()
        row += [nodes.entry("", nodes.paragraph(text=cell)) for cell in cells]
        return row


def setup(app):
    app.add_directive("catalogue-table", CatalogueTable)
