"""A journaled run may be killed at any moment: at most the step in flight is lost, and the end is the same to the bit."""

import copy
import os
import random
import signal
import time

import pytest
from small import bits, build, journaled, train

import zolib as zo
from zolib.records import Form, read


@pytest.fixture
def problem(generator):
    return build(generator)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.journal"


def test_a_torn_end_is_cut_off_at_every_length(problem, path):
    net, loss = problem
    start, end = copy.deepcopy(net), copy.deepcopy(net)
    train(end, loss, 5)
    journaled(net, loss, path, 4)
    data, size = path.read_bytes(), Form(1, 1, 4).size
    ends = [data[:-cut] for cut in range(1, size)]
    ends += [data[:-1] + b"\x00", data[:-size] + bytes(3 * size), data + b"\xff" * (2 * size + 5)]
    for torn in ends:
        path.write_bytes(torn)
        again = copy.deepcopy(start)
        with pytest.warns(RuntimeWarning, match="are no whole record"):
            journaled(again, loss, path, 5)
        assert bits(again) == bits(end)
        assert len(read(path).records) == 5
    for length in range(0, len(data) - 4 * size, 50):  # killed while it wrote the header
        path.write_bytes(data[:length])
        again = copy.deepcopy(start)
        journaled(again, loss, path, 5)
        assert bits(again) == bits(end)


def killed_until_done(net, loss, path, steps, kills, chance, **settings):
    """Train in a child process that is killed at random moments, until it has gone through.  Returns the number."""
    done = 0
    for life in range(1000):
        child = os.fork()
        if not child:
            try:
                journaled(net, loss, path, steps, **settings)
                os._exit(0)
            finally:
                os._exit(1)
        if life < kills:
            time.sleep(chance.uniform(0.0, 0.08))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        done += os.WIFSIGNALED(status)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return done
    raise AssertionError("it never ended")


@pytest.mark.filterwarnings("ignore:.*no whole record:RuntimeWarning", "ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(problem, path, kills, seed):
    net, loss = problem
    settings = {"momentum": 0.5, "normalize": 0.95, "snapshot": 50}
    end, steps = copy.deepcopy(net), 40 * kills
    train(end, loss, steps, **{k: v for k, v in settings.items() if k != "snapshot"})
    start = copy.deepcopy(net)
    done = killed_until_done(net, loss, path, steps, kills, random.Random(seed), **settings)
    assert done >= kills - 1  # the last may find it finished
    assert zo.Journal(path).replay(start) == steps
    assert bits(start) == bits(end)
