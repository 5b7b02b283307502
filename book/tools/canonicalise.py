"""Execute notebooks and store them in canonical form: the same bytes whenever the same numbers came out.

    python book/tools/canonicalise.py [--jobs N] chapters

Kept: source, tags and other metadata written by the author, text outputs and claim records. Dropped: images,
HTML, times and whatever a front end adds. Code cells are numbered 1..n: a cell without a number would never be
compared with a fresh run by nbval.
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

KEPT_TYPES = {"text/plain", "application/vnd.zolib.claim+json"}
KEPT_CELL_METADATA = {"tags", "mystnb"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def canonical_output(output):
    """The part of an output that is the same in every run, or None."""
    if output.output_type in ("display_data", "execute_result"):
        data = {kind: value for kind, value in output.data.items() if kind in KEPT_TYPES}
        if not data:
            return None
        output.data = nbformat.from_dict(dict(sorted(data.items())))
        output.metadata = nbformat.from_dict({})
    if "execution_count" in output:
        output.execution_count = None
    output.pop("transient", None)
    return output


def joined(outputs):
    """Pieces of one stream that follow one another as one: a kernel cuts it where it pleases."""
    whole = []
    for output in outputs:
        if whole and whole[-1].output_type == output.output_type == "stream" and whole[-1].name == output.name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def canonical(notebook):
    """The canonical form of an executed notebook, changed in place."""
    notebook.metadata = nbformat.from_dict({
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        **{key: value for key, value in notebook.metadata.items() if key in {"mystnb", "title"}},
    })
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for index, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{index:02d}"
        cell.metadata = nbformat.from_dict(
            {key: value for key, value in cell.metadata.items() if key in KEPT_CELL_METADATA})
        cell.pop("attachments", None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = joined([kept for output in cell.outputs if (kept := canonical_output(output)) is not None])
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def serialise(notebook) -> str:
    """The text of a notebook's file."""
    return nbformat.writes(notebook, indent=1, sort_keys=True, ensure_ascii=False).rstrip("\n") + "\n"


def write(notebook, path: Path) -> bool:
    """Write a notebook if it differs from the file; true if it was written."""
    text = serialise(notebook)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
    return True


def execute(path: Path, timeout: int = 600):
    """Run a notebook in its own folder with this Python's kernel; a cell's error is raised."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", store_widget_state=False,
                            record_timing=False, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    return notebook


def run(path: Path) -> str | None:
    """Execute and store one notebook; the error's text if a cell failed."""
    try:
        changed = write(canonical(execute(path)), path)
    except CellExecutionError as error:
        return f"{path}: {error}"
    print(f"{'changed  ' if changed else 'unchanged'} {path}", flush=True)
    return None


def notebooks(places: list[str]) -> list[Path]:
    found = []
    for place in map(Path, places):
        found += [place] if place.suffix == ".ipynb" else sorted(
            p for p in place.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", help="notebooks, or folders of them")
    parser.add_argument("--jobs", type=int, default=1, help="how many run side by side")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.jobs) as pool:
        errors = [error for error in pool.map(run, notebooks(options.places)) if error]
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
