"""The noise of a conductor in closed form: how small thermal and shot noise are, and what a pulse costs."""

from __future__ import annotations

import math

from zolib.hardware.stage import number

#: Boltzmann's constant, J/K, and the elementary charge, C: exact in the SI since 2019.
BOLTZMANN, CHARGE = 1.380649e-23, 1.602176634e-19


def thermal_noise(g: float, bandwidth: float, temperature: float = 300.0) -> float:
    """Johnson-Nyquist current noise sqrt(4 k T g B), amperes rms.  g in microsiemens, bandwidth in hertz, T in kelvin.

    >>> round(thermal_noise(25.0, 1e6) * 1e9, 2)  # nanoamperes
    0.64
    """
    g, bandwidth = number("g", g), number("bandwidth", bandwidth)
    return math.sqrt(4 * BOLTZMANN * number("temperature", temperature) * g * 1e-6 * bandwidth)


def shot_noise(current: float, bandwidth: float) -> float:
    """Full shot noise sqrt(2 q I B), amperes rms.  current in amperes, bandwidth in hertz.

    >>> round(shot_noise(5e-6, 1e6) * 1e9, 2)  # nanoamperes
    1.27
    """
    return math.sqrt(2 * CHARGE * number("current", current) * number("bandwidth", bandwidth))


def pulse_energy(voltage: float, current: float, seconds: float) -> float:
    """V I t, joules: what one rectangular write pulse takes from its driver.  Volts, amperes, seconds.

    >>> pulse_energy(2.0, 100e-6, 100e-9)
    2e-11
    """
    return number("voltage", voltage) * number("current", current) * number("seconds", seconds)
