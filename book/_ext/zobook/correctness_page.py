"""The directive ``correctness-table``: every estimator against its known mean and second moment, measured by the build.

A row that does not hold is a warning, and so the book is not built.
"""

import math
from itertools import groupby
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from . import cache_key

logger = logging.getLogger(__name__)

COLUMNS = 7
HEAD = (  # words, columns, rows
    (("Feedback", 1, 2), ("Slope", 2, 1), ("Second moment", 3, 1), ("Verdict", 1, 2)),
    (("theory", 1, 1), ("measured", 1, 1), ("formula", 1, 1), ("theory", 1, 1), ("measured", 1, 1)),
)


class CorrectnessTable(SphinxDirective):
    def run(self):
        from . import correctness, correctness_cases  # torch and SciPy, for this page alone

        root = Path(self.env.app.srcdir)
        for file in cache_key.watched_files(root):
            if file.suffix == ".py" or file.name == "constraints.txt":  # the pages read are kept while these stay
                self.env.note_dependency(str(file))
        rows = correctness.measure(correctness_cases.all_cases())
        for row in rows:
            for fault in row.faults:
                logger.warning("correctness: %s: %s", row.case.name, fault, location=self.get_location())
        return [self.summary(rows, correctness), self.table(rows)]

    @staticmethod
    def summary(rows, correctness):
        failed = sum(bool(row.faults) for row in rows)
        level, true = 100 * (1 - correctness.LEVEL), 100 * (1 - correctness.true_level(rows))
        found = f"{failed} of them did not agree" if failed else "all agree"
        return nodes.paragraph(
            text=f"This build measured {len(rows)} estimators; {found}. The level of all {2 * len(rows)} intervals "
            f"together is {level:.4g} %, or {true:.4g} % once the skewness of the estimates is counted."
        )

    def table(self, rows):
        table = nodes.table(classes=["catalogue", "correctness"])
        group = nodes.tgroup(cols=COLUMNS)
        group += [nodes.colspec(colwidth=1) for _ in range(COLUMNS)]
        group += nodes.thead("", *(heading(words) for words in HEAD))
        body = nodes.tbody()
        for name, members in groupby(rows, key=lambda row: row.case.group):
            members = list(members)
            sizes = {f"{row.case.replicates:,} estimates, K = {row.case.samples}": None for row in members}
            words = paragraph(nodes.strong("", name), nodes.Text(f": {'; '.join(sizes)}"))
            body += nodes.row("", nodes.entry("", words, morecols=COLUMNS - 1))
            body += [self.row(row) for row in members]
        group += body
        table += group
        return table

    @staticmethod
    def row(row):
        case = row.case
        verdict = "\N{BALLOT X} fails" if row.faults else "\N{CHECK MARK} holds"
        marked = nodes.inline("", verdict, classes=["claim-verdict"])
        return line(
            nodes.Text(case.label),
            nodes.Text(f"{case.slope:.4g}"),
            nodes.Text(measured(*row.slope)),
            nodes.math("", case.formula),
            nodes.Text(f"{case.moment:.4g}"),
            nodes.Text(measured(*row.moment)),
            nodes.inline("", "", marked, classes=["claim-departs" if row.faults else "claim-reproduced"]),
        )


def measured(mean: float, half: float) -> str:
    """Mean and half width, to two digits of the half width."""
    if half < 1e-6 * abs(mean):
        return f"{mean:.4g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def paragraph(*content):
    return nodes.paragraph("", "", *content)


def heading(words):
    row = nodes.row()
    for word, columns, rows in words:
        row += nodes.entry("", paragraph(nodes.Text(word)), morecols=columns - 1, morerows=rows - 1)
    return row


def line(*cells):
    return nodes.row("", *(nodes.entry("", paragraph(cell)) for cell in cells))


def setup(app):
    app.add_directive("correctness-table", CorrectnessTable)
