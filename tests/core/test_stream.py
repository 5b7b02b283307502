"""The stream: published vectors, committed vectors, a second implementation, and its statistics."""

import json
import pathlib
import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import zolib as zo
from zolib.noise import backend, rounding, stream
from zolib.noise.seeds import as_seed

GOLDEN = pathlib.Path(__file__).with_name("stream-v1.json")
LAWS = {"sign": stream.SIGN, "normal": stream.NORMAL, "rounding": stream.ROUNDING}
WORD = st.integers(0, 2**32 - 1)
BOTH = pytest.mark.parametrize("maker", [nullcontext, backend.reference], ids=["kernels", "reference"])


# Known-answer vectors of Random123 for philox4x32-10: counter, key, result
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, expected):
    words = stream.philox([int(w, 16) for w in counter.split()], tuple(int(w, 16) for w in key.split()))
    assert " ".join(f"{int(w):08x}" for w in words) == expected


def philox_numpy(counter, key):
    """A second implementation, in uint64."""
    c = [np.asarray(x, np.uint64) for x in counter]
    k = [int(x) for x in key]
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (b >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
            b & mask,
            (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            a & mask,
        ]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def normals_numpy(seed, step, sample, parameter, count):
    """Normals from the words by the specification, in float32 NumPy, one element after another."""
    with np.errstate(over="ignore"):
        key = philox_numpy((stream.NORMAL, 0, 0, stream.VERSION), (seed % 2**32, seed >> 32))[:2]
        blocks = np.arange(-(-count // 4), dtype=np.uint64)
        words = philox_numpy((blocks, parameter, sample, step), key)
    one = np.float32

    def horner(coefficients, x):
        value = one(coefficients[-1])
        for c in coefficients[-2::-1]:
            value = value * x + one(c)
        return value

    result = []
    for four in zip(*words, strict=True):
        for first, second in (four[:2], four[2:]):
            u = one(int(first)) * one(2.0**-32) + one(2.0**-33)
            mantissa, exponent = np.frexp(u)  # u = mantissa 2^exponent, mantissa in [1/2, 1)
            if mantissa < np.uint32(0x3F3504F3).view(np.float32):  # sqrt(1/2)
                mantissa, exponent = mantissa * one(2), exponent - 1
            f = mantissa - one(1)
            log = one(exponent) * one(0.6931472) + (f + (f * f * f * horner(stream._LOG, f) - f * f * one(0.5)))
            radius = np.sqrt(log * one(-2))
            quarter = (int(second) + 2**29) // 2**30
            a = one(4 * (int(second) - quarter * 2**30)) * one(stream._TURN)
            sine = a + a * a * a * horner(stream._SIN, a * a)
            cosine = (one(1) - a * a * one(0.5)) + a * a * (a * a) * horner(stream._COS, a * a)
            pair = [(cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine)][quarter % 4]
            result += [radius * pair[0], radius * pair[1]]
    return np.array(result[:count], np.float32)


@BOTH
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), WORD, WORD, WORD, st.integers(1, 40))
def test_normals_agree_to_the_bit_with_a_second_implementation(maker, seed, step, sample, parameter, count):
    with maker():
        (drawn,) = stream.draw(stream.NORMAL, seed, step, range(sample, sample + 1), [(parameter, count)])
    expected = normals_numpy(seed, step, sample, parameter, count)
    assert np.array_equal(drawn[0].numpy().view(np.int32), expected.view(np.int32))


@BOTH
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1), WORD, WORD, WORD, st.integers(0, 1000))
def test_signs_and_rounding_bits_are_the_bits_of_the_words(maker, seed, step, sample, parameter, i):
    one = range(sample, sample + 1)
    with maker():
        (signs,) = stream.draw(stream.SIGN, seed, step, one, [(parameter, i + 1)])
        (halves,) = stream.draw(stream.ROUNDING, seed, step, one, [(parameter, i + 1)])
    words = philox_numpy((i // 128, parameter, sample, step), stream.fold(seed, stream.SIGN))
    assert signs[0, i] == (1 if int(words[i // 32 % 4]) >> (i % 32) & 1 else -1)
    words = philox_numpy((i // 8, parameter, sample, step), stream.fold(seed, stream.ROUNDING))
    assert halves[0, i] == int(words[i // 2 % 4]) >> (16 * (i % 2)) & 0xFFFF


def golden_values():
    """What the committed file holds: bits, as hexadecimal strings."""
    values = {}
    for name, law in LAWS.items():
        for seed, step, sample, parameter, count in [
            (0, 0, 0, 0, 9), (1, 0, 0, 0, 3), (2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, 5), (7, 3, 2, 1, 131)
        ]:  # fmt: skip
            (drawn,) = stream.draw(law, seed, step, range(sample, sample + 1), [(parameter, count)])
            bits = drawn[0][-9:].view(torch.int32).tolist()  # the tail, where the last block is cut
            values[f"{name} {seed} {step} {sample} {parameter} {count}"] = [f"{b & 0xFFFFFFFF:08x}" for b in bits]
    values["distinct 5 1 6 1000"] = [f"{i:x}" for i in stream.distinct(5, 1, 6, 1000)]
    x = torch.tensor([1.0, -0.1, 3e-5, 2e-6, 1000.0, -1e-3])
    bits = torch.tensor([40000, 1, 65535, 30000, 12345, 54321], dtype=torch.int32)
    for dtype in rounding.HALF:
        rounded = rounding.stochastic_round(x * 1.0001, bits, dtype).view(torch.int16).tolist()
        values[str(dtype)] = [f"{b & 0xFFFF:04x}" for b in rounded]
    strided = torch.ones(4, 3).t()  # noise follows the logical index, whatever the strides
    z = stream.draw(stream.NORMAL, 0, 0, range(1), [(0, 12)])[0].view(3, 4)
    moved = rounding.shifted(strided, z, 0.5, lambda: None).flatten().view(torch.int32).tolist()
    values["strided"] = [f"{b & 0xFFFFFFFF:08x}" for b in moved]
    return values


@BOTH
def test_version_1_gives_the_committed_numbers(maker):
    assert stream.VERSION == 1, "a new version needs golden vectors of its own, beside these"
    with maker():
        assert golden_values() == json.loads(GOLDEN.read_text())


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(LAWS.values())),
    st.lists(st.integers(0, 300), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_values_do_not_depend_on_how_they_are_asked_for(law, sizes, samples, chunk):
    parts = list(enumerate(sizes))
    together = stream.draw(law, 3, 1, range(samples), parts)
    with backend.reference(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_CHUNK", chunk)  # blocks worked on at a time
        pieces = stream.draw(law, 3, 1, range(samples), parts)
    for k in range(samples):
        for j, part in enumerate(parts):
            (alone,) = stream.draw(law, 3, 1, range(k, k + 1), [part])
            assert torch.equal(alone[0], together[j][k])
            assert torch.equal(alone[0], pieces[j][k])


def test_normals_are_normal(seed):
    z = stream.draw(stream.NORMAL, seed, 0, range(1), [(0, 400_000)])[0][0].double()
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-4
    for power, moment, deviation in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        error = (z**power).mean().item() - moment
        assert abs(error) < 4.5 * (deviation / len(z)) ** 0.5, power


def test_bits_are_fair_and_each_place_is_used(seed):
    signs = stream.draw(stream.SIGN, seed, 0, range(4000), [(0, 128)])[0]
    assert signs.abs().eq(1).all()
    assert (signs.mean(dim=0).abs() * 4000**0.5).max() < 5  # 128 places
    covariance = signs.T @ signs / 4000 - torch.eye(128)
    assert (covariance.abs() * 4000**0.5).max() < 5.5  # 8,128 pairs


@pytest.mark.parametrize("law", [stream.SIGN, stream.NORMAL])
@pytest.mark.parametrize("change", ["seed", "step", "sample", "parameter", "seed by 2**32", "next element"])
def test_neighbouring_streams_are_independent(law, change, seed):
    count = 100_000

    def get(seed=seed, step=5, sample=5, parameter=5, skip=0):
        (z,) = stream.draw(law, seed, step, range(sample, sample + 1), [(parameter, count + skip)])
        return z[0, skip:].double()

    other = {
        "seed": lambda: get(seed=seed + 1),
        "seed by 2**32": lambda: get(seed=seed + 2**32),
        "step": lambda: get(step=6),
        "sample": lambda: get(sample=6),
        "parameter": lambda: get(parameter=6),
        "next element": lambda: get(skip=1),
    }[change]()
    z = get()
    for a, b in [(z, other), (z.square(), other.square())]:
        a, b = a - a.mean(), b - b.mean()
        if a.abs().max() > 0:
            assert abs((a * b).mean() / (a.std() * b.std())) * count**0.5 < 4.5


def test_draws_leave_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    stream.draw(stream.NORMAL, 0, 0, range(2), [(0, 10)])
    zo.grad(lambda x: x.sum(), samples=2)(torch.ones(3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


def test_distinct_is_a_uniform_shuffle_and_a_prefix_of_itself():
    counts = {}
    for step in range(4800):
        order = tuple(stream.distinct(11, step, 4, 4))
        assert order[:2] == tuple(stream.distinct(11, step, 2, 4))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4
    assert len(set(stream.distinct(0, 0, 1000, 10**12))) == 1000


def test_a_parameter_too_large_for_the_counter_is_refused():
    with pytest.raises(ValueError, match="more than 17179869184 elements"):
        stream.draw(stream.NORMAL, 0, 0, range(1), [(0, 2**34 + 1)], "meta")


def test_unnamed_seeds_follow_the_library_counter():
    zo.manual_seed(3)
    first = [as_seed(None) for _ in range(3)]
    zo.manual_seed(3)
    assert first == [as_seed(None) for _ in range(3)]
    assert len(set(first)) == 3
    zo.manual_seed(4)
    assert as_seed(None) not in first
    zo.manual_seed(0)


@pytest.mark.parametrize(
    ("bad", "error"), [(-1, ValueError), (2**64, ValueError), (1.5, TypeError), (True, ValueError)]
)
def test_a_seed_must_be_a_64_bit_number(bad, error):
    with pytest.raises(error, match="seed must be a whole number"):
        zo.manual_seed(bad)
