"""Joules from counts.  The counts are the simulation's; prices are other people's, each with its source and caveat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from zolib.hardware.chip import Counters
from zolib.hardware.stage import number


class Price(NamedTuple):
    """What one count costs."""

    joules: float
    source: str
    caveat: str


#: Prices for what a chip has counted.  A table need not have all of them.
Table = Mapping[str, Price]

_HERMES = "Le Gallo et al., Nat. Electron. 6:680, 2023 (abstract)"
_HOROWITZ = "Horowitz, ISSCC 2014, as quoted in table 3 of PMC8934428"
_FREE = "counted in the price of a multiply-accumulate"


def _hermes(tops_per_watt: float, mode: str) -> dict[str, Price]:
    caveat = f"peak efficiency, {mode}, full use of 256 x 256 arrays; 2 operations are 1 multiply-accumulate"
    included = Price(0.0, _HERMES, _FREE)
    mac = Price(2 / (tops_per_watt * 1e12), _HERMES, caveat)
    return {"macs": mac, "reads": included, "inputs": included, "outputs": included}


#: 14 nm PCM chip, 8-bit inputs and outputs, one-phase reads: 9.76 TOPS/W, 0.205 pJ per multiply-accumulate.
PCM_14NM: Table = _hermes(9.76, "one-phase, low precision")
#: The same in four-phase, high-precision reads: 2.48 TOPS/W, 0.806 pJ.
PCM_14NM_PRECISE: Table = _hermes(2.48, "four-phase, high precision")
#: 45 nm digital float32: 3.7 + 0.9 pJ for the arithmetic of a multiply-accumulate alone.
DIGITAL_45NM: Table = {
    "macs": Price(4.6e-12, _HOROWITZ, "arithmetic only; a 32-bit word from an 8 kB cache is 5 pJ more"),
    "reads": Price(0.0, _HOROWITZ, _FREE),
    "inputs": Price(0.0, _HOROWITZ, "no converters"),
    "outputs": Price(0.0, _HOROWITZ, "no converters"),
}


@dataclass(frozen=True)
class Energy:
    """What the counts cost.

    Attributes:
        parts: Joules for each kind of count that the table has a price for.
        unpriced: Counts that it has none for: they are not in the sum.  (The published efficiencies are of inference;
            for writes and pulses add a price of your own, for example from
            :func:`~zolib.hardware.pulse_energy`.)
    """

    parts: dict[str, float]
    unpriced: dict[str, int]

    @property
    def joules(self) -> float:
        """Sum of the parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        rest = "".join(f", and {count} {name} without a price" for name, count in self.unpriced.items())
        return f"{self.joules:.3g} J{rest}"


def energy(counts: Counters, table: Table) -> Energy:
    """Joules for ``counts`` at the prices of ``table``.

    A price is a :class:`Price`, or a plain number of joules.

    >>> from zolib.hardware import Counters, PCM_14NM, energy
    >>> str(energy(Counters(macs=10**9, writes=5), PCM_14NM))
    '0.000205 J, and 5 writes without a price'
    """
    known = asdict(Counters())
    for name in table:
        if name not in known:
            raise ValueError(f"table: {name!r} is not counted; counted are {', '.join(known)}")
    parts, unpriced = {}, {}
    for name, count in asdict(counts).items():
        if name in table:
            price = table[name]
            parts[name] = count * number(f"table[{name!r}]", price.joules if isinstance(price, Price) else price)
        elif count:
            unpriced[name] = count
    return Energy(parts, unpriced)
