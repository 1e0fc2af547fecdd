"""An axis of numbers: where a value lies between its ends, in even steps or in powers of ten, and what its ticks say.

    axis = axis_over([16.0, 335.0], "codes a row", logarithmic=True)
    axis.share(16.0)                     # 0.2: of the way from its beginning to its end
    axis.ticks                           # ((10.0, "10"), (20.0, "20"), ... (500.0, "500"))

What can go wrong: a value beyond an end is drawn at that end; a logarithmic axis draws whatever is not above 0 at its
beginning.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrh_ray.report.frame import y_labels
from lrh_ray.report.numbers import number
from lrh_ray.report.series import nice_ticks

WIDE = 30.0
"""Positive values whose largest is so many times the smallest are drawn along a logarithm, where that is left open."""

STEPS = (1, 2, 5)
FEW_DECADES = 2.0
"""Up to so many powers of ten there are ticks between them."""

MAX_DECADES = 6
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """`ticks` are values with what is written there; the first and the last need not be the ends."""

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, from 0 to 1."""
        if not self.logarithmic:
            return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))


def axis_over(values: Sequence[float], name: str, *, logarithmic: bool | None = None) -> Axis:
    """An axis that holds all values, one at least; None: logarithmic where they are positive and span much."""
    low, high = min(values), max(values)
    if logarithmic is None:
        logarithmic = low > 0 and high >= WIDE * low
    return _logarithmic(low, high, name) if logarithmic else _linear(low, high, name)


def counted_axis(last: float, name: str) -> Axis:
    """From 0 to a last number of steps, say, which need not be round; ticks are whole and have no decimals."""
    ticks = [tick for tick in nice_ticks(0.0, max(last, 1.0)) if tick <= max(last, 1.0) and float(tick).is_integer()]
    return Axis(name=name, low=0.0, high=max(last, 1.0), ticks=tuple((tick, number(int(tick))) for tick in ticks))


def _linear(low: float, high: float, name: str) -> Axis:
    ticks = nice_ticks(low, high)
    return Axis(name=name, low=ticks[0], high=ticks[-1], ticks=tuple(zip(ticks, y_labels(ticks), strict=True)))


def _logarithmic(low: float, high: float, name: str) -> Axis:
    """Ends are 1, 2 or 5 times a power of ten."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    round_ones = [factor * 10.0**power for power in range(first, last) for factor in STEPS] + [10.0**last]
    below = max(tick for tick in round_ones if tick <= low * (1 + 1e-9))
    above = min(tick for tick in round_ones if tick >= high * (1 - 1e-9) and tick > below)
    inside = [tick for tick in round_ones if below <= tick <= above]
    if math.log10(above / below) > FEW_DECADES:
        decades = [tick for tick in inside if math.log10(tick) % 1 in (0.0, 1.0)]
        inside = decades[:: -(-len(decades) // MAX_DECADES)]
    return Axis(
        name=name, low=below, high=above, ticks=tuple((tick, power_label(tick)) for tick in inside), logarithmic=True
    )


def power_label(value: float) -> str:
    """A round number as short as can be: `0.02`, `500`, `10⁻⁵`, `2×10⁶`."""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    factor, power = f"{value:.0e}".split("e")
    ten = f"10{str(int(power)).translate(SUPERSCRIPT)}"
    return ten if factor == "1" else f"{factor}×{ten}"
