"""The directive ``claims-ledger``: the page of all claims, with what this very build measured.

What is declared is known when the page is read; what was measured only when every chapter has been executed.
So the page is laid out with gaps, which are filled just before it is written.
"""

import re
from collections import Counter

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from zolib import claims
from zolib.claims import number

from . import ledger

CHAPTER = re.compile(r"\bchapter 0(\d)")                    # as in the names of files
EQUATION = re.compile(r"\bequation \((?:eq-)?([\w-]+)\)")  # by its label
MARKS = {"reproduced": "\N{CHECK MARK}", "departs": "\N{NOT EQUAL TO}", "recorded": "\N{BLACK CIRCLE}"}


class Gap(nodes.General, nodes.Element):
    """Stands for what is not known before all chapters are executed; ``fill`` says what."""


class ClaimsLedger(SphinxDirective):
    has_content = False

    def run(self):
        file = ledger.claims_file(self.env.app)
        self.env.note_dependency(str(file))
        self.env.zobook_ledger_page = self.env.docname
        try:
            declared = claims.load(file)
        except claims.ClaimError:
            declared = {}  # the comparison reports it
        self.keys = bibliography_keys(self.env)
        page = [Gap(fill="totals"), self.legend("Verdicts", claims.VERDICTS), self.legend("Sources", claims.GRADES)]
        for chapter in sorted({claim.chapter for claim in declared.values()}):
            title = f"Chapter {int(chapter)}"
            rows = [self.row(claim) for claim in declared.values() if claim.chapter == chapter]
            page.append(nodes.section("", nodes.title(text=title), *rows, ids=[chapter_anchor(chapter)], names=[title],
                                      classes=["claims-chapter"]))
        return page

    def legend(self, title: str, meanings: dict):
        box = nodes.container(classes=["claims-legend"])
        items = "; ".join(f"**{word}**: {meaning}" for word, meaning in meanings.items())
        box += self.markdown(f"{title}. {items}.")
        return box

    def row(self, claim):
        row = nodes.container(classes=["claim", f"claim-{claim.expected}"], ids=[ledger.anchor(claim.id)])
        row += nodes.paragraph("", "", mark(claim.expected), classes=["claim-verdict-line"])
        row += self.markdown(claim.sentence)
        unit = f" {claim.unit}" if claim.unit else ""
        tolerance = f"{100 * claim.tolerance:.4g} %" if claim.relative else f"{number(claim.tolerance)}{unit}"
        facts = nodes.definition_list(classes=["claim-facts"])
        facts += fact(claim.kind.capitalize(), nodes.paragraph("", f"{number(claim.value)}{unit}"))
        facts += fact("Measured", Gap(fill="measured", claim=claim.id, unit=unit))
        facts += fact("Tolerance", *self.markdown(f"{tolerance}\\. {claim.argument}"))
        facts += fact("Source", *self.markdown(f"{self.source(claim)} ({claim.grade})"))
        row += facts
        return row

    def source(self, claim) -> str:
        """The source as Markdown: each key of the bibliography is a citation."""
        return re.sub(r"\w[\w:-]*\b", lambda word: f"{{cite:t}}`{word[0]}`" if word[0] in self.keys else word[0], claim.source)

    def markdown(self, text: str) -> list:
        """The nodes of ``text``, with the numbers that a reader sees of equations and chapters."""
        text = CHAPTER.sub(r"chapter \1", EQUATION.sub(r"equation {eq}`eq-\1`", text))
        box = nodes.Element()
        self.state.nested_parse(StringList([text], source=str(ledger.claims_file(self.env.app))), 0, box)
        return box.children


def mark(verdict: str):
    return nodes.inline("", f"{MARKS[verdict]} {verdict}", classes=["claim-verdict"])


def chapter_anchor(chapter: str) -> str:
    return f"claims-{chapter}"


def fact(name: str, *content):
    item = nodes.definition_list_item()
    item += nodes.term("", name)
    item += nodes.definition("", *content)
    return item


def bibliography_keys(env) -> set[str]:
    from pathlib import Path

    keys = set()
    for file in getattr(env.config, "bibtex_bibfiles", []):
        path = Path(env.srcdir) / file
        if path.exists():
            keys |= set(re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)\s*,", path.read_text(encoding="utf-8"), re.MULTILINE))
    return keys


def _rewrite(app, env):
    """The page is written anew whenever any page is: it depends on all chapters."""
    page = getattr(env, "zobook_ledger_page", None)
    return [page] if page in env.found_docs else []


def _fill(app, doctree, docname):
    gaps = list(doctree.findall(Gap))
    if not gaps:
        return
    found = {record["id"]: (name, record)
             for name, records in ledger.measured(app.env).items() for record in records or []}
    for gap in gaps:
        gap.replace_self(totals(found) if gap["fill"] == "totals" else result(app, docname, gap, found))


def totals(found):
    count = Counter(record["verdict"] for _, record in found.values())
    box = nodes.container(classes=["claims-totals"])
    box += nodes.paragraph("", "", nodes.strong("", str(len(found))), nodes.Text(" claims"))
    for verdict in claims.VERDICTS:
        total = nodes.paragraph("", "", nodes.strong("", str(count[verdict])), nodes.Text(" "), mark(verdict),
                                classes=[f"claim-{verdict}"])
        if verdict != "reproduced":  # the few are worth finding among the many
            for name, (_, record) in found.items():
                if record["verdict"] == verdict:
                    total += [nodes.Text(" "), nodes.reference("", name, refid=ledger.anchor(name), internal=True)]
        box += total
    return [box, by_chapter(found)]


def by_chapter(found):
    """A table: one row a chapter, how many claims it has and how they came out."""
    count = Counter((chapter_number(page), record["verdict"]) for page, record in found.values())
    chapters = sorted({chapter for chapter, _ in count})
    table = nodes.table(classes=["claims-by-chapter"])
    group = nodes.tgroup(cols=5)
    group += [nodes.colspec(colwidth=1) for _ in range(5)]
    group += nodes.thead("", line("chapter", "claims", *claims.VERDICTS))
    body = nodes.tbody()
    for chapter in chapters:
        of_verdict = [count[chapter, verdict] for verdict in claims.VERDICTS]
        link = nodes.reference("", f"{int(chapter)}", refid=chapter_anchor(chapter), internal=True)
        body += line(link, sum(of_verdict), *of_verdict)
    group += body
    table += group
    return table


def line(first, *others):
    first = first if isinstance(first, nodes.Node) else nodes.Text(first)
    cells = [first, *(nodes.Text(str(other)) for other in others)]
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def chapter_number(page: str) -> str:
    return page.rsplit("/", 1)[-1][:2]


def result(app, docname, gap, found):
    if gap["claim"] not in found:
        return nodes.paragraph("", "not measured")
    chapter, record = found[gap["claim"]]
    spread = ""
    if record["interval"]:
        low, high = record["interval"]
        spread = f" ({number(low)} to {number(high)})"
    text = f"{number(record['value'])}{spread}{gap['unit']}, "
    target = app.builder.get_relative_uri(docname, chapter) + "#" + ledger.anchor(record["id"])
    link = nodes.reference("", f"chapter {int(chapter_number(chapter))}, cell {record['cell']}",
                           refuri=target, internal=True)
    return nodes.paragraph("", "", nodes.Text(text), link)


def setup(app):
    app.add_node(Gap)
    app.add_directive("claims-ledger", ClaimsLedger)
    app.connect("env-updated", _rewrite)
    app.connect("doctree-resolved", _fill)
