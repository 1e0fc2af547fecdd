"""How often latents fire, as histograms: one panel for each autoencoder, over the logarithm of the share of rows.

The convention, for whoever makes the result: beside a table `density` with the columns `site` and `autoencoder` stand
arrays `SITE/NAME/density` [latents], shares of rows; `SITE/NAME/density_untrained`, if it is there, is the same of the
first weights, and is drawn behind in grey.

    figure = density_figure(table, result.arrays, limit=36)

Latents that never fire have no logarithm; they are a bar of their own at the left.

What can go wrong: a latent that fires in one row stands where the number of rows puts it; corpora of other sizes end
elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.records import Table
from lrh_ray.report.axes import Axis, axis_over, power_label
from lrh_ray.report.numbers import number
from lrh_ray.report.plot import Figure, Key, Plot, Trace, colours_of

TABLE, KEYS = "density", ("site", "autoencoder")
BINS_A_DECADE = 4
NEVER_FROM, NEVER_TO = 10**-0.9, 10**-0.3
"""The bar of those that never fire, in units of the lowest share."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Density:
    """Shares of rows in which each latent of one autoencoder fires, and the same before training."""

    site: str
    name: str
    trained: np.ndarray
    untrained: np.ndarray | None


def densities_of(table: Table, arrays: Mapping[str, np.ndarray]) -> list[Density]:
    """The autoencoders of a table `density` whose arrays are there, in the order of its rows."""
    if table.name != TABLE or table.columns[:2] != KEYS:
        return []
    names = [(str(row[0]), str(row[1])) for row in table.rows]
    return [
        Density(
            site=site,
            name=name,
            trained=arrays[f"{site}/{name}/density"],
            untrained=arrays.get(f"{site}/{name}/density_untrained"),
        )
        for site, name in dict.fromkeys(names)
        if arrays.get(f"{site}/{name}/density", np.empty(0)).size
    ]


def density_figure(table: Table, arrays: Mapping[str, np.ndarray], *, limit: int) -> Figure | None:
    """The histograms; None where there are none."""
    found = densities_of(table, arrays)
    if not found:
        return None
    x = _share_axis([shares for one in found for shares in (one.trained, one.untrained) if shares is not None])
    edges = 10.0 ** np.arange(np.log10(x.low) + 1, 1e-9, 1 / BINS_A_DECADE)
    counts = [_counts(one.trained, edges) for one in found]
    most = max(int(count.max()) for count in counts)
    y = axis_over([0.0, float(most)], "latents", logarithmic=False)
    colours = colours_of([one.name for one in found])
    keys = [Key(kind="area", words="trained")]
    if any(one.untrained is not None for one in found):
        keys.append(Key(kind="null", words="with its first weights"))
    return Figure(
        title="How often latents fire",
        caption=f"Latents by the share of held-out rows they fire in, {BINS_A_DECADE} bars for each power of ten; "
        "those that never fire stand at the left. All panels share their axes; grey bars that are higher are cut.",
        keys=tuple(keys),
        plots=tuple(_plot(one, x, y, edges, colours[one.name]) for one in found[:limit]),
        omitted=max(0, len(found) - limit),
    )


def _share_axis(shares: Sequence[np.ndarray]) -> Axis:
    """From one power of ten below the rarest, where those that never fire stand, to 1."""
    rarest = min((float(own[own > 0].min()) for own in shares if (own > 0).any()), default=0.1)
    first = min(-1, int(np.floor(np.log10(rarest) + 1e-9)))
    ticks = [(10.0**power, power_label(10.0**power)) for power in range(first, 1)]
    never = (10.0**first * (NEVER_FROM * NEVER_TO) ** 0.5, "never")
    return Axis(name="share of rows", low=10.0 ** (first - 1), high=1.0, ticks=(never, *ticks), logarithmic=True)


def _counts(shares: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Those that never fire, then those of each bin; a share of 1 belongs to the last."""
    inside = np.clip(np.searchsorted(edges * (1 - 1e-9), shares[shares > 0], side="right") - 1, 0, len(edges) - 2)
    return np.concatenate([[(shares == 0).sum()], np.bincount(inside, minlength=len(edges) - 1)])


def _plot(one: Density, x: Axis, y: Axis, edges: np.ndarray, colour: int) -> Plot:
    living = one.trained[one.trained > 0]
    usual = f"; half of the others fire in more than {number(float(np.median(living)))}" if len(living) else ""
    behind = () if one.untrained is None else (Trace(style="null", points=_bars(one.untrained, x, edges)),)
    return Plot(
        heading=f"{one.name} at {one.site}",
        note=f"{number(int((one.trained == 0).sum()))} of {number(len(one.trained))} never fire{usual}",
        x=x,
        y=y,
        traces=(*behind, Trace(style="area", colour=colour, points=_bars(one.trained, x, edges))),
    )


def _bars(shares: np.ndarray, x: Axis, edges: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The outline of the bars; a gap stands between those that never fire and the others."""
    never, *counts = _counts(shares, edges).astype(float).tolist()
    lowest = 10 * x.low
    own = [(lowest * NEVER_FROM, never), (lowest * NEVER_TO, never), (lowest, float("nan"))] if never else []
    steps = [(float(edge), count) for i, count in enumerate(counts) for edge in edges[i : i + 2]]
    return (*own, *steps)
