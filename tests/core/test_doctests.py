"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import zolib

MODULES = [m.name for m in pkgutil.walk_packages(zolib.__path__, "zolib.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    assert sum(len(t.examples) for m in ("zolib.gradient", "zolib.check") for t in _tests(m)) >= 4


def _tests(name):
    return doctest.DocTestFinder().find(importlib.import_module(name))
