"""The suite of correctness holds, finds errors that are planted in the library, and fails the build when a row does."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace
from zobook import correctness, correctness_cases

import zolib as zo
from zolib.estimates import Replay
from zolib.feedback import FEEDBACKS
from zolib.noise import stream
from zolib.probes import PROBES

ROOT = Path(__file__).parents[2]
CASES = correctness_cases.all_cases()
FAMILY = 2 * len(CASES)


@pytest.fixture(scope="module")
def rows():
    return correctness.measure(CASES)


def parts(case):
    """The probe, and a feedback of its kind."""
    return case.estimates.args[0], case.estimates.args[1]()


def test_every_estimator_agrees_with_its_formulas(rows):
    assert [f"{row.case.name}: {fault}" for row in rows for fault in row.faults] == []
    assert correctness.true_level(rows) < 1.5 * correctness.LEVEL, "skewed replicates: take more of them"


def test_every_probe_that_claims_the_gradient_and_every_feedback_has_a_row():
    missing = {p for p in PROBES.values() if p.scale == "gradient"} - {type(parts(case)[0]) for case in CASES}
    missing |= set(FEEDBACKS.values()) - {type(parts(case)[1]) for case in CASES}
    assert not missing, "add a case to correctness_cases.py"


def test_names_give_different_seeds_and_the_same_numbers_each_time():
    assert len({case.seed for case in CASES}) == len(CASES)
    case = next(case for case in CASES if isinstance(parts(case)[0], zo.Activities))
    assert correctness.row(case, FAMILY) == correctness.row(case, FAMILY)


def faulty(kind, feedback):
    """The cases of one probe and feedback, by name, and what is found wrong with them now."""
    chosen = [case for case in CASES if type(parts(case)[0]) is kind and type(parts(case)[1]) is feedback]
    assert chosen
    return {case.name: "; ".join(correctness.row(case, FAMILY).faults) for case in chosen}


@pytest.mark.parametrize("kind", [zo.Gaussian, zo.Rademacher, zo.Sphere, zo.Coordinate, zo.LowRank, zo.Nodes])
def test_a_factor_of_a_difference_is_found(kind, monkeypatch):
    """2.1 evaluations apart where there are 2: an estimate 5 % too large."""
    right = zo.TwoPoint.coefficients
    monkeypatch.setattr(zo.TwoPoint, "coefficients", lambda *arguments: 2.1 / 2 * right(*arguments))
    assert all("the second moment is" in found for found in faulty(kind, zo.TwoPoint).values())


def test_a_variance_that_is_off_by_a_tenth_is_found(monkeypatch):
    """Directions whose length varies: their covariance is still the identity, E(u.z)^2 |z|^2 is 10 % too large."""
    right = zo.Rademacher.draw

    def draw(self, targets, d, seed, step, samples):
        long = stream.draw(stream.SIGN, seed + 1, step, samples, [(99, 1)])[0]
        return [z * (1 + 0.1**0.5 * long).sqrt() for z in right(self, targets, d, seed, step, samples)]

    monkeypatch.setattr(zo.Rademacher, "draw", draw)
    [found] = faulty(zo.Rademacher, zo.TwoPoint).values()
    assert "the second moment is" in found and "slope" not in found


def test_a_law_in_place_of_another_is_found(monkeypatch):
    monkeypatch.setattr(zo.Rademacher, "draw", zo.Gaussian.draw)
    assert all("the second moment is" in found for found in faulty(zo.Rademacher, zo.TwoPoint).values())


def test_a_door_that_adds_up_otherwise_is_found(monkeypatch):
    """The sum over directions is right, and what zo.grad makes of it is not."""
    right = Replay.mean.__func__
    monkeypatch.setattr(Replay, "mean", classmethod(lambda *arguments: right(*arguments) * (1 + 1e-9)))
    [found] = faulty(zo.Gaussian, zo.OneSided).values()
    assert found.startswith("the same estimate by two ways differs by")


def test_moments_of_order_statistics_by_quadrature_and_in_closed_form():
    """Gini's mean difference, sum |t_i - t_j|, and all products of sizes: E|X||Y| = 2/pi (sqrt(1 - r^2) + r asin r)."""
    n = 4
    eye = torch.eye(n, dtype=torch.float64)
    forms = {
        False: [eye[i] - eye[j] for i in range(n) for j in range(i)],
        True: [*eye, *(eye[i] + s * eye[j] for i in range(n) for j in range(i) for s in (1, -1))],
    }
    i = torch.arange(1, n + 1, dtype=torch.float64)
    for half, weights in ((False, 2 * i - n - 1), (True, 2 * i - 1)):  # the sums of |forms| as sums of t in order
        v = torch.stack(forms[half])
        sizes = torch.outer(v.norm(dim=1), v.norm(dim=1))
        r = (v @ v.T / sizes).clamp(-1, 1)
        known = (sizes * 2 / torch.pi * ((1 - r * r).sqrt() + r * r.asin())).sum().item()
        mean, square = correctness_cases.order_moments(weights, half)
        assert mean == pytest.approx((2 / torch.pi) ** 0.5 * v.norm(dim=1).sum().item(), rel=1e-9)
        assert square == pytest.approx(known, rel=1e-9)


def build(folder, cases, monkeypatch):
    """A book of one page with the table of these cases: its HTML, and the warnings."""
    monkeypatch.setattr(correctness_cases, "all_cases", lambda: cases)
    (folder / "index.rst").write_text("Table\n=====\n\n.. correctness-table::\n")
    warnings = folder / "warnings"
    settings = {"extensions": ["zobook.correctness_page", "sphinx.ext.mathjax"]}
    with docutils_namespace(), open(warnings, "w") as file:
        app = Sphinx(folder, None, folder / "out", folder / "trees", "html", settings, None, file)
        app.build()
    return (folder / "out" / "index.html").read_text(), warnings.read_text()


def test_the_page_shows_the_rows_and_a_row_that_fails_is_a_warning(tmp_path, monkeypatch):
    right = [case for case in CASES if case.group == "No chance left"][:2]
    page, warnings = build(tmp_path, right, monkeypatch)
    assert warnings == ""
    assert page.count("holds") == 2 and "all agree" in page and "1 ± 0" in page
    wrong = [right[0], dataclasses.replace(right[1], slope=1.01)]
    page, warnings = build(tmp_path, wrong, monkeypatch)
    assert "correctness: No chance left, orthogonal, two-point, K = d" in warnings
    assert "the slope is 1.0000 ± 0.0000, predicted 1.0100" in warnings
    assert page.count("holds") == 1 and "1 of them did not agree" in page


def test_the_page_names_tests_that_there_are():
    page = (ROOT / "book" / "correctness.md").read_text()
    table = page[page.index("(peers-defects)=\n") :]
    named = re.findall(r"`(test_\w+)`(?:\s+in\s+`(tests/[\w/]+\.py)`)?", table)
    assert len(named) >= 15
    for test, file in named:
        assert f"def {test}(" in (ROOT / (file or "tests/core/test_peers.py")).read_text(), test
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / file).exists(), file
