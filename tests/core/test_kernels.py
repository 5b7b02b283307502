"""The kernels of the CPU: the bits of the reference, whatever the shape, the precision, the threads or the process."""

import itertools
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from zolib.noise import backend, compiled, cpu, fused, rounding, stream, team
from zolib.noise.fused import Term

LAWS = [stream.SIGN, stream.NORMAL]
DTYPES = [torch.float32, torch.float64, *rounding.HALF]
WORD = st.integers(0, 2**32 - 1)
SEED = st.integers(0, 2**64 - 1)
# numbers that arithmetic on bits could get wrong: zeros, subnormal ones, the ends of ranges
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0**-14, 2.0**-15, 2.0**-24, -(2.0**-24), 2.0**-126, 1e-40, -1e-45, 65504.0, 3e38]


@pytest.fixture(autouse=True)
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def same(a, b):
    """Equal to the bit; NaN is NaN."""
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16}[a.element_size()]
    number = ~(a.isnan() & b.isnan())
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(width)[number], b.contiguous().view(width)[number])


def by_reference(f, *arguments):
    with backend.reference():
        return f(*arguments)


def arranged(flat, layout):
    """Values in a layout of memory that is not always the plain one."""
    n = len(flat)
    if layout == "offset":
        return torch.cat([flat, flat])[n:]
    if layout == "strided":
        return torch.stack([flat, flat], dim=1)[:, 1]
    if layout == "transposed" and n % 3 == 0:
        return flat.view(3, -1).t()
    if layout == "channels last" and n % 12 == 0:
        return flat.view(1, 3, -1, 4).contiguous(memory_format=torch.channels_last)
    return flat.view(()) if n == 1 else flat


LAYOUTS = st.sampled_from(["plain", "offset", "strided", "transposed", "channels last"])
SIZES = st.integers(0, 300) | st.integers(1, 9).map(lambda k: 12 * k) | st.integers(4090, 13000)


@st.composite
def values(draw):
    flat = torch.randn(draw(SIZES), generator=torch.Generator().manual_seed(draw(WORD)), dtype=torch.float64)
    flat = flat * 10 ** draw(st.integers(-9, 5))
    for i, x in enumerate(draw(st.lists(st.sampled_from(SPECIAL) | st.floats(width=32), max_size=8))):
        flat[i : i + 1] = x
    return arranged(flat.to(draw(st.sampled_from(DTYPES))), draw(LAYOUTS))


COEFFICIENT = st.sampled_from([0.0, 1.0, 1e-3, -0.3, 1e-30, 3e-8]) | st.floats(-10, 10)
TERMS = st.lists(st.builds(Term, SEED, WORD, WORD, COEFFICIENT), min_size=1, max_size=4)
THREADS = st.sampled_from([1, 2, 3])


@settings(max_examples=200, deadline=None)
@given(values(), st.sampled_from(LAWS), SEED, WORD, WORD, WORD, COEFFICIENT, THREADS, st.booleans())
def test_perturbed_has_the_bits_of_the_reference(value, law, seed, step, sample, parameter, scale, threads, pooled):
    torch.set_num_threads(threads)
    before = value.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "PIECE", compiled.CHUNK)  # so that a few thousand elements are enough for threads
        if pooled:  # as where torch has no OpenMP, and after a fork
            patch.setattr(team, "_openmp", None)
        found = fused.perturbed(value, law, seed, step, sample, parameter, scale)
    expected = by_reference(fused.perturbed, value, law, seed, step, sample, parameter, scale)
    assert same(found, expected)
    assert value.numel() < 2 or found.stride() == expected.stride()
    assert same(value, before)


@settings(max_examples=200, deadline=None)
@given(values(), st.sampled_from(LAWS), TERMS, WORD, st.sampled_from([1.0, 0.9, 0.0]), THREADS, st.booleans())
def test_update_has_the_bits_of_the_reference(value, law, terms, parameter, decay, threads, pooled):
    torch.set_num_threads(threads)
    expected = value.clone()
    by_reference(fused.update_, expected, law, terms, parameter, decay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "PIECE", compiled.CHUNK)
        if pooled:  # as where torch has no OpenMP, and after a fork
            patch.setattr(team, "_openmp", None)
        fused.update_(value, law, terms, parameter, decay)
    assert same(value, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*LAWS, stream.ROUNDING]),
    SEED,
    WORD,
    st.builds(range, st.integers(0, 2**31), st.integers(0, 40), st.integers(1, 3)).map(
        lambda r: range(r.start, r.start + r.stop * r.step, r.step)
    ),
    st.lists(st.tuples(WORD, SIZES), min_size=1, max_size=3),
    THREADS,
    st.booleans(),
)
def test_draws_have_the_bits_of_the_reference(law, seed, step, samples, parts, threads, pooled):
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "PIECE", compiled.CHUNK)
        if pooled:
            patch.setattr(team, "_openmp", None)
        found = stream.draw(law, seed, step, samples, parts)
    for a, b in zip(found, by_reference(stream.draw, law, seed, step, samples, parts), strict=True):
        assert a.shape == b.shape
        assert same(a, b)


def test_a_million_normals_have_the_bits_of_the_reference(seed):
    draw = stream.NORMAL, seed, 0, range(1), [(0, 1 << 20)]
    assert same(stream.draw(*draw)[0], by_reference(stream.draw, *draw)[0])


def test_words_at_the_ends_of_every_range_give_the_normals_of_the_reference():
    edges = {w + e for w in (0, *(1 << b for b in range(33)), *(k << 29 for k in range(9))) for e in (-1, 0, 1)}
    edges |= {int(w) for w in np.linspace(0, 2**32 - 1, 40)} | {round(2**32 / 2**0.5) + e for e in range(-300, 300, 7)}
    words = torch.tensor(list(itertools.product(sorted(e for e in edges if 0 <= e < 2**32), repeat=2)))
    found = np.full(words.numel(), -0.0, np.float32)
    compiled._add_normals(words.flatten().numpy().astype(np.uint32), np.float32(1), found)
    assert same(torch.from_numpy(found), stream._normal(words).flatten())


@pytest.mark.parametrize("dtype", rounding.HALF)
def test_half_precision_is_read_and_rounded_as_the_reference_does(dtype, generator):
    every = torch.arange(2**16).to(torch.int32).to(torch.int16).view(dtype)
    read, round_ = compiled._FORMATS[dtype][1:]
    found = torch.tensor([read(h) for h in every.view(torch.uint16).numpy()])
    assert same(found, every.float())
    neighbours = torch.arange(-2, 3, dtype=torch.int32)
    near = every[::37].float().view(torch.int32).unsqueeze(1)  # a number of the format, and floats right beside it
    at = torch.cat([(near + neighbours).flatten(), torch.randint(-(2**31), 2**31, (4000,), generator=generator).int()])
    x = at.view(torch.float32)
    bits = torch.randint(2**16, x.shape, generator=generator, dtype=torch.int32)
    bits[::3], bits[1::5] = 0, 2**16 - 1
    found = [round_(a, b) for a, b in zip(x.numpy(), bits.numpy().astype(np.uint16), strict=True)]
    found = torch.tensor(np.array(found, np.uint16)).view(dtype)
    assert same(found[x.isfinite()], rounding.stochastic_round(x, bits, dtype)[x.isfinite()])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("block", [2**25, 2**31 - 16, 2**32 - 2048])
def test_elements_beyond_32_bits_are_numbered_right(law, dtype, block, generator):
    """The last case ends at the last element that a stream numbers: 2**39 signs or 2**34 normals."""
    per = stream._LAWS[law][0]
    count = min(2048 * per, 2 * compiled.CHUNK + 5)
    base = (block * per + 2048 * per - count) // compiled.CHUNK * compiled.CHUNK
    count = min(count, (per << 32) - base)

    def at(kind):
        width = stream._LAWS[kind][0]
        blocks = torch.arange(base // width, -(-(base + count) // width)) & 0xFFFFFFFF
        words = stream.philox((blocks, 3, 7, 5), stream.fold(11, kind))
        return stream._LAWS[kind][1](torch.stack(words, dim=-1)).flatten()[:count]

    value = torch.randn(count, generator=generator).to(dtype)
    out = torch.empty_like(value)
    cpu._run(value, out, law, [(11, 5, 7, 1e-3)], 3, 1.0, -0.0, base)
    assert same(out, rounding.shifted(value, at(law), 1e-3, lambda: at(stream.ROUNDING)))
    drawn = np.empty((1, count), np.float32)
    compiled.filling(law)(drawn, base, cpu._rows([(law, 11, 5, 7)], 3)[0], 0, 1)
    assert same(torch.from_numpy(drawn[0]), at(law))


def moved(threads):
    """What an update makes of 1, as bytes.  Nothing of torch's own may use threads, which a fork would not survive."""
    torch.set_num_threads(threads)
    value = torch.from_numpy(np.ones(5 * cpu.PIECE + 3, np.float32))
    fused.update_(value, stream.SIGN, [Term(1, 2, 3, 0.5), Term(1, 2, 4, 0.25)], 6)
    return value.numpy().tobytes()


@pytest.mark.skipif(team.openmp() is None, reason="torch has no OpenMP of GNU's here")
def test_torchs_own_threads_share_the_work_where_there_are_any(monkeypatch):
    expected = moved(1)
    monkeypatch.setattr(cpu, "_shared", None)  # the pool
    assert moved(2) == expected
    callers = [threading.Thread(target=lambda: found.append(moved(2))) for _ in range(3)]
    found = []
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [expected] * 3


def _in_a_fork(pipe):
    pipe.send_bytes(moved(2))
    pipe.send(cpu._threads(1).submit(os.getpid).result(30))


class Noisy(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.frombuffer(moved(2), np.float32)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    expected = moved(2)  # the parent's pool is up and running
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=_in_a_fork, args=(there,), daemon=True)
    child.start()
    assert here.poll(60), "the child hangs"
    assert here.recv_bytes() == expected
    assert here.poll(60) and here.recv() == child.pid  # not only right, but by a thread that is there
    child.join(60)
    loader = DataLoader(Noisy(), num_workers=1, multiprocessing_context="fork", batch_size=None, timeout=60)
    for item in loader:
        assert item.numpy().tobytes() == expected
    assert moved(2) == expected


def test_threads_may_call_at_once():
    expected = moved(1)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(moved, [2, 3, 2, 3, 2, 3])) == [expected] * 6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 4)])
def test_an_update_is_seen_by_autograd(dtype, shape):
    weight = torch.ones(shape, dtype=dtype).requires_grad_()
    value = weight if len(shape) == 1 else weight.t()
    before = weight._version
    loss = weight.square().sum()
    fused.update_(value, stream.SIGN, [Term(0, 0, 0, 0.1)], 0)
    assert weight._version > before
    assert weight.is_leaf and weight.grad is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", rounding.HALF)
@pytest.mark.parametrize(("weight", "c"), [(1.0, 1e-5), (0.02, 1e-6)], ids=["gain", "weight"])
def test_small_updates_of_half_precision_are_right_on_average(dtype, weight, c, seed, half_width):
    """Two hundred steps, each of which would vanish if it were rounded to nearest."""
    value = torch.full((1 << 19,), weight).to(dtype)
    start, total = value.double(), torch.zeros(len(value))
    assert torch.equal(value + c, value) and torch.equal(value - c, value)
    for step in range(200):
        fused.update_(value, stream.SIGN, [Term(seed, step, 0, c)], 0)
        total += stream.draw(stream.SIGN, seed, step, range(1), [(0, len(value))])[0][0]
    moves = total * (value.double() - start)  # on average c total^2
    right = c * total.double().square()
    assert (moves - right).mean().abs() <= half_width(moves - right, family=4)
    assert right.mean() > 5 * half_width(moves - right, family=4)  # steps that are lost would show


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_thousand_probes_and_updates_by_nothing_leave_every_bit(dtype, generator):
    value = torch.randn(1000, generator=generator) * 0.02
    value[: len(SPECIAL)] = torch.tensor(SPECIAL)
    value = value.to(dtype)
    before, version = value.clone(), value._version
    for k in range(1000):
        for scale in (1e-3, -1e-3):
            fused.perturbed(value, stream.SIGN, 5, k, 0, 0, scale)
        fused.update_(value, stream.SIGN, [Term(5, k, 0, 0.0)], 0)
    assert same(value, before)
    assert value._version == version  # nothing was written, not even the same


@pytest.mark.parametrize("use", [by_reference, lambda f, *arguments: f(*arguments)], ids=["reference", "kernels"])
def test_decay_without_directions(use):
    value = torch.tensor([1.0, -0.0, 3.0])
    use(fused.update_, value, stream.SIGN, [], 0, 0.5)
    assert same(value, torch.tensor([0.5, -0.0, 1.5]))
    use(fused.update_, value, stream.SIGN, [], 0)
    assert same(value, torch.tensor([0.5, -0.0, 1.5]))


def test_decay_of_half_precision_is_not_lost_when_the_coefficients_are_zero(seed, half_width):
    value = torch.ones(1 << 16, dtype=torch.bfloat16)
    fused.update_(value, stream.SIGN, [Term(seed, 0, 0, 0.0)], 0, 1 - 1e-4)
    error = value.double() - (1 - 1e-4)
    assert error.mean().abs() <= half_width(error, family=1)


@pytest.mark.parametrize(
    "value",
    [torch.ones(3, 1).expand(3, 4), torch.ones(1).expand(5), torch.ones(9).as_strided((3, 4), (2, 1))],
    ids=["rows", "number", "windows"],
)
def test_an_update_of_shared_memory_is_refused(value):
    with pytest.raises(ValueError, match=r"value has shape .* share a place in memory.*value.clone\(\)"):
        fused.update_(value, stream.SIGN, [Term(0, 0, 0, 0.1)], 0)
    assert value.eq(1).all()
    assert fused.perturbed(value, stream.SIGN, 0, 0, 0, 0, 0.5).unique().tolist() == [0.5, 1.5]  # a copy is no matter


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_other_precisions_are_refused(dtype):
    value = torch.ones(3, dtype=dtype)
    with pytest.raises(TypeError, match=f"value has dtype {dtype}"):
        fused.update_(value, stream.SIGN, [Term(0, 0, 0, 0.1)], 0)
    with pytest.raises(TypeError, match=f"value has dtype {dtype}"):
        fused.perturbed(value, stream.SIGN, 0, 0, 0, 0, 0.1)


def test_tensors_that_are_more_than_memory_go_by_the_reference():
    x = torch.ones(5)
    assert backend.kernels(x) is cpu
    assert backend.kernels(torch.nn.Parameter(x)) is cpu
    with torch.inference_mode():
        assert backend.kernels(torch.ones(5)) is None
    assert backend.kernels(x.to_sparse()) is None
    assert backend.kernels(torch.ones(5, device="meta")) is None
    torch.func.vmap(lambda row: torch.testing.assert_close(backend.kernels(row), None) or row)(torch.ones(2, 5))


def test_without_numba_the_reference_draws_and_says_so_once(monkeypatch):
    asked = stream.NORMAL, 3, 1, range(2), [(0, 10)]
    expected = stream.draw(*asked)
    monkeypatch.setitem(sys.modules, "zolib.noise.cpu", None)  # its import fails now
    backend._module.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="plain torch, which gives the same numbers.*need numba"):
            assert same(stream.draw(*asked)[0], expected[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stream.draw(*asked)
    finally:
        backend._module.cache_clear()


def test_the_import_of_the_library_compiles_nothing():
    code = "import sys, zolib; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
