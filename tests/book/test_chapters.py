"""The chapters as they are stored: canonical, comparable with a fresh run, in step with the ledger."""

import copy
import json
import re
from pathlib import Path

import canonicalise
import exercises
import nbformat
import pytest
import structure

from zolib import claims

ROOT = Path(__file__).parents[2]
CHAPTERS = canonicalise.notebooks([str(ROOT / "chapters")])


def test_the_book_has_its_twenty_chapters():
    listed = re.findall(r"file: (chapters/\S+)", (ROOT / "_toc.yml").read_text())
    assert [re.match(r"\d\d", Path(name).name)[0] for name in listed] == [f"{n:02d}" for n in range(1, 21)]
    for name in listed:
        assert [(ROOT / f"{name}{end}").exists() for end in (".ipynb", ".md")].count(True) == 1, name
        if (ROOT / f"{name}.md").exists():
            assert "in-preparation" in (ROOT / f"{name}.md").read_text(encoding="utf-8"), f"{name} looks finished"
    assert {ROOT / f"{name}.ipynb" for name in listed} >= set(CHAPTERS)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_is_in_order(path):
    assert structure.file_problems(path) == []


def test_the_ledger_agrees_with_the_stored_chapters():
    stored = {path.stem: claims.records(json.loads(path.read_text(encoding="utf-8"))) for path in CHAPTERS}
    assert claims.disagreements(claims.load(), stored) == []


def test_recorded_claims_name_files_that_exist():
    for claim in claims.load().values():
        assert not claim.record or (ROOT / claim.record).is_file(), claim.id


# --- the checks themselves, on small notebooks with one fault each ---------------------------------------------

def small_notebook():
    v4 = nbformat.v4
    return canonicalise.canonical(v4.new_notebook(cells=[
        v4.new_markdown_cell("# Title"),
        v4.new_code_cell("setup()"),
        v4.new_code_cell("print(x)", outputs=[v4.new_output("stream", name="stdout", text="slope 1.002\n")]),
    ]))


def test_pieces_of_a_stream_are_stored_as_one():
    v4 = nbformat.v4
    pieces = [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    outputs = [v4.new_output("stream", name=name, text=text) for name, text in pieces]
    outputs.insert(3, v4.new_output("display_data", data={"text/plain": "shown"}))
    stored = canonicalise.canonical(v4.new_notebook(cells=[v4.new_code_cell("", outputs=outputs)])).cells[0].outputs
    assert [output.get("text", "shown") for output in stored] == ["a\nb\n", "c\n", "shown", "d\n"]


def test_a_small_notebook_is_in_order():
    assert structure.problems(small_notebook()) == []


def _set(key, value):
    return lambda cells: cells[2].__setitem__(key, value)


def _print(text):
    return lambda cells: cells[2]["outputs"][0].__setitem__("text", text)


def _output(**data):
    return lambda cells: cells[2]["outputs"].append(nbformat.v4.new_output("display_data", data=data))


@pytest.mark.parametrize(("fault", "complaint"), [
    (_set("execution_count", None), "has the number None instead of 2"),
    (_set("execution_count", 7), "has the number 7 instead of 2"),
    (_set("outputs", []), "no cell has a text output"),
    (lambda cells: cells[2]["metadata"].__setitem__("tags", ["nbval-ignore-output"]), "no cell has a text output"),
    (_set("source", "x = " + 80 * "1"), "line of 84 columns"),
    (_set("source", "import time\nstart = time.perf_counter()"), "reads a clock"),
    (_set("source", "%%time\nrun()"), "reads a clock"),
    (_print("slope 1.0023"), "prints 1.0023"),
    (_print("loss -1.2345e-07"), "prints -1.2345e-07"),
    (_print("12,873 evaluations"), "prints 12,873"),
    (_print("<object at 0x7f3a5c2b9d30>"), "an address in memory"),
    (_print("run on 2026-01-31"), "a date"),
    (_print("read from /home/ada/data"), "a path of this machine"),
    (_output(**{"image/png": "AAAA"}), "stores image/png"),
    (_output(**{"image/svg+xml": "<svg/>"}), "stores image/svg"),
    (_output(**{"text/html": "<b>x</b>"}), "stores text/html"),
    (lambda cells: cells[2]["outputs"][0].__setitem__("name", "stderr"), "writes to stderr"),
    (lambda cells: cells[2]["outputs"].append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])),
     "holds an error"),
    (lambda cells: cells[1].__setitem__("source", "import numpy"), "does not call zolib.notebook.setup()"),
    (lambda cells: cells[0].__setitem__("source", "no title"), "chapter's title"),
    (lambda cells: cells[0].__setitem__("source", r"# Title\n\n$\E z = 0$, $\Ell$"), r"cell 1 writes \E, which"),
])
def test_each_fault_of_a_chapter_is_found(fault, complaint):
    notebook = copy.deepcopy(small_notebook())
    fault(notebook["cells"])
    assert any(complaint in problem for problem in structure.problems(notebook)), structure.problems(notebook)


@pytest.mark.parametrize("text", ["slope 1.002", "10,000 evaluations", "1e-16", "torch 2.13.0", "0.0001234", "d = 4096",
                                  "6.022e+23", "float64", "-0.25"])
def test_short_numbers_pass(text):
    notebook = small_notebook()
    notebook["cells"][2]["outputs"][0]["text"] = text
    assert structure.problems(notebook) == []


def test_an_exact_count_may_be_long_where_the_cell_says_so():
    notebook = small_notebook()
    cell = notebook["cells"][2]
    cell["outputs"][0]["text"] = "16777216 weights"
    assert structure.problems(notebook) != []
    cell["metadata"]["tags"] = ["exact"]
    assert structure.problems(notebook) == []
    cell["outputs"][0]["text"] = "loss 1.23456"
    assert structure.problems(notebook) != []


@pytest.mark.slow
def test_canonical_form_is_stable_and_without_images(tmp_path):
    v4 = nbformat.v4
    path = tmp_path / "01-small.ipynb"
    nbformat.write(v4.new_notebook(cells=[
        v4.new_markdown_cell("# Title"),
        v4.new_code_cell("from IPython.display import display\n"
                         "display({'image/png': 'AAAA', 'text/html': '<b>one</b>', 'text/plain': 'one'}, raw=True)",
                         metadata={"collapsed": True, "tags": ["kept"]}),
        v4.new_code_cell("1 + 1"),
    ]), path)
    assert canonicalise.run(path) is None
    first = path.read_bytes()
    cells = nbformat.read(path, as_version=4).cells
    assert cells[1].outputs[0].data == {"text/plain": "one"}
    assert cells[1].metadata == {"tags": ["kept"]}
    assert [cell.execution_count for cell in cells[1:]] == [1, 2]
    assert cells[2].outputs[0].execution_count == 2
    assert canonicalise.run(path) is None
    assert path.read_bytes() == first
    assert (path.stat().st_mode & 0o044) == 0o044
    path.write_text(path.read_text().replace("1 + 1", "1 / 0"))
    assert "ZeroDivisionError" in canonicalise.run(path)


# --- exercises ------------------------------------------------------------------------------------------------------

EXERCISE = "::::{{exercise}} Title{}\n:label: ex-{}\n\nDo.\n::::\n\n:::{{solution-start}} ex-{}\n:class: dropdown\n:::"


def four_exercises():
    v4 = nbformat.v4
    cells = []
    for name in "abcd":
        cells += [v4.new_markdown_cell(EXERCISE.format("", name, name)), v4.new_code_cell("assert 1 + 1 == 2"),
                  v4.new_markdown_cell(":::{solution-end}\n:::")]
    return v4.new_notebook(cells=cells)


def test_four_exercises_are_in_order():
    notebook = four_exercises()
    assert exercises.problems(notebook) == []
    notebook.cells[0].source = EXERCISE.format(" (research)", "a", "a")
    notebook.cells[1].source = "1 + 1"
    assert exercises.problems(notebook) == []


@pytest.mark.parametrize(("cell", "old", "new", "complaint"), [
    (0, "ex-a\n:class", "ex-other\n:class", "the exercise ex-a has 0 solutions"),
    (0, "ex-a\n:class", "ex-other\n:class", "does not follow an exercise"),
    (0, ":label: ex-a\n", "", "without a label"),
    (0, ":class: dropdown\n", "", "not folded away"),
    (1, "assert ", "", "asserts anything"),
    (11, "solution-end", "note", "does not end"),
    (0, "{exercise}", "{note}", "has 3 exercises"),
])
def test_each_fault_of_an_exercise_is_found(cell, old, new, complaint):
    notebook = four_exercises()
    assert old in notebook.cells[cell].source
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    assert any(complaint in problem for problem in exercises.problems(notebook)), exercises.problems(notebook)
