"""A chapter's stored outputs are compared with fresh ones: every digit, every claim, every figure's words."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import canonicalise
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

CLAIM = ("class Claim:\n"
         "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
         "        return {'text/plain': 'reproduced', 'application/vnd.zolib.claim+json': {'id': 'a', 'value': 1.25}}\n"
         "\n\nClaim()")
FIGURE = ("from IPython.display import display\n"
          "display({'image/png': 'AAAA', 'text/html': '<i>x</i>', 'text/plain': 'A line falls.'}, raw=True)")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chapters")
    shutil.copy(ROOT / "chapters" / "conftest.py", folder)
    v4 = nbformat.v4
    path = folder / "01-small.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), v4.new_code_cell("print('slope', 1.125)"),
                                          v4.new_code_cell(CLAIM), v4.new_code_cell(FIGURE),
                                          v4.new_code_cell("2 + 2")]), path)
    assert canonicalise.run(path) is None
    return path


def outcome(path):
    """Passed and failed cells under the project's own settings."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir",
                           str(path.parent), "-p", "no:cacheprovider", str(path)],
                          capture_output=True, text=True, cwd=path.parent)
    count = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    assert "error" not in count, done.stdout[-3000:]
    return count


def test_a_fresh_run_equals_the_stored_one(chapter):
    assert outcome(chapter) == {"passed": 4}


def test_every_changed_digit_is_found(chapter):
    text = chapter.read_text()
    tampered = (text.replace('"slope 1.125', '"slope 1.124').replace('"value": 1.25', '"value": 1.26')
                .replace('"A line falls."', '"A line rises."'))
    notebook = nbformat.reads(tampered, as_version=4)
    assert canonicalise.serialise(notebook) != text
    path = chapter.with_name("02-tampered.ipynb")
    path.write_text(tampered)
    assert outcome(path) == {"passed": 1, "failed": 3}
