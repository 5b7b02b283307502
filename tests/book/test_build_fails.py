"""A build with one fault planted fails, and fails again when it is repeated unmended.

A book of two pages and a chapter, with this book's own configuration and extension, is built again and again.
"""

import base64
import os
import re
import shutil
from pathlib import Path

import build
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

TOC = """format: jb-book
root: book/index
parts:
  - caption: One
    numbered: 2
    chapters:
      - file: chapters/01-small
      - file: book/claims
      - file: book/references
"""
CLAIM = """[four]
chapter = "01"
sentence = "Two and two make $2 + 2$."
source = "euclid, book seven"
grade = "textbook"
predicted = 4
tolerance = 0.5
argument = "Nobody ever found another number."
expected = "reproduced"
"""
PAGE = "# A small book\n\nA formula $x^2$, and {cite:t}`euclid`.\n"
BIB = "@book{euclid, author = {Euclid}, title = {Elements}, year = {1482}, publisher = {Ratdolt}}\n"
PIXEL = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
MEASURE = "from zolib.claims import measure\nmeasure('four', 4.2, interval=(4.1, 4.3))"
SHOW = ("from IPython.display import display\n"
        f"display({{'image/png': '{PIXEL}', 'text/plain': 'A single point.'}}, raw=True)")


class SmallBook:
    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(ROOT / "book" / "_ext", root / "book" / "_ext")
        shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
        (root / "zolib").mkdir()
        (root / "zolib" / "__init__.py").write_text("")
        shutil.copy(ROOT / "zolib" / "claims.py", root / "zolib")
        for name in ("_config.yml", "book/claims.md", "book/references.md"):
            shutil.copy(ROOT / name, root / name)
        (root / "_toc.yml").write_text(TOC)
        (root / "book" / "references.bib").write_text(BIB)
        (root / "book" / "_static" / "pixel.png").write_bytes(base64.b64decode(PIXEL))
        (root / "chapters").mkdir()
        self.reset()

    def reset(self):
        """Write every file that a test may change."""
        self.page(PAGE)
        self.claim(CLAIM)
        self.chapter(MEASURE, SHOW)

    def page(self, text):
        (self.root / "book" / "index.md").write_text(text)

    def claim(self, text):
        (self.root / "book" / "claims.toml").write_text(text)

    def chapter(self, *sources):
        v4 = nbformat.v4
        # a stored output that is false, which must not reach any page
        false = v4.new_output("stream", name="stdout", text="measured 99.99\n")
        cells = [v4.new_code_cell(source, id=f"c{i}", outputs=[false], execution_count=i)
                 for i, source in enumerate(sources, start=1)]
        title = v4.new_markdown_cell("# A small chapter\n\n$$\\R \\ni x$$", id="title")
        nbformat.write(v4.new_notebook(cells=[title, *cells], metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}),
            self.root / "chapters" / "01-small.ipynb")

    def build(self):
        """Exit status and what was printed, without colours."""
        done = build.build(self.root, quiet=True)
        return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)

    def html(self, name):
        return (self.root / "_build" / "html" / f"{name}.html").read_text()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    book = SmallBook(tmp_path_factory.mktemp("small"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(book.root), os.environ.get("PYTHONPATH", "")]))
        status, log = book.build()
        assert status == 0, log[-4000:]
        yield book


def test_the_ledger_shows_what_was_executed(small):
    small.reset()
    assert small.build()[0] == 0
    page = small.html("book/claims")
    assert "4.2 (4.1 to 4.3)" in page
    assert "chapters/01-small.html#claim-four" in page.replace("../", "")
    chapter = small.html("chapters/01-small")
    assert 'id="claim-four"' in chapter and "claim-output claim-reproduced" in chapter
    assert "Euclid" in page
    for name in ("book/claims", "chapters/01-small"):
        assert "99.99" not in small.html(name)


def test_nothing_is_executed_again_unless_something_changed(small):
    small.reset()
    library = small.root / "zolib" / "estimator.py"
    library.write_text("constant = 1\n")
    assert "Executing notebook" in small.build()[1]
    assert "Executing notebook" not in small.build()[1]
    library.write_text("constant = 2\n")
    assert "Executing notebook" in small.build()[1]
    library.unlink()


def test_one_setting_gives_every_chapter_its_links(small):
    config = small.root / "_config.yml"
    small.reset()
    without = config.read_text()
    assert small.build()[0] == 0
    elsewhere = ("colab.research.google.com", "mybinder.org", "github.com/ada/engine")
    assert not any(place in small.html("chapters/01-small") for place in elsewhere)
    try:
        config.write_text(without.replace('zobook_repository: ""', "zobook_repository: ada/engine"))
        assert small.build()[0] == 0
        chapter = small.html("chapters/01-small")
        file = "chapters/01-small.ipynb"
        for link in (f"https://colab.research.google.com/github/ada/engine/blob/main/{file}",
                     f"https://mybinder.org/v2/gh/ada/engine/main?urlpath=lab/tree/{file}",
                     f"https://github.com/ada/engine/blob/main/{file}"):
            assert chapter.count(f'href="{link}') == 2, link  # a button above, a line below the title
        assert "git+https://github.com/ada/engine" in chapter
        assert "colab" not in small.html("book/index")
        config.write_text(without.replace('zobook_repository: ""', "zobook_repository: engine"))
        status, log = small.build()
        assert status != 0 and "write it as owner/name" in log
    finally:
        config.write_text(without)


TWICE = {
    "a warning": (lambda b: b.page(PAGE + "\n```{nothing}\n```\n"), "Unknown directive type: 'nothing'"),
    "a reference to nothing": (lambda b: b.page(PAGE + "\n{ref}`nowhere`\n"), "undefined label: 'nowhere'"),
    "an image without words": (lambda b: b.page(PAGE + "\n![](_static/pixel.png)\n"),
                               "index.md:5: WARNING: image without alternative text"),
    "a figure without words": (lambda b: b.chapter(MEASURE, SHOW.replace("A single point.", "<Figure>")),
                               "cell 3: image without alternative text"),
    "a broken formula": (lambda b: b.page(PAGE + "\nAnd $\\frac{1}$.\n"), "Missing argument"),
    "an exception in a cell": (lambda b: b.chapter(MEASURE, SHOW, "1 / 0"), "ZeroDivisionError"),
    "a claim that is not measured": (lambda b: b.chapter(SHOW), "no cell measures it"),
}


@pytest.mark.parametrize("fault", TWICE)
def test_a_build_with_one_fault_fails_twice(small, fault):
    plant, complaint = TWICE[fault]
    small.reset()
    plant(small)
    for attempt in ("first", "second"):
        status, log = small.build()
        assert status != 0, f"{attempt} attempt passed with {fault}"
        assert complaint in log, log[-4000:]
    if fault == "an exception in a cell":
        assert "no finished run" in log and "no cell measures it" not in log


def test_every_fault_is_reported_at_once(small):
    small.reset()
    small.page(PAGE + "\n[there](nowhere.md), {cite:t}`nobody`, {func}`zolib.nothing`, {numref}`no-figure`.\n"
               "\n$$\\nope$$\n\n<img src='x.png'>\n")
    small.chapter(MEASURE, SHOW + "\ndisplay({'application/x-unknown': 'x'}, raw=True)",
                  "import warnings\nwarnings.warn('oh')")
    small.claim(CLAIM + CLAIM.replace("[four]", "[five]"))
    status, log = small.build()
    assert status != 0
    for complaint in ("nowhere", "nobody", "zolib.nothing", "no-figure", "Undefined control sequence", "<img> without",
                      "no form that a page can show", "stderr", "'five' is declared for 01, but no cell"):
        assert complaint in log, log[-6000:]


@pytest.mark.parametrize(("claim", "complaint"), [
    (CLAIM.replace("predicted = 4", "predicted = 5"), "was expected to be 'reproduced', but the measurement gives"),
    (CLAIM.replace("[four]", "[fuor]"), "did you mean 'fuor'"),
])
def test_a_claim_changed_fails_the_build(small, claim, complaint):
    small.reset()
    small.claim(claim)
    status, log = small.build()
    assert status != 0
    assert complaint in log, log[-4000:]


def test_the_mended_book_builds_again(small):
    small.page("# A small book\n\n{ref}`nowhere`\n")
    assert small.build()[0] != 0
    small.reset()
    status, log = small.build()
    assert status == 0, log[-4000:]
