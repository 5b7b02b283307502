"""What every stored chapter must satisfy, so that comparing its outputs with a fresh run means something.

    python book/tools/structure.py chapters
"""

import re
import sys
from pathlib import Path

import exercises
import nbformat
import yaml
from canonicalise import canonical, notebooks, serialise

COLUMNS = 76  # wider code scrolls on the page
DIGITS = 4    # more significant digits than these differ between machines
NEVER_COMPARED = {"nbval-skip", "nbval-ignore-output"}
CLOCKS = re.compile(r"%%?time|\btimeit\b|perf_counter|\btime\.(time|monotonic|process_time)\(|datetime\.(now|today)")
# a number on its own: not part of a word, of a version (2.13.0) or of a longer number
NUMBER = re.compile(r"(?<![\w.,])[-+]?(\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w]|[.,]\d)")
# the short names of _config.yml, which only the built book knows: JupyterLab, Colab and GitHub show them as errors
SETTINGS = yaml.safe_load((Path(__file__).parents[2] / "_config.yml").read_text(encoding="utf-8"))
MACROS = re.compile(rf"\\({'|'.join(SETTINGS['sphinx']['config']['mathjax3_config']['tex']['macros'])})(?![A-Za-z])")
UNSTABLE = {
    "an address in memory": re.compile(r"\b0x[0-9a-fA-F]{6,}\b"),
    "a date or a time of day": re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b"),
    "a path of this machine": re.compile(r"(?<!\w)/(home|root|tmp|usr|Users)/"),
}


def significant_digits(written: str) -> int:
    """How many significant digits a printed number has; an integer's trailing zeros do not count."""
    digits = written.replace(",", "")
    if "." not in digits:
        digits = digits.rstrip("0")
    return len(digits.replace(".", "").lstrip("0"))


def texts(output) -> list[str]:
    """The texts that a reader sees of one output."""
    if output["output_type"] == "stream":
        return [output["text"]]
    return [text for kind, text in output.get("data", {}).items() if kind == "text/plain"]


def output_problems(output, exact: bool) -> list[str]:
    if output["output_type"] == "error":
        return ["holds an error"]
    if output["output_type"] == "stream" and output["name"] == "stderr":
        return ["writes to stderr"]
    problems = [f"stores {kind}" for kind in output.get("data", {}) if kind.startswith(("image/", "text/html"))]
    for text in texts(output):
        problems += [f"prints {what}" for what, pattern in UNSTABLE.items() if pattern.search(text)]
        for match in NUMBER.finditer(text):
            if significant_digits(match[1]) > DIGITS and not (exact and "." not in match[1]):
                problems.append(f"prints {match[0]}, more than {DIGITS} significant digits "
                                '(for an exact count, tag the cell "exact")')
    return problems


def problems(notebook) -> list[str]:
    """Everything wrong with a stored notebook, in sentences; empty if it is in order."""
    found, compared, count = [], 0, 0
    cells = notebook["cells"]
    if not cells or cells[0]["cell_type"] != "markdown" or not cells[0]["source"].startswith("# "):
        found.append("cell 1 is not a text that begins with the chapter's title (# ...)")
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    if not code or "setup()" not in code[0]["source"]:
        found.append("the first code cell does not call zolib.notebook.setup()")
    for position, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code":
            found += [f"cell {position} writes \\{name}, which only the built book knows: write it out"
                      for name in MACROS.findall(cell["source"])]
            continue
        count += 1
        tags = set(cell["metadata"].get("tags", []))
        if cell["execution_count"] != count:
            found.append(f"cell {position} has the number {cell['execution_count']} instead of {count}: "
                         "run make notebooks")
        for line in cell["source"].splitlines():
            if len(line) > COLUMNS:
                found.append(f"cell {position} has a line of {len(line)} columns, more than {COLUMNS}: {line.strip()}")
        if CLOCKS.search(cell["source"]):
            found.append(f"cell {position} reads a clock: report evaluations, not seconds")
        for output in cell["outputs"]:
            found += [f"cell {position} {problem}" for problem in output_problems(output, "exact" in tags)]
        if not tags & NEVER_COMPARED and any(text.strip() for output in cell["outputs"] for text in texts(output)):
            compared += 1
    if not compared:
        found.append("no cell has a text output that a fresh run is compared with")
    return found


def file_problems(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    found = problems(notebook) + exercises.problems(notebook)
    if serialise(canonical(nbformat.reads(text, as_version=4))) != text:
        found.append("is not in canonical form: run make notebooks")
    return found


def main() -> int:
    found = [f"{path}: {problem}" for path in notebooks(sys.argv[1:]) for problem in file_problems(path)]
    print("\n".join(found) or "every chapter is in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
