"""What the tests of the library share: seeds that nobody picks, and intervals at a family-wise level."""

import hashlib
import math

import hypothesis
import pytest
import torch
from scipy import stats

torch.set_num_threads(1)  # the tests themselves run side by side

# Examples follow from each test's code, so that a result can be had again; others: --hypothesis-profile=default
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items):
    """One file that needs the built book goes first, the others last: they would only wait for the same build."""
    files = sorted({str(i.path) for i in items if "html" in getattr(i, "fixturenames", ())})
    rank = {file: 0 if file == files[0] else 2 for file in files}
    items.sort(key=lambda item: rank.get(str(item.path), 1))


@pytest.fixture
def seed(request):
    """A seed derived from the test's own name."""
    return int(hashlib.sha256(request.node.name.encode()).hexdigest()[:12], 16)


@pytest.fixture
def generator(seed):
    """A private torch generator with that seed."""
    return torch.Generator().manual_seed(seed)


def half_width(values, family):
    """Half the width of the t-interval of a mean of independent replicates, at 99.9 % over ``family`` such tests.

    values: (replicates, ...).  Returns the half width of each mean.
    """
    n = len(values)
    quantile = stats.t.ppf(1 - 0.001 / (2 * family), n - 1)
    return quantile * values.double().std(dim=0) / math.sqrt(n)


@pytest.fixture(name="half_width")
def half_width_fixture():
    return half_width
