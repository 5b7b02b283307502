"""gymnasium's pole and double pendulum, many at once, each beginning afresh within the step that ends its episode.

The equations of motion are gymnasium's own; only the bookkeeping is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode

LIMIT = 500  # steps of an episode, as CartPole-v1 and Acrobot-v1 have it


class Poles(CartPoleVectorEnv):
    """gymnasium's vector CartPole spends a step, whose action is ignored, on beginning afresh.  This does not."""

    metadata = {**CartPoleVectorEnv.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, copies: int):
        super().__init__(copies, max_episode_steps=LIMIT)

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        seen, reward, terminated, truncated, info = super().step(action)
        ended = terminated | truncated
        if ended.any():
            self.state[:, ended] = self.np_random.uniform(self.low, self.high, (4, int(ended.sum())))
            self.steps[ended] = 0
            self.prev_done[:] = False
            seen = self.state.T.astype(np.float32)
        return seen, reward, terminated, truncated, info


class Acrobots:
    """gymnasium has no vector Acrobot.  Its equations take arrays, (4, copies), as they are."""

    def __init__(self, copies: int):
        self.one, self.copies = AcrobotEnv(), copies

    def reset(self, seed: int) -> tuple[np.ndarray, dict]:
        self.random = np.random.default_rng(seed)
        self.steps = np.zeros(self.copies, dtype=int)
        self.state = self._start(self.copies)
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        one, torque, dt = self.one, np.asarray(self.one.AVAIL_TORQUE)[action], self.one.dt

        def rate(s: np.ndarray) -> np.ndarray:
            return np.stack(one._dsdt(np.concatenate([s, torque[None]]))[:4])

        s = self.state  # (4, copies); one Runge-Kutta step of order four, as gymnasium's
        a = rate(s)
        b = rate(s + dt / 2 * a)
        c = rate(s + dt / 2 * b)
        s = s + dt / 6 * (a + 2 * b + 2 * c + rate(s + dt * c))
        s[:2] = (s[:2] + np.pi) % (2 * np.pi) - np.pi
        limits = np.array([[one.MAX_VEL_1], [one.MAX_VEL_2]])
        s[2:] = np.clip(s[2:], -limits, limits)
        self.steps += 1
        terminated = -np.cos(s[0]) - np.cos(s[0] + s[1]) > 1
        truncated = self.steps >= LIMIT
        ended = terminated | truncated
        if ended.any():
            s[:, ended] = self._start(int(ended.sum()))
            self.steps[ended] = 0
        self.state = s
        return self._seen(), np.where(terminated, 0.0, -1.0), terminated, truncated, {}

    def _start(self, copies: int) -> np.ndarray:
        return self.random.uniform(-0.1, 0.1, (4, copies))

    def _seen(self) -> np.ndarray:
        first, second, *speeds = self.state
        seen = [np.cos(first), np.sin(first), np.cos(second), np.sin(second), *speeds]
        return np.stack(seen, axis=1).astype(np.float32)
