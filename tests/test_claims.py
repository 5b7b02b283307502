"""The ledger: how a claim is declared, judged, measured, and compared with what was recorded."""

import copy
import json
import subprocess
import sys

import pytest

from zolib import claims

PI = """
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


@pytest.fixture
def load(tmp_path):
    def load(text):
        file = tmp_path / "claims.toml"
        file.write_text(text)
        return claims.load(file)

    return load


@pytest.fixture
def declare(load, monkeypatch):
    """Let `measure` see only these claims."""
    def declare(text):
        declared = load(text)
        monkeypatch.setattr(claims, "_declared", lambda: declared)
        return declared

    return declare


def test_the_books_own_claims_are_well_declared():
    assert claims.load()


@pytest.mark.parametrize(("old", "new", "complaint"), [
    ('chapter = "01"\n', "", "'chapter' is missing"),
    ('argument = "Archimedes\' own bounds."', 'argument = ""', "'argument' is missing"),
    ("predicted = 3.14", "predicted = 3.14\npublished = 3.1", "exactly one of"),
    ("predicted = 3.14", "", "exactly one of"),
    ("predicted = 3.14", 'predicted = "about three"', "'predicted' must be a finite number"),
    ("predicted = 3.14", "predicted = nan", "'predicted' must be a finite number"),
    ("tolerance = 0.01", "tolerance = -0.01", "must not be negative"),
    ("tolerance = 0.01", "tolerance = true", "'tolerance' must be a finite number"),
    ('grade = "textbook"', 'grade = "hearsay"', "'hearsay' is not one of published"),
    ('expected = "reproduced"', 'expected = "hoped"', "'hoped' is not one of reproduced"),
    ('expected = "reproduced"', 'expected = "recorded"', "names its file"),
    ('source = "Archimedes"', 'source = "Archimedes"\nproof = "trivial"', "'proof' is not a known key"),
    ("[pi]", "pi = 3.14", "is not a table"),
    ("[pi]", "[pi", "claims.toml:"),
])
def test_a_bad_declaration_is_refused(load, old, new, complaint):
    assert old in PI
    with pytest.raises(claims.ClaimError, match=complaint.replace("[", r"\[")):
        load(PI.replace(old, new))


def test_verdicts(load):
    pi = load(PI)["pi"]
    assert pi.judge(3.1496) == "reproduced"
    assert pi.judge(3.151) == "departs"
    assert pi.judge(3.129) == "departs"
    recorded = load(PI.replace('"reproduced"', '"recorded"\nrecord = "data/pi.json"'))["pi"]
    assert recorded.judge(3.1416) == "recorded"
    assert recorded.judge(3.2) == "departs"


def test_a_relative_tolerance_is_a_fraction_of_the_claim(load):
    pi = load(PI.replace("tolerance = 0.01", "tolerance = 0.01\nrelative = true"))["pi"]
    assert pi.margin == pytest.approx(0.0314)
    assert pi.judge(3.17) == "reproduced"
    assert pi.judge(3.18) == "departs"
    minus = load(PI.replace("tolerance = 0.01", "tolerance = 0.01\nrelative = true").replace("3.14", "-3.14"))["pi"]
    assert minus.judge(-3.17) == "reproduced"


@pytest.mark.parametrize(("value", "interval", "complaint"), [
    (float("nan"), None, "a finite number"),
    (float("inf"), None, "a finite number"),
    (3.14, (3.12, 3.16), "too wide to tell"),
    (3.14, (3.141, 3.15), "outside its interval"),
    (3.14, (float("nan"), 3.15), "outside its interval"),
])
def test_a_measurement_that_cannot_tell_is_refused(load, value, interval, complaint):
    with pytest.raises(claims.ClaimError, match=complaint):
        load(PI)["pi"].judge(value, interval)


def test_measure_prints_the_comparison(declare, capsys):
    declare(PI)
    claims.measure("pi", 3.1415926, interval=(3.1401, 3.1431))
    assert capsys.readouterr().out.splitlines()[:2] == [
        "reproduced: pi",
        "  measured 3.142 (3.14 to 3.143), predicted 3.14, within 0.01",
    ]


def test_measure_refuses_what_was_not_expected(declare):
    declare(PI)
    with pytest.raises(claims.ClaimError, match="(?s)expected to be 'reproduced'.*gives 'departs'.*measured 3.2"):
        claims.measure("pi", 3.2)
    declare(PI.replace('"reproduced"', '"departs"'))
    with pytest.raises(claims.ClaimError, match="expected to be 'departs'.*gives 'reproduced'"):
        claims.measure("pi", 3.14)


def test_measure_names_the_claim_that_was_probably_meant(declare):
    declare(PI)
    with pytest.raises(claims.ClaimError, match="not declared in claims.toml.*did you mean 'pi'"):
        claims.measure("pii", 3.14)


def test_what_is_stored_is_what_was_judged(load):
    # 3.15004 lies outside the tolerance, its four digits do not: the verdict must rest on the stored digits
    measurement = claims.Measurement(load(PI)["pi"], 3.15004)
    assert (measurement.value, measurement.verdict) == (3.15, "reproduced")
    assert measurement.record() == {"id": "pi", "value": 3.15, "interval": None, "predicted": 3.14,
                                    "tolerance": 0.01, "verdict": "reproduced"}
    assert json.loads(json.dumps(measurement.record())) == measurement.record()


def notebook(*measurements):
    """The JSON of a notebook with one cell for each measurement."""
    cells = [{"cell_type": "markdown", "source": "# Title"}]
    for measurement in measurements:
        cells.append({"cell_type": "code", "source": "measure(...)", "outputs": [
            {"output_type": "display_data", "data": measurement._repr_mimebundle_(), "metadata": {}}]})
    return {"cells": cells}


def compare(declared, stored, file="01-circles"):
    return claims.disagreements(declared, {file: claims.records(stored)})


def test_declarations_and_records_that_agree(load):
    declared = load(PI)
    stored = notebook(claims.Measurement(declared["pi"], 3.1416, (3.141, 3.142)))
    assert compare(declared, stored) == []


def test_every_disagreement_is_found(load):
    declared = load(PI)
    stored = notebook(claims.Measurement(declared["pi"], 3.1416, (3.141, 3.142)))

    def record_of(tampered):
        return tampered["cells"][1]["outputs"][0]["data"][claims.MIME]

    def one(declared, stored, file="01-circles"):
        problems = compare(declared, stored, file)
        assert problems
        return " / ".join(problems)

    assert "no cell measures it" in one(declared, notebook())
    assert "does not declare" in one({}, stored)
    assert "declares for 01" in one(declared, stored, file="02-squares")
    assert "again" in one(declared, {"cells": stored["cells"] + stored["cells"][1:]})
    assert "has predicted = 3.14, the declaration gives 3.141" in one(load(PI.replace("3.14", "3.141")), stored)
    assert "has tolerance = 0.01" in one(load(PI.replace("0.01", "0.02")), stored)
    assert "was expected to be 'departs'" in one(load(PI.replace('"reproduced"', '"departs"')), stored)
    assert "too wide to tell" in one(load(PI.replace("0.01", "0.0001")), stored)
    for key, value in (("value", 3.3), ("verdict", "departs"), ("interval", [3.1, 3.2])):
        tampered = copy.deepcopy(stored)
        record_of(tampered)[key] = value
        one(declared, tampered)


def test_importing_the_ledger_changes_nothing():
    code = "import sys, zolib.claims, zolib.notebook; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
