"""Build the executed book into _build/html; any warning is a failure.

    python book/tools/build.py [root]

A failed build forgets the pages it has read, so that repeating it unmended fails again: Sphinx would
otherwise reuse them and not repeat their warnings.
"""

import shutil
import subprocess
import sys
from pathlib import Path


def build(root: Path, quiet: bool = False) -> subprocess.CompletedProcess:
    """Run Jupyter Book on ``root``; with ``quiet`` the output is returned instead of shown."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(root), "-W", "--keep-going"]
    done = subprocess.run(command, capture_output=quiet, text=True)
    if done.returncode != 0:
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
    elif (html := root / "_build" / "html" / "index.html").exists():
        _give_icon(html)
    return done


def _give_icon(page: Path) -> None:
    """The page that leads to the first one is made without an icon, for which browsers would then ask the server.

    It is left at once, so it gets an empty one that nobody has to load.
    """
    text = page.read_text(encoding="utf-8")
    if 'rel="icon"' not in text:
        page.write_text('<link rel="icon" href="data:," />\n' + text, encoding="utf-8")


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    code = build(root).returncode
    page = root / "_build" / "html" / "index.html"
    if code == 0 and not page.exists():
        code = 1
    if code:
        print("\nThe book was NOT built: see the warnings above.", file=sys.stderr)
    else:
        print(f"\nThe book is ready: open {page.as_uri()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
