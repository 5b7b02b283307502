"""Tasks: gymnasium's own dynamics, episodes that begin afresh, seeds, and what is refused."""

import random

import numpy as np
import pytest
import torch

from zolib import tasks
from zolib.rules import NRL

gymnasium = pytest.importorskip("gymnasium")

SCALES = {"CartPole-v1": (2.4, 2.0, 0.21, 2.0), "Acrobot-v1": (1, 1, 1, 1, 4, 6)}
BOTH = pytest.mark.parametrize("make, name", [(tasks.cartpole, "CartPole-v1"), (tasks.acrobot, "Acrobot-v1")])


@BOTH
def test_each_copy_is_gymnasiums_task(make, name, seed):
    """From the same start the same actions lead the same way to the end of an episode, and pay the same."""
    copies, scale = 3, torch.tensor(SCALES[name])
    task = make(copies, seed=seed)
    envs = [gymnasium.make(name) for _ in range(copies)]
    for k, env in enumerate(envs):
        env.reset(seed=0)
        # in their own precision, both as the one and as the many keep it
        env.unwrapped.state = np.array(task._copies.state[:, k])
    generator = torch.Generator().manual_seed(seed % 2**31)
    paid, over = np.zeros(copies), np.zeros(copies, dtype=bool)
    for _ in range(500):
        action = torch.randint(task.actions, (copies,), generator=generator)
        total, ended = task.step(action)
        for k in np.flatnonzero(~over):
            seen, reward, terminated, truncated, _ = envs[k].step(int(action[k]))
            paid[k] += reward
            over[k] = terminated or truncated
            assert total[k] == paid[k] and ended[k] == over[k]
            if not over[k]:
                assert torch.allclose(task.observation[k] * scale, torch.from_numpy(seen), atol=2e-3)
        if over.all():
            break
    assert over.all()


@BOTH
def test_an_episode_ends_after_500_steps_and_the_next_begins_at_once(make, name, seed):
    task = make(2, seed=seed)
    if name == "CartPole-v1":  # far from falling, whatever it does
        task._copies.theta_threshold_radians = task._copies.x_threshold = np.inf
    lived = tasks.play(task, lambda x: torch.ones(2, dtype=torch.int64), 1000)
    assert lived.step.tolist() == [499, 499, 999, 999] and lived.copy.tolist() == [0, 1, 0, 1]
    assert set(lived.paid) == ({500.0} if name == "CartPole-v1" else {-500.0})
    assert (task._copies.steps == 0).all()
    assert (task.observation * torch.tensor(SCALES[name])).abs().min(dim=0).values.max() <= 1


@BOTH
def test_the_seed_decides_and_no_generator_is_touched(make, name, seed):
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    found = []
    for s in (seed, seed, seed + 1):
        task = make(4, seed=s)
        for t in range(60):
            task.step(torch.full((4,), t % task.actions))
        found.append(task.observation)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert states[0] == random.getstate() and (states[1] == np.random.get_state()[1]).all()
    assert torch.equal(states[2], torch.get_rng_state())


def test_a_learner_balances_the_pole(seed):
    """NRL, told by copy: twice as many steps as at first, and more, within 700 steps of 16 poles."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16, bias=False), torch.nn.Tanh(), torch.nn.Linear(16, 2, bias=False))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (2 / sum(p.shape)) ** 0.5)
    task = tasks.cartpole(16, seed=seed)
    rule = NRL(net, torch.optim.SGD(net.parameters(), lr=0.004), sigma=0.01, replicas=16, seed=seed)
    lived = tasks.play(
        task,
        lambda x: rule.act(lambda: net(x)),
        700,
        lambda paid, ended: rule.reinforce(paid / 20, where=ended),
    )
    early, late = lived.paid[:16].mean(), lived.paid[-16:].mean()
    assert late > 2 * early, f"{early:.0f} steps at first, {late:.0f} at the end"


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="copies=0: give the number"):
        tasks.cartpole(0)
    task = tasks.cartpole(3)
    with pytest.raises(ValueError, match="an integer for each of the 3 copies"):
        task.step(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="an integer for each of the 3 copies"):
        task.step(torch.zeros(3))
    with pytest.raises(ValueError, match="there are actions 0 to 1"):
        task.step(torch.tensor([0, 1, 2]))
    before = task.observation.clone()
    assert torch.equal(before, task.observation)
    assert len(tasks.play(task, lambda x: torch.zeros(3, dtype=torch.int64), 1).paid) == 0
