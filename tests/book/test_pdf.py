"""The printed book, on three of its pages: all of them in order, linked, with formulas set and solutions open."""

import io
import re
from pathlib import Path

import pdf
import pytest
from pypdf import PdfReader

ROOT = Path(__file__).parents[2]
NAMES = ["book/index", "chapters/3-brains/14-what-one-scalar-can-teach", "book/notation"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def printed(html, chromium):
    stream = io.BytesIO()
    pdf.make(ROOT, chromium, NAMES).write(stream)
    return PdfReader(stream)


def test_title_contents_and_numbers(printed):
    texts = [page.extract_text() for page in printed.pages]
    assert "The zolib authors" in texts[0] and "Contents" in texts[1]
    labels = printed.page_labels
    first = labels.index("1")
    for title in ("What one scalar can teach", "Notation"):
        number = re.search(re.escape(title) + r"\D*(\d+)", " ".join(texts[1].split()))[1]
        assert title in " ".join(texts[first + int(number) - 1].split())
    assert [text.split()[0] == label or text.split()[-1] == label or label in text.split()
            for text, label in zip(texts[first:], labels[first:], strict=True)] == [True] * (len(texts) - first)


def test_links_lead_into_the_book_and_none_to_files_of_this_machine_that_it_holds(printed):
    inside, outside = 0, []
    for page in printed.pages:
        for note in page.get("/Annots") or []:
            note = note.get_object()
            if isinstance(note.get("/Dest"), list):
                inside += 1
            elif "/A" in note:
                outside.append(note["/A"].get("/URI", ""))
    assert inside >= 8
    assert not [link for link in outside if any(f"/{name}.html" in link for name in NAMES)]
    assert not [link for link in outside if link.startswith("file:")], "a link to a page that is not printed keeps its path"


def test_what_a_page_hides_is_printed_and_its_machinery_is_not(printed):
    text = "\n".join(page.extract_text() for page in printed.pages)
    assert "Solution" in text and "assert" in text
    for machinery in ("Filter the", "Cite this chapter", "Show code cell", "Next", "\\frac", "\\sigma", "Skip to main"):
        assert machinery not in text, machinery
