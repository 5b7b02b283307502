"""The ledger of claims: what is said is declared in one file, what is found is measured by the chapters.

``book/claims.toml`` declares every quantitative claim of the book, one table per claim::

    [halving-step]                       # the claim's name, used by the cell that measures it
    chapter = "05"
    sentence = "Halving the step quarters the error of the central difference."
    source = "Nocedal & Wright 2006, section 8.1"     # or a key of references.bib, then words if needed
    grade = "textbook"                   # see GRADES
    predicted = 4                        # or: published = 4
    unit = ""                            # optional
    tolerance = 0.01                     # in the claim's unit; with relative = true, a fraction of it
    relative = true                      # optional
    argument = "The next term of the series is 1e-4 of this one."
    expected = "reproduced"              # or "departs", or "recorded" with record = "data/file.json"

A chapter's cell supplies nothing but the measurement::

    from zolib.claims import measure
    measure("halving-step", ratio, interval=(low, high))

The cell prints the comparison and carries it as a record in its output, from which the ledger page is built.
A verdict other than the expected one raises `ClaimError`, so that neither the book nor its tests pass.
"""

import difflib
import math
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MIME = "application/vnd.zolib.claim+json"

GRADES = {
    "published": "read in the words of the source itself",
    "code": "read in the source's program",
    "derived": "derived in this book",
    "textbook": "common knowledge of the field, found in its textbooks",
}
VERDICTS = {
    "reproduced": "the measured number lies within the tolerance",
    "departs": "the measured number lies outside the tolerance, and the chapter says why",
    "recorded": "within the tolerance, but read from a recorded file: the run is too long, or needs a GPU",
}
REQUIRED = ("chapter", "sentence", "source", "grade", "tolerance", "argument", "expected")
OPTIONAL = ("predicted", "published", "unit", "relative", "record")


class ClaimError(Exception):
    """A claim that is badly declared, or whose measurement does not give the expected verdict."""


@dataclass(frozen=True)
class Claim:
    """One declared claim; ``value`` is the predicted or published number, ``tolerance`` is in its unit."""

    id: str
    chapter: str
    sentence: str
    source: str
    grade: str
    kind: str  # "predicted" or "published"
    value: float
    unit: str
    tolerance: float
    relative: bool
    argument: str
    expected: str
    record: str

    @property
    def margin(self) -> float:
        """The tolerance as an absolute number, in the claim's unit."""
        return self.tolerance * abs(self.value) if self.relative else self.tolerance

    def judge(self, value: float, interval: tuple[float, float] | None = None) -> str:
        """The verdict on a measured value: ``"reproduced"``, ``"recorded"`` or ``"departs"``.

        Raises `ClaimError` if the value is not finite, lies outside its interval, or if the interval's half
        width exceeds the tolerance: such a measurement is too wide to tell anything.
        """
        if not math.isfinite(value):
            raise ClaimError(f"claim {self.id!r}: the measured value is {value}; a finite number is needed")
        if interval is not None:
            low, high = interval
            if not low <= value <= high:
                raise ClaimError(
                    f"claim {self.id!r}: the value {value:.4g} lies outside its interval "
                    f"({low:.4g}, {high:.4g}); give interval=(low, high) around it"
                )
            if (high - low) / 2 > self.margin:
                raise ClaimError(
                    f"claim {self.id!r}: the interval's half width {(high - low) / 2:.4g} exceeds the "
                    f"tolerance {self.margin:.4g}, too wide to tell; measure with more samples"
                )
        if abs(value - self.value) > self.margin:
            return "departs"
        return "recorded" if self.expected == "recorded" else "reproduced"


def path() -> Path:
    """Where the claims are declared: the book's file in a clone, the packaged copy elsewhere."""
    here = Path(__file__).resolve().parent
    in_clone = here.parent / "book" / "claims.toml"
    return in_clone if in_clone.exists() else here / "_data" / "claims.toml"


def load(file: Path | str | None = None) -> dict[str, Claim]:
    """Every declared claim by its id, in the order of the file. Raises `ClaimError` for a bad declaration."""
    file = path() if file is None else Path(file)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ClaimError(f"{file.name}: {error}") from None
    return {name: _claim(name, table) for name, table in tables.items()}


def measure(id: str, value: float, interval: tuple[float, float] | None = None) -> None:
    """Compare a measured number with the claim ``id``; print the comparison and leave its record in the cell.

    ``interval`` is the measurement's (low, high), in the claim's unit; leave it out only for a number that is
    the same in every run. Everything is rounded to four significant digits before it is judged, so that the
    stored record holds all that the verdict rests on.

    Raises `ClaimError` if the claim is not declared, if the measurement cannot tell (see `Claim.judge`), or if
    its verdict is not the expected one.
    """
    declared = _declared()
    if id not in declared:
        near = difflib.get_close_matches(id, declared, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ClaimError(f"claim {id!r} is not declared in {path().name}: add it there{hint}")
    measurement = Measurement(declared[id], value, interval)
    if measurement.verdict != declared[id].expected:
        raise ClaimError(
            f"claim {id!r} was expected to be {declared[id].expected!r}, but the measurement gives "
            f"{measurement.verdict!r}:\n{measurement}"
        )
    try:
        from IPython.display import display
    except ImportError:
        print(measurement)
    else:
        display(measurement)


class Measurement:
    """A measured number beside the claim it tests; shows itself as text and as a record."""

    def __init__(self, claim: Claim, value: float, interval: tuple[float, float] | None = None):
        self.claim = claim
        self.value = _round(value)
        self.interval = None if interval is None else (_round(interval[0]), _round(interval[1]))
        self.verdict = claim.judge(self.value, self.interval)

    def record(self) -> dict:
        """Everything the ledger page and the tests need, as plain JSON."""
        claim = self.claim
        return {
            "id": claim.id,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            claim.kind: claim.value,
            "tolerance": _round(claim.margin),
            "verdict": self.verdict,
        }

    def __repr__(self) -> str:
        claim, unit = self.claim, f" {self.claim.unit}" if self.claim.unit else ""
        spread = "" if self.interval is None else f" ({number(self.interval[0])} to {number(self.interval[1])})"
        return (
            f"{self.verdict}: {claim.id}\n"
            f"  measured {number(self.value)}{spread}{unit}, {claim.kind} {number(claim.value)}{unit}, "
            f"within {number(claim.margin)}"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/plain": repr(self), MIME: self.record()}


def records(notebook: dict) -> list[dict]:
    """The records in the outputs of a notebook (as parsed JSON), each with the number of its cell, from 1."""
    found = []
    for position, cell in enumerate(notebook["cells"], start=1):
        for output in cell.get("outputs", []):
            record = output.get("data", {}).get(MIME)
            if record is not None:
                found.append({**record, "cell": position})
    return found


def disagreements(declared: dict[str, Claim], found: dict[str, list[dict]]) -> list[str]:
    """Where the declared claims and the records of the chapters differ, in sentences; empty if they agree.

    ``found`` maps a chapter's file name, which starts with the chapter's number, to its `records`.
    """
    problems, seen = [], {}
    for file, recorded in found.items():
        for record in recorded:
            where = f"{file}, cell {record['cell']}"
            claim = declared.get(record["id"])
            if claim is None:
                problems.append(f"{where} measures {record['id']!r}, which claims.toml does not declare")
                continue
            if claim.id in seen:
                problems.append(f"{where} measures {claim.id!r} again, after {seen[claim.id]}")
            seen[claim.id] = where
            if not file.startswith(claim.chapter):
                problems.append(f"{where} measures {claim.id!r}, which claims.toml declares for {claim.chapter}")
            try:
                interval = record["interval"] and tuple(record["interval"])
                expected = Measurement(claim, record["value"], interval).record()
            except ClaimError as error:
                problems.append(f"{where}: {error}")
                continue
            if expected["verdict"] != claim.expected:
                problems.append(
                    f"{where}: {claim.id!r} was expected to be {claim.expected!r}, "
                    f"but its record gives {expected['verdict']!r}"
                )
            for key, value in expected.items():
                if record.get(key) != value:
                    problems.append(
                        f"{where}: the record of {claim.id!r} has {key} = {record.get(key)!r}, "
                        f"the declaration gives {value!r}"
                    )
    for claim in declared.values():
        if claim.id not in seen:
            problems.append(f"{claim.id!r} is declared for {claim.chapter}, but no cell measures it")
    return problems


def number(value: float) -> str:
    """A number as readers see it: at most four significant digits."""
    return f"{value:.4g}"


def _round(value: float) -> float:
    return float(number(float(value)))


@lru_cache(maxsize=1)
def _declared() -> dict[str, Claim]:
    return load()


def _claim(name: str, table: dict) -> Claim:
    def refuse(what: str):
        raise ClaimError(f"claims.toml, [{name}]: {what}")

    if not isinstance(table, dict):
        refuse("is not a table; write [name] above the claim's lines")
    for key in REQUIRED:
        if table.get(key) in (None, ""):
            refuse(f"{key!r} is missing")
    for key in table:
        if key not in REQUIRED + OPTIONAL:
            refuse(f"{key!r} is not a known key; known are {', '.join(REQUIRED + OPTIONAL)}")
    kinds = [kind for kind in ("predicted", "published") if kind in table]
    if len(kinds) != 1:
        refuse("give exactly one of 'predicted' and 'published'")
    if table["grade"] not in GRADES:
        refuse(f"grade {table['grade']!r} is not one of {', '.join(GRADES)}")
    if table["expected"] not in VERDICTS:
        refuse(f"expected {table['expected']!r} is not one of {', '.join(VERDICTS)}")
    if table["expected"] == "recorded" and not table.get("record"):
        refuse('a recorded claim names its file: record = "data/..."')
    for key in (kinds[0], "tolerance"):
        if isinstance(table[key], bool) or not isinstance(table[key], int | float) or not math.isfinite(table[key]):
            refuse(f"{key!r} must be a finite number")
    if table["tolerance"] < 0:
        refuse("'tolerance' must not be negative")
    return Claim(
        id=name,
        chapter=str(table["chapter"]),
        sentence=table["sentence"],
        source=table["source"],
        grade=table["grade"],
        kind=kinds[0],
        value=float(table[kinds[0]]),
        unit=table.get("unit", ""),
        tolerance=float(table["tolerance"]),
        relative=bool(table.get("relative", False)),
        argument=table["argument"],
        expected=table["expected"],
        record=table.get("record", ""),
    )
