"""Minimizer: ask and tell, the state of a search, and runs that are killed and resumed."""

import numpy as np
import pytest

import zolib as zo
from zolib.minimizers import SEARCHERS


def bumps(x):
    return (x**2 - np.cos(9 * x)).sum(axis=-1)


def drive(search, generations):
    asked = []
    for _ in range(generations):
        x = search.ask()
        asked.append(x)
        search.tell(bumps(x))
    return asked


@pytest.mark.parametrize("method", SEARCHERS)
def test_a_resumed_search_asks_for_the_same_points(method):
    arguments = dict(x0=np.ones(4), method=method, seed=9, restarts=20, bounds=[(-3, 3)] * 4, budget=5000)
    whole = zo.Minimizer(**arguments)
    drive(whole, 40)
    state = whole.state_dict()
    rest = drive(whole, 150)
    again = zo.Minimizer(**arguments)
    again.load_state_dict(state)
    for a, b in zip(rest, drive(again, 150), strict=True):
        assert np.array_equal(a, b)
    assert again.best_value == whole.best_value and again.evaluations == whole.evaluations
    assert np.array_equal(again.mean, whole.mean)


@pytest.mark.parametrize("method", ["snes", "cma-es"])
def test_the_state_survives_restarts(method):
    arguments = dict(x0=np.ones(2), method=method, seed=2, restarts=50)
    whole = zo.Minimizer(**arguments)
    while whole.restart < 2:
        x = whole.ask()
        whole.tell((x**2).sum(axis=1))
    state = whole.state_dict()
    again = zo.Minimizer(**arguments)
    again.load_state_dict(state)
    assert np.array_equal(whole.ask(), again.ask())
    assert len(whole.ask()) == 4 * zo.Minimizer(**arguments).popsize


def test_asking_twice_gives_the_same_points():
    search = zo.Minimizer(np.zeros(3), seed=0)
    assert np.array_equal(search.ask(), search.ask())


def test_the_caller_may_write_into_what_it_was_given():
    search, other = (zo.Minimizer(np.ones(3), "random-search", seed=0) for _ in range(2))
    for _ in range(20):
        x, y = search.ask(), other.ask()
        assert np.array_equal(x, y)
        values = bumps(x)
        x[:] = np.nan
        search.tell(values), other.tell(values)
    assert np.array_equal(search.best, other.best) and np.isfinite(search.best).all()


def test_telling_is_checked():
    search = zo.Minimizer(np.zeros(3), "snes", seed=0)
    with pytest.raises(RuntimeError, match="ask"):
        search.tell([1.0])
    x = search.ask()
    with pytest.raises(ValueError, match="one number for each"):
        search.tell([1.0])
    search.tell(bumps(x))
    with pytest.raises(RuntimeError, match="ask"):
        search.tell(bumps(x))


def test_a_search_that_is_over_says_so():
    search = zo.Minimizer(np.zeros(2), "cma-es", seed=0)
    while not search.stopped:
        search.tell((search.ask() ** 2).sum(axis=1))
    with pytest.raises(RuntimeError, match="over.*restarts"):
        search.ask()


def test_scipys_methods_cannot_be_driven():
    with pytest.raises(ValueError, match="call zolib.minimize"):
        zo.Minimizer(np.zeros(2), "powell")


def test_the_state_of_another_search_is_refused():
    state = zo.Minimizer(np.zeros(2), "snes", seed=0).state_dict()
    with pytest.raises(ValueError, match="another method"):
        zo.Minimizer(np.zeros(2), "cma-es", seed=0).load_state_dict(state)
    with pytest.raises(ValueError, match="x0, bounds or sigma"):
        zo.Minimizer(np.ones(2), "snes", seed=0).load_state_dict(state)
    with pytest.raises(ValueError, match="another popsize"):
        zo.Minimizer(np.zeros(2), "snes", seed=0, popsize=20).load_state_dict(state)


@pytest.mark.parametrize("method", SEARCHERS)
def test_a_killed_run_goes_on_from_its_file(method, tmp_path):
    arguments = dict(x0=np.ones(3), method=method, seed=4, budget=600, sigma=0.3)
    whole = zo.minimize(bumps, **arguments)

    class Killed(Exception):
        pass

    left = iter(range(350))

    def fragile(x):
        if next(left, None) is None:
            raise Killed
        return bumps(x)

    file = tmp_path / "run.npz"
    with pytest.raises(Killed):
        zo.minimize(fragile, **arguments, checkpoint=file)
    calls = []
    unnamed = arguments | {"seed": None}  # the file knows
    rest = zo.minimize(lambda x: calls.append(1) or bumps(x), **unnamed, checkpoint=file)
    assert rest.seed == 4
    assert (
        rest.fun == whole.fun and np.array_equal(rest.x, whole.x) and rest.nfev == whole.nfev and rest.nit == whole.nit
    )
    assert len(calls) < 300


def test_a_file_that_is_no_state_is_refused_and_kept(tmp_path):
    file = tmp_path / "notes.npz"
    file.write_bytes(b"not a state")
    with pytest.raises(ValueError, match="not a state"):
        zo.minimize(bumps, np.ones(3), method="snes", checkpoint=file)
    assert file.read_bytes() == b"not a state"
