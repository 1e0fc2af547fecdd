"""Two numbers of which less is better, against each other: what is left unexplained against what is spent.

One number of an autoencoder says little: more codes always leave less. So each site gets a panel where every
autoencoder is a cross, its intervals along both axes; the line of those that no other beats in both; and, as what any
of them must be read against, what as many principal components leave.

    figure = trade_off_figure(result, limit=36)

It is drawn where measures `fvu` and `l0` have the same keys. The curve is the array `SITE/principal_components`, what
the first k components leave for k from 0, or else the controls of that name; of `linear_components` likewise.

What can go wrong: kinds whose codes mean nothing have no `l0`; they are named as left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.records import Measure, Result
from lrh_ray.report.axes import Axis, axis_over
from lrh_ray.report.numbers import label, number
from lrh_ray.report.plot import Figure, Key, Mark, Plot, Trace, colours_of
from lrh_ray.report.ranking import subject
from lrh_ray.report.series import drawable

LEFT_OVER, SPENT = "fvu", "l0"
REFERENCES = {
    "principal_components": "as many principal components",
    "linear_components": "a linear map of as many components",
}
"""Controls that have a curve, and what they are."""

HIGHEST = 1.2
"""What leaves more than the mean row would is drawn no higher than here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What one autoencoder leaves, and what it spends."""

    name: str
    site: str
    left: Measure
    spent: Measure


def pairs_of(measures: Sequence[Measure]) -> list[Pair]:
    """Measures of both numbers with the same keys, in order of appearance."""
    spent = {_keys(measure): measure for measure in measures if measure.name == SPENT and drawable(measure.value)}
    return [
        Pair(name=subject(left), site=str(left.keys.get("site", "")), left=left, spent=spent[_keys(left)])
        for left in measures
        if left.name == LEFT_OVER and drawable(left.value) and _keys(left) in spent and spent[_keys(left)].value > 0
    ]


def unbeaten(pairs: Sequence[Pair]) -> list[Pair]:
    """Those than which no other leaves less and spends no more, by what they spend."""
    found: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: (pair.spent.value, pair.left.value)):
        if not found or pair.left.value < found[-1].left.value:
            found.append(pair)
    return found


def trade_off_figure(result: Result, *, limit: int) -> Figure | None:
    """A panel for each site; None where no measures have both numbers."""
    pairs = pairs_of(result.measures)
    if not pairs:
        return None
    colours = colours_of([subject(measure) for measure in result.measures if measure.name == LEFT_OVER])
    sites = list(dict.fromkeys(pair.site for pair in pairs))
    x = axis_over([v for pair in pairs for v in _ends(pair.spent) if v > 0], "codes a row", logarithmic=True)
    highest = min(HIGHEST, max(value for pair in pairs for value in (*_ends(pair.left), *_references(pair).values())))
    y = axis_over([0.0, highest], label(LEFT_OVER), logarithmic=False)
    plots = [
        _plot([p for p in pairs if p.site == site], site, result.arrays, (x, y), colours) for site in sites[:limit]
    ]
    return Figure(
        title="What is left against what is spent",
        caption=" ".join(_caption(result, pairs)),
        keys=(
            Key(kind="cross", words="95 % intervals"),
            Key(kind="frontier", words="not beaten in both numbers"),
            *(Key(kind="reference", words=words) for name, words in REFERENCES.items() if _known(pairs, name)),
        ),
        plots=tuple(plots),
        omitted=len(sites) - len(plots),
    )


def _caption(result: Result, pairs: Sequence[Pair]) -> Iterator[str]:
    yield "Share of the held-out variance that is left unexplained (FVU) against codes of a row; nearer to the lower "
    yield "left corner is better."
    if any(pair.left.value > HIGHEST for pair in pairs):
        yield f"Shares above {number(HIGHEST)} are drawn there."
    shown = {pair.name for pair in pairs}
    without = dict.fromkeys(subject(measure) for measure in result.measures if measure.name == LEFT_OVER)
    if missing := [name for name in without if name not in shown]:
        yield f"Without a number of codes, and so not drawn: {', '.join(missing)}."


def _plot(
    own: Sequence[Pair],
    site: str,
    arrays: Mapping[str, np.ndarray],
    axes: tuple[Axis, Axis],
    colours: Mapping[str, int],
) -> Plot:
    x, y = axes
    frontier = unbeaten(own)
    traces = [
        Trace(style="reference", points=tuple(_components(own, name, arrays.get(f"{site}/{name}"), x)))
        for name in REFERENCES
        if _known(own, name)
    ]
    if len(frontier) > 1:
        points = tuple((pair.spent.value, min(pair.left.value, y.high)) for pair in frontier)
        traces.append(Trace(style="frontier", points=points))
    return Plot(
        heading=site or "all",
        x=x,
        y=y,
        traces=tuple(traces),
        marks=tuple(Mark(label=pair.name, colour=colours[pair.name], x=pair.spent, y=pair.left) for pair in own),
        large=True,
    )


def _references(pair: Pair) -> dict[str, float]:
    return {name: value for name in REFERENCES if drawable(value := pair.left.controls.get(name))}


def _known(pairs: Sequence[Pair], control: str) -> bool:
    return any(control in _references(pair) for pair in pairs)


def _components(own: Sequence[Pair], control: str, left: np.ndarray | None, x: Axis) -> Iterator[tuple[float, float]]:
    """What as many components leave along the axis: of the array at whole numbers, else the controls."""
    if left is None:
        yield from sorted((p.spent.value, _references(p)[control]) for p in own if control in _references(p))
        return
    numbers = np.unique(np.geomspace(max(x.low, 1.0), max(min(x.high, len(left) - 1.0), 1.0), 60).round().astype(int))
    yield from ((float(k), float(left[k])) for k in numbers.tolist() if k < len(left))


def _ends(measure: Measure) -> list[float]:
    return [value for value in (measure.value, measure.low, measure.high) if drawable(value)]


def _keys(measure: Measure) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in measure.keys.items()))
