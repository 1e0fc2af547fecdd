"""What stands around a plotting area: rules with their numbers at the left, names where lines end or marks stand.

    yield from rules(frame.right, [(frame.y(tick), "0.5")])
    yield from end_names(frame.right, [(frame.y(0.93), 0, "logistic")])

Names that would overlap are moved apart: those at the ends of lines up or down, those of marks around their mark.

What can go wrong: more names than there is room for run over the foot of the figure; tooltips tell them too.
"""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from lrh_ray.report.drawing import element
from lrh_ray.report.frame import BOTTOM, HEIGHT, LEFT, TOP
from lrh_ray.report.numbers import readable

LABEL_GAP = 11.0
MAX_LABEL = 18
LETTER_WIDTH = 5.7
"""Mean width of a letter of a name."""

AROUND = (
    *((6, 3.4, "start"), (-6, 3.4, "end"), (0, 13, "middle"), (0, -7, "middle")),
    *((dx, dy, side) for dy in (12, -6, 22, -16) for dx, side in ((6, "start"), (-6, "end"))),
)
"""Where the name of a mark may stand, and its side there."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def margin(names: Sequence[str]) -> float:
    """Room at the right for the names of lines."""
    return 10 + LETTER_WIDTH * max((min(len(name), MAX_LABEL) for name in names), default=0)


def rules(right: float, ticks: Sequence[tuple[float, str]]) -> Iterator[Markup]:
    """Horizontal rules at some heights, with their numbers at the left."""
    for y, text in ticks:
        yield element("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid")
        yield element("text", text, x=LEFT - 5, y=y + 3.4, text_anchor="end", class_="tick")


def end_names(right: float, ends: Sequence[tuple[float, int, str]], foot: float = HEIGHT - BOTTOM) -> Iterator[Markup]:
    """Names of lines at their ends (height, colour, name), moved apart where they would overlap."""
    ordered = sorted(ends, key=lambda end: end[0])
    heights = spread([y + 3.4 for y, _, _ in ordered], foot=foot)
    for y, (_, colour, text) in zip(heights, ordered, strict=True):
        yield element("text", readable(text, MAX_LABEL), x=right + 6, y=y, class_=f"name c{colour}")


def spread(heights: Sequence[float], gap: float = LABEL_GAP, foot: float = HEIGHT - BOTTOM) -> list[float]:
    """Ascending heights moved to stay `gap` apart and, while there is room, between the top and `foot`."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else max(height, TOP + 3))
    limit = foot + 4
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    return placed


def beside(marks: Sequence[tuple[float, float, str]], right: float) -> list[tuple[float, float, str]]:
    """Where the names of marks (x, y, name) stand, and the side they are anchored at: the first free place around it.

    A name goes to the right of its mark, else to its left, below or above it, else to a corner; where all are taken, to
    the right.
    """
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y, _ in marks]
    placed = []
    for x, y, name in marks:
        width = LETTER_WIDTH * min(len(name), MAX_LABEL)
        around = [(x + dx, y + dy, side) for dx, dy, side in AROUND]
        boxes = [_box(*place, width) for place in around]
        inside = [box[0] >= LEFT and box[2] <= right for box in boxes]
        free = [
            fits and not any(_overlap(box, other) for other in taken) for fits, box in zip(inside, boxes, strict=True)
        ]
        chosen = free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        placed.append(around[chosen])
    return placed


def _box(x: float, y: float, anchor: str, width: float) -> Box:
    left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * width
    return left, y - 8, left + width, y + 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
