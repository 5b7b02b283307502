"""The declarations and the verdicts of the ledger."""

import pytest

from zolib import claims

GOOD = """
[pi]
chapter = "01"
sentence = "The ratio is pi."
source = "Archimedes"
grade = "textbook"
predicted = 3.14
tolerance = 0.01
argument = "Archimedes' own bounds."
expected = "reproduced"
"""


def load(tmp_path, text):
    file = tmp_path / "claims.toml"
    file.write_text(text)
    return claims.load(file)


def test_the_books_own_claims_are_well_declared():
    assert claims.load()


def test_judge(tmp_path):
    pi = load(tmp_path, GOOD)["pi"]
    assert pi.judge(3.145) == "reproduced"
    assert pi.judge(3.2) == "departs"
    assert pi.judge(3.145, (3.14, 3.15)) == "reproduced"
