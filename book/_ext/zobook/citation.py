"""How to cite the book (the directive ``cite-the-book``) and, below each chapter, how to cite that chapter.

Title, authors, year and version are those of ``CITATION.cff``, so that there is one place to change.
"""

import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .launch import address, is_chapter

KEY = "zolib-book"


def facts(root: Path) -> dict:
    return yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))


def authors(people: list[dict]) -> str:
    """Authors as BibTeX wants them: a group in braces, a person as family name, given names."""
    return " and ".join(f"{{{p['name']}}}" if "name" in p else f"{p['family-names']}, {p['given-names']}" for p in people)


def entry(kind: str, key: str, fields: dict) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def of_book(cited: dict, url: str = "") -> str:
    book = cited["preferred-citation"]
    return entry("book", KEY, {"title": book["title"], "author": authors(book["authors"]), "year": book["year"],
                               "note": f"Version {cited['version']}", "url": url})


def of_chapter(cited: dict, number: int, title: str, url: str = "") -> str:
    book = cited["preferred-citation"]
    return entry("incollection", f"{KEY}-{number:02d}", {
        "title": title, "author": authors(book["authors"]), "booktitle": book["title"], "chapter": number,
        "year": book["year"], "note": f"Version {cited['version']}", "url": url})


def of_reference(reference: dict) -> str:
    """One of the works that CITATION.cff refers to."""
    arxiv = next(i["value"] for i in reference["identifiers"] if i["value"].startswith("arXiv:"))
    first = re.sub(r"\W", "", reference["authors"][0]["family-names"].split()[0])
    return entry("misc", f"{first}{reference['year']}", {
        "title": reference["title"], "author": authors(reference["authors"]), "year": reference["year"],
        "eprint": arxiv.removeprefix("arXiv:"), "archiveprefix": "arXiv"})


def shown(bibtex: str):
    return nodes.literal_block(bibtex, bibtex, language="bibtex", classes=["bibtex"])


class CiteTheBook(SphinxDirective):
    def run(self):
        self.env.note_dependency(str(Path(self.env.srcdir) / "CITATION.cff"))
        cited = facts(Path(self.env.srcdir))
        entries = [of_book(cited, address(self.config)), *map(of_reference, cited["references"])]
        return [shown("\n\n".join(entries))]


def _below_chapter(app, doctree, docname):
    file = Path(app.srcdir) / "CITATION.cff"
    if not is_chapter(app, docname) or not file.exists():
        return
    number = int(docname.rsplit("/", 1)[-1][:2])
    bibtex = of_chapter(facts(file.parent), number, app.env.titles[docname].astext(), address(app.config))
    section = next(iter(doctree.findall(nodes.section)))
    section += [nodes.raw("", '<details class="cite"><summary>Cite this chapter</summary>', format="html"), shown(bibtex),
                nodes.raw("", "</details>", format="html")]


def setup(app):
    app.add_directive("cite-the-book", CiteTheBook)
    app.connect("doctree-resolved", _below_chapter)
