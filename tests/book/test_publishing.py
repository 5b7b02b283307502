"""What it takes to publish and to cite the book: the citation file, BibTeX on the pages, the workflows."""

import re
from pathlib import Path

import pytest
import yaml
from pybtex.database import parse_string
from zobook import citation

ROOT = Path(__file__).parents[2]
CITED = citation.facts(ROOT)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
KNOWN = {"actions/checkout@v4", "actions/setup-python@v5", "actions/cache@v4", "actions/upload-pages-artifact@v3",
         "actions/deploy-pages@v4"}


def test_the_citation_file_is_complete():
    assert {"cff-version", "message", "title", "type", "authors", "version", "license", "references"} <= CITED.keys()
    assert CITED["cff-version"] == "1.2.0" and CITED["type"] in ("software", "dataset")
    assert CITED["authors"] == CITED["preferred-citation"]["authors"] == [{"name": "The zolib authors"}]
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert str(CITED["version"]) == version


def test_the_citation_file_refers_to_the_review():
    (review,) = CITED["references"]
    assert [author["family-names"] for author in review["authors"]] == ["García Fernández", "Ahmad", "van Gerven"]
    assert review["identifiers"][0]["value"] == "arXiv:2510.18812"


def read(bibtex: str):
    """The entries of a BibTeX text, read by the program that also reads the book's bibliography."""
    return parse_string(bibtex, "bibtex").entries


def test_the_bibtex_can_be_read():
    book = read(citation.of_book(CITED))[citation.KEY]
    assert book.type == "book" and book.fields["title"] == CITED["preferred-citation"]["title"]
    assert [str(person) for person in book.persons["author"]] == ["{The zolib authors}"]
    chapter = read(citation.of_chapter(CITED, 5, "Values", "https://example.org"))[f"{citation.KEY}-05"]
    assert (chapter.fields["chapter"], chapter.fields["title"]) == ("5", "Values")
    assert chapter.fields["url"] == "https://example.org" and "url" not in book.fields
    (review,) = read(citation.of_reference(CITED["references"][0])).values()
    assert [person.last_names[0] for person in review.persons["author"]] == ["García", "Ahmad", "Gerven"]
    assert review.fields["eprint"] == "2510.18812"


def test_the_pages_say_how_to_cite_them(html):
    def shown(name):
        page = re.sub(r"<[^>]+>", "", (html / name).read_text(encoding="utf-8"))
        return page.replace("&#39;", "'").replace("&amp;", "&")

    assert citation.of_book(CITED) in shown("book/index.html")
    assert "2510.18812" in shown("book/index.html")
    chapters = sorted((ROOT / "chapters").rglob("*.ipynb"))
    assert chapters
    for file in chapters:
        page = shown(file.relative_to(ROOT).with_suffix(".html"))
        assert page.count(f"@incollection{{{citation.KEY}-{file.name[:2]},") == 1, file


def test_links_to_a_repository_are_absent_until_one_is_named(html):
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["zobook_repository"] == ""
    for page in (html / "chapters").rglob("*.html"):
        assert not re.search(r"colab\.research|mybinder|Run this chapter in", page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_are_pinned_and_may_do_little(file):
    text = file.read_text()
    workflow = yaml.safe_load(text)
    assert set(re.findall(r"uses: (\S+)", text)) <= KNOWN
    assert workflow["permissions"]["contents"] == "read"
    assert set(workflow["permissions"]) <= {"contents", "issues"}
    granted = {name: job.get("permissions", {}) for name, job in workflow["jobs"].items()}
    assert {name for name, extra in granted.items() if extra} <= {"publish"}
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_binder_installs_the_pinned_versions():
    wanted = (ROOT / ".binder" / "requirements.txt").read_text().split("\n")
    assert "-e .[book]" in wanted and "-c ../constraints.txt" in wanted
