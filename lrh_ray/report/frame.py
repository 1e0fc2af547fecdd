"""Where places and values lie in a panel, and which ticks its axes carry.

Layers are spread by their number over a linear axis; sites without a layer are categories in slots of their own at
the right, because no distance from the last layer would be true. In a category, lines are drawn side by side.

    frame = Frame(places=chart.places, right=240.0, low=0.4, high=1.0)
    frame.x(3), frame.y(0.75)

Units are those of the drawing (`WIDTH` by `HEIGHT`), which the page scales to the width of its column.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lrh_ray.report.numbers import readable
from lrh_ray.report.series import Place

WIDTH, HEIGHT = 300.0, 172.0
LEFT, TOP, BOTTOM = 34.0, 8.0, 22.0
INSET = 8.0
CATEGORY_WIDTH = 58.0
MIN_PITCH = 17.0
"""Least distance between two tick labels."""

LETTER_WIDTH = 4.8
"""Mean width of a letter of a tick label."""

LAYER = re.compile(r"(?<=[a-z]\.)\d+$")
"""The number of a site's layer, and not the digits of a decimal fraction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The plotting area between LEFT and `right`, `low` at its bottom and `high` at its top."""

    places: tuple[Place, ...]
    right: float
    low: float
    high: float

    @property
    def num_layered(self) -> int:
        """Layered places come first; the rest are categories."""
        return sum(place.layer is not None for place in self.places)

    @property
    def category_width(self) -> float:
        """Width of the slot of one category: all there is without layers, at most half of it beside them."""
        categories = max(1, len(self.places) - self.num_layered)
        room = self.right - LEFT
        return min(CATEGORY_WIDTH, room / 2 / categories) if self.num_layered else room / categories

    @property
    def layers_end(self) -> float:
        return self.right - self.category_width * (len(self.places) - self.num_layered)

    def x(self, index: int, shift: float = 0.0) -> float:
        """Centre of a place; `shift` moves lines apart in categories and is ignored for layers."""
        layer = self.places[index].layer
        if layer is None:
            slot = index - self.num_layered + 0.5
            return (self.layers_end if self.num_layered else LEFT) + self.category_width * slot + shift
        layers = [place.layer for place in self.places if place.layer is not None]
        span = max(layers) - min(layers)
        share = (layer - min(layers)) / span if span else 0.5
        return LEFT + INSET + (self.layers_end - LEFT - 2 * INSET) * share

    def y(self, value: float) -> float:
        """Height of a value; what lies below the axis is drawn at its foot."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - max(value, self.low)) / (self.high - self.low)


def x_ticks(frame: Frame) -> Iterator[tuple[int, str]]:
    """(index of the place, label) of the ticks that fit."""
    yield from _layer_ticks(frame, range(frame.num_layered))
    pitch = frame.category_width
    step = max(1, round(MIN_PITCH / pitch))
    for index in range(frame.num_layered, len(frame.places), step):
        yield index, _short(frame.places[index].label, room=int(step * pitch / LETTER_WIDTH))


def y_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks with the same number of decimals, as many as their step needs."""
    step = ticks[1] - ticks[0]
    decimals = next((count for count in range(7) if abs(round(step, count) - step) < 1e-6 * step), None)
    if decimals is None or max(map(abs, ticks)) >= 1e5:
        return [f"{tick + 0.0:.3g}".replace("-", "−") for tick in ticks]
    return [f"{round(tick, decimals) + 0.0:.{decimals}f}".replace("-", "−") for tick in ticks]


def _layer_ticks(frame: Frame, layered: Sequence[int]) -> Iterator[tuple[int, str]]:
    """As many layers as fit, at a regular step of distinct layers; the last one is always among them."""
    distinct = list({frame.places[index].layer: index for index in layered}.values())
    if not distinct:
        return
    pitch = max(MIN_PITCH, LETTER_WIDTH * max(len(frame.places[index].tick) for index in distinct) + 5)
    final = frame.x(distinct[-1])
    shown = -pitch
    for index in distinct[:-1]:
        x = frame.x(index)
        if x - shown >= pitch and final - x >= pitch:
            shown = x
            yield index, frame.places[index].tick
    yield distinct[-1], frame.places[distinct[-1]].tick


def _short(name: str, *, room: int) -> str:
    """The name of a site, or as much of its end as fits: `resid.15` is `15`, `final_norm` `norm`, `noise 0.5` `0.5`."""
    spoken = name.replace("_", " ")
    layer = LAYER.search(spoken)
    ends = (spoken, spoken if layer is None else layer[0], spoken.rpartition(" ")[2])
    return readable(next((end for end in ends if len(end) <= room), spoken), max(2, room))
