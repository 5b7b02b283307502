"""The Triton kernels without a GPU: interpreted against the reference, and compiled to see what a GPU would run.

Triton decides when its functions are defined whether they are interpreted.  So each comparison (triton_stream.py,
triton_linear.py) runs in a process of its own, and nothing that was imported before, or is after, matters.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed; it is there for Linux alone", allow_module_level=True)

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
# Triton 3.6's interpreter makes integers of one-element arrays, which NumPy 2.4 ended
VERSION = tuple(map(int, importlib.metadata.version("triton").split(".")[:2]))
OLD = VERSION < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0"
interpreted = pytest.mark.skipif(OLD, reason="the interpreter of Triton 3.6 needs a NumPy before 2.4")


def python(*arguments, **environment):
    """Run Python at the root of the repository, without what this process says about Triton."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON_", "ZOLIB_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False
    )


@interpreted
@pytest.mark.parametrize("file", ["triton_stream.py", "triton_linear.py"])
def test_the_interpreted_kernels_agree_with_the_reference(file):
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    run = python(*command, TRITON_INTERPRET="1", ZOLIB_NOISE="reference")
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\b\d+ passed", run.stdout) and "skipped" not in run.stdout, run.stdout


@interpreted
def test_the_benchmark_runs(tmp_path):
    record = tmp_path / "gpu.json"
    run = python("benchmarks/bench_gpu.py", "--interpret", "--record", str(record))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "INTERPRETED" in run.stdout and "bits: all equal" in run.stdout and record.exists()


def test_the_benchmark_needs_a_gpu_and_says_so():
    run = python("benchmarks/bench_gpu.py", CUDA_VISIBLE_DEVICES="")
    assert run.returncode != 0 and "no CUDA device" in run.stderr and "Traceback" not in run.stderr


def test_the_kernels_are_imported_late_and_say_what_is_missing():
    late = "import sys, zolib; assert 'zolib.noise.gpu' not in sys.modules, 'early'; sys.modules['triton'] = None\n"
    run = python("-c", late + "import zolib.noise.gpu")
    assert "ImportError: zolib.noise.gpu needs Triton" in run.stderr, run.stderr


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    """The kernels as they are for an H100: {(name, dtype): PTX}."""
    run = python(str(HERE / "triton_compiled.py"), TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))
    assert run.returncode == 0, run.stderr
    return {(name, dtype): code for name, dtype, code in json.loads(run.stdout)}


@pytest.mark.parametrize(
    "kernel",
    [("_draw", "float32"), ("_perturb", "float16"), ("_update", "float32"), ("_update", "bfloat16")],
    ids=lambda kernel: " ".join(kernel),
)
def test_compiled_each_operation_is_rounded_on_its_own(ptx, kernel):
    code = ptx[kernel[0], f"torch.{kernel[1]}"]
    kinds = set(re.findall(r"\b(?:fma|add|sub|mul|sqrt)\.[a-z.0-9]*f32\b", code))
    assert "add.rn.f32" in kinds
    assert kinds <= {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "sqrt.rn.f32"}  # no fma, nothing flushed to zero
    assert "approx" not in code


def test_compiled_half_precision_layers_use_the_matrix_units(ptx):
    for kernel in ("_pair", "_rank_one"):
        assert "wgmma.mma_async" in ptx[kernel, "torch.bfloat16"]


def test_compiled_float32_layers_multiply_in_float32(ptx):
    for kernel in ("_pair", "_rank_one"):
        code = ptx[kernel, "torch.float32"]
        assert "fma.rn.f32" in code and "mma.sync" not in code and "wgmma" not in code
