"""The tools that build the book: their versions, what keys their cache, what they ship."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import build
import pytest
import yaml
from zobook import cache_key, mathjax

ROOT = Path(__file__).parents[2]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def test_jupyter_book_is_the_one_that_reads_these_files():
    # version 2 ignores _config.yml, exits with 0 and builds nothing
    assert version("jupyter-book").startswith("1.")


def test_what_is_declared_is_pinned():
    declared = re.findall(r'^\s+"([\w.-]+)>=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(declared) > 10
    assert [name for name in declared if name not in PINS] == []


def test_torch_is_the_pinned_one():
    assert version("torch").split("+")[0] == PINS["torch"]


def tree(root):
    (root / "zolib" / "deep").mkdir(parents=True)
    (root / "zolib" / "deep" / "kernel.cu").write_text("1")
    (root / "data").mkdir()
    (root / "data" / "digits.csv").write_text("1,2")
    (root / "book").mkdir()
    (root / "book" / "claims.toml").write_text("")
    (root / "constraints.txt").write_text("torch==1")
    (root / "pyproject.toml").write_text("")
    return root


@pytest.mark.parametrize("file", ["zolib/deep/kernel.cu", "data/digits.csv", "book/claims.toml", "constraints.txt",
                                  "pyproject.toml"])
def test_the_cache_is_keyed_by_all_that_outputs_depend_on(tmp_path, file):
    root = tree(tmp_path)
    before = cache_key.key(root)
    assert cache_key.key(root) == before
    (root / file).write_text("changed")
    assert cache_key.key(root) != before


def test_the_cache_key_sees_new_and_moved_files_but_not_bytecode(tmp_path):
    root = tree(tmp_path)
    before = cache_key.key(root)
    (root / "zolib" / "__pycache__").mkdir()
    (root / "zolib" / "__pycache__" / "x.pyc").write_text("1")
    assert cache_key.key(root) == before
    (root / "zolib" / "new.txt").write_text("")
    added = cache_key.key(root)
    assert added != before
    (root / "zolib" / "new.txt").rename(root / "zolib" / "other.txt")
    assert cache_key.key(root) not in (before, added)


def test_mathjax_is_installed_with_what_the_build_loads():
    assert (mathjax.folder() / "output" / "svg" / "fonts" / "tex.js").stat().st_size > 1e6
    assert (mathjax.folder() / "input" / "tex" / "extensions" / "boldsymbol.js").exists()


def test_nothing_of_the_configuration_points_outside():
    text = (ROOT / "_config.yml").read_text()
    assert yaml.safe_load(text)["execute"]["allow_errors"] is False
    assert not re.search(r"https?://", text)


def test_the_failed_build_forgets_its_pages(tmp_path, monkeypatch):
    (tmp_path / "_build" / ".doctrees").mkdir(parents=True)
    monkeypatch.setattr(build.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1))
    assert build.build(tmp_path).returncode == 1
    assert not (tmp_path / "_build" / ".doctrees").exists()
