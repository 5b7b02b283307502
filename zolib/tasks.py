"""Reinforcement tasks of gymnasium, many copies side by side: a pole to balance, a double pendulum to swing up.

No copy waits for another: each begins afresh as soon as its episode ends.  Randomness comes from the task's own seed;
no global generator is touched.  Needs the package gymnasium (the extra ``book``)::

    task = tasks.cartpole(8, seed=0)
    reward, ended = task.step(action)  # action (8,); a policy sees task.observation, (8, 4)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Task:
    """Copies of one task: what they see, and what their episodes have paid.

    observation: (copies, inputs), float32, each input divided by a fixed scale, about 1 in size.  actions: how many
    there are.  Made by :func:`cartpole` and :func:`acrobot`.
    """

    def __init__(self, copies: Any, scale: tuple[float, ...], actions: int, seed: int):
        self._copies, self._scale, self.actions = copies, np.asarray(scale, dtype=np.float32), actions
        seen, _ = copies.reset(seed=seed)
        self.observation = self._seen(seen)
        self._paid = torch.zeros(len(seen), dtype=torch.float64)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Take an action in every copy, (copies,), integers.

        Returns:
            What the episode of each copy has paid so far, this step included, (copies,), float64; and which episodes
            ended with this step, (copies,), bool.  Those begin afresh: ``observation`` shows their new start.
        """
        if action.shape != self._paid.shape or action.is_floating_point():
            raise ValueError(
                f"action has dtype {action.dtype} and shape {tuple(action.shape)}; give an integer for each of the "
                f"{len(self._paid)} copies"
            )
        if action.min() < 0 or action.max() >= self.actions:
            raise ValueError(
                f"action holds {action.min()} to {action.max()}; there are actions 0 to {self.actions - 1}"
            )
        seen, reward, terminated, truncated, _ = self._copies.step(action.cpu().numpy())
        paid = self._paid + torch.from_numpy(np.asarray(reward, dtype=np.float64))
        ended = torch.from_numpy(terminated | truncated)
        self._paid = torch.where(ended, 0.0, paid)
        self.observation = self._seen(seen)
        return paid, ended

    def _seen(self, observation: np.ndarray) -> Tensor:
        return torch.from_numpy(observation / self._scale)


def cartpole(copies: int = 1, seed: int = 0) -> Task:
    """A pole to balance by pushing its cart left or right (0, 1): 1 for each step that it stands, at most 500.

    Observation: position, speed, angle and its speed, divided by 2.4 m, 2 m/s, 0.21 rad and 2 rad/s.  Source:
    gymnasium's CartPole-v1, after Barto, Sutton and Anderson, IEEE Trans. SMC 13:834, 1983.
    """
    return Task(_made("Poles", copies), (2.4, 2.0, 0.21, 2.0), 2, seed)


def acrobot(copies: int = 1, seed: int = 0) -> Task:
    """A double pendulum, pushed at the elbow (torque -1, 0, 1), whose tip must rise by a link's length above its hinge.

    -1 for each step until it does, 500 steps at most: what paid is known at the end only.  Observation: cosine and sine
    of both angles and their speeds, the speeds divided by 4 and 6 rad/s.  Source: gymnasium's Acrobot-v1, after Sutton,
    NeurIPS 1996.
    """
    return Task(_made("Acrobots", copies), (1.0, 1.0, 1.0, 1.0, 4.0, 6.0), 3, seed)


class Lived(NamedTuple):
    """Every episode that ended, in order: the step at which it did, what it paid, and in which copy, (episodes,)."""

    step: np.ndarray
    paid: np.ndarray
    copy: np.ndarray


def play(
    task: Task,
    act: Callable[[Tensor], Tensor],
    steps: int,
    reinforce: Callable[[Tensor, Tensor], Any] | None = None,
    progress: bool | None = None,
) -> Lived:
    """Let a learner live in a task.

    Args:
        task: See :func:`cartpole`.
        act: Actions, (copies,), for observations, (copies, inputs).
        steps: How many in each copy.
        reinforce: Told what the episodes paid, (copies,), and which of them ended, (copies,), whenever some did.
        progress: Show a bar; None: on a terminal only.
    """
    from tqdm import tqdm

    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for t in tqdm(range(steps), disable=None if progress is None else not progress):
        paid, ended = task.step(act(task.observation))
        if ended.any():
            copies = ended.nonzero()[:, 0].numpy()
            found.append((np.full(len(copies), t), paid[ended].numpy(), copies))
            if reinforce is not None:
                reinforce(paid, ended)
    if not found:
        return Lived(np.zeros(0, int), np.zeros(0), np.zeros(0, int))
    return Lived(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _made(name: str, copies: int) -> Any:
    if not isinstance(copies, int) or copies < 1:
        raise ValueError(f"copies={copies!r}: give the number of copies to run side by side, at least 1")
    try:
        from zolib import gym_copies
    except ImportError as error:
        raise ImportError("zolib.tasks needs the package gymnasium: pip install gymnasium") from error
    return getattr(gym_copies, name)(copies)
