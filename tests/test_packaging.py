"""The wheel works where the repository is not: installed on its own, it trains a network and finds its data."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

SHOW = """
import pathlib, sys, zolib
from zolib import claims, problems
home = pathlib.Path(zolib.__file__)
assert home.is_relative_to(sys.prefix), f"not the installed one: {home}"
for file in sorted((home.parent / "_data").glob("*.json")):
    assert problems.recorded(file.name), file
print(len(claims.load()), "claims declared")
"""


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (file,) = folder.glob("zolib-*.whl")
    return file


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """Runs code with the wheel, in an environment and a folder of its own; dependencies are lent by this one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # a line in a .pth file adds a folder but not that folder's own .pth files: the checkout stays unknown
    Path(site, "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return lambda code: run(python, "-c", code, cwd=folder, env=clean)


def test_the_wheel_holds_the_library_its_data_and_its_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"zolib", names[-1].split("/")[0]}
    assert "zolib/_data/claims.toml" in names and any(name.endswith("licenses/LICENSE") for name in names)
    recorded = {f"zolib/_data/{file.name}" for file in (ROOT / "data").iterdir()}
    assert recorded <= set(names)
    library = {f"zolib/{file.relative_to(ROOT / 'zolib').as_posix()}" for file in (ROOT / "zolib").rglob("*.py")}
    assert library <= set(names)
    assert wheel.stat().st_size < 5e6


def test_it_finds_its_data(elsewhere):
    assert int(elsewhere(SHOW).split()[0]) > 0


def test_the_example_of_the_readme_runs(elsewhere):
    example = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]
    printed = elsewhere(SHOW + example)
    losses = [float(line.split()[1]) for line in printed.splitlines() if re.fullmatch(r"\d+ [\d.]+", line)]
    assert losses[-1] < 0.5 * losses[0]
