"""Stochastic rounding: one of the two neighbours, and right on average."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zolib.noise.rounding import HALF, shifted, stochastic_round

ALL_BITS = torch.arange(2**16, dtype=torch.int32)


@pytest.mark.parametrize("dtype", HALF)
@given(x=st.floats(-60000, 60000, width=32))
def test_the_mean_over_all_bits_is_the_number_itself(dtype, x):
    rounded = stochastic_round(torch.full((2**16,), x), ALL_BITS, dtype).double()
    digits, smallest = {torch.float16: (10, -14), torch.bfloat16: (7, -126)}[dtype]
    spacing = 2.0 ** (max(math.frexp(x)[1] - 1, smallest) - digits)
    resolution = spacing * (2.0**-16 if dtype == torch.bfloat16 else 2.0**-13)
    assert rounded.max().item() - rounded.min().item() in (0, spacing)
    assert abs(rounded.mean().item() - x) <= resolution


@pytest.mark.parametrize("dtype", HALF)
def test_what_the_precision_holds_is_not_changed(dtype):
    every = torch.arange(2**16).to(torch.int32).to(torch.int16).view(dtype)
    every = every[every.isfinite()]
    bits = torch.randint(2**16, every.shape, dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stochastic_round(every.float(), bits, dtype), every)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
def test_a_shift_leaves_the_weight_and_moves_by_the_probe_on_average(dtype):
    gain = torch.ones(2**16, dtype=dtype)  # like a LayerNorm gain: in bfloat16 the nearest numbers are 2**-7 away
    moved = shifted(gain, torch.ones(2**16), 1e-3, lambda: ALL_BITS)
    assert moved.dtype == dtype
    assert torch.equal(gain, torch.ones(2**16, dtype=dtype))
    assert moved.double().mean().item() == pytest.approx(1.001, abs=2e-6)
