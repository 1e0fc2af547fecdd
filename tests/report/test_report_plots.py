"""Plots of numbers: axes, names beside marks, curves, histograms, what is left against what is spent."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fakes import fake_result, table
from sae_fakes import (
    DIMENSIONS,
    FACTS,
    LAST,
    LATENTS,
    NAMES,
    POINTS,
    SITES,
    SPARSE,
    components,
    curves,
    density,
    density_table,
    measures,
    sae_result,
    training_table,
)

from lrh_ray.records import Measure
from lrh_ray.report.axes import axis_over, counted_axis, power_label
from lrh_ray.report.curve_figures import curve_figure
from lrh_ray.report.curves import curves_of
from lrh_ray.report.densities import density_figure
from lrh_ray.report.margins import beside, end_names
from lrh_ray.report.plot import Plot, Trace, draw_plot
from lrh_ray.report.trade_offs import HIGHEST, Pair, pairs_of, trade_off_figure, unbeaten

POSITIVE = st.floats(1e-9, 1e9)


@given(values=st.lists(POSITIVE, min_size=1, max_size=5), logarithmic=st.booleans() | st.none())
def test_an_axis_holds_its_values_in_order(values, logarithmic):
    axis = axis_over(values, "x", logarithmic=logarithmic)
    assert axis.low <= min(values) * (1 + 1e-6)
    assert axis.high >= max(values) * (1 - 1e-6)
    shares = [axis.share(value) for value in sorted(values)]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    places = [axis.share(tick) for tick, _ in axis.ticks]
    assert places == sorted(set(places))
    assert 1 <= len(places) <= 8
    assert len({text for _, text in axis.ticks}) == len(places)


def test_an_axis_is_a_logarithm_where_values_span_much():
    assert axis_over([1.0, 40.0], "x").logarithmic
    assert not axis_over([1.0, 20.0], "x").logarithmic
    assert not axis_over([0.0, 40.0], "x").logarithmic
    axis = axis_over([1.0, 1000.0], "x")
    assert axis.share(31.6227766) == pytest.approx(0.5)
    assert axis.share(0.0) == 0.0
    assert counted_axis(3, "step").ticks == ((0, "0"), (1, "1"), (2, "2"), (3, "3"))
    assert [power_label(value) for value in (0.02, 500, 1e-5, 2e6)] == ["0.02", "500", "10⁻⁵", "2×10⁶"]


@given(
    points=st.lists(
        st.tuples(st.floats(40, 300), st.floats(20, 150), st.sampled_from(["topk", "batchtopk"])), max_size=6
    )
)
def test_every_mark_has_a_name_near_it(points):
    for (x, y, _), (name_x, name_y, side) in zip(points, beside(points, 400.0), strict=True):
        assert math.hypot(name_x - x, name_y - y) < 25
        assert side in ("start", "middle", "end")


def test_names_of_neighbours_do_not_overlap():
    """Three marks in a row, closer than a name is wide: right, then left of the first would cover the second."""
    found = beside([(100, 50, "topk"), (112, 50, "topk"), (100, 200, "alone")], 300.0)
    assert found[2][2] == "start"
    assert found[0][1] != found[1][1] or found[0][2] != found[1][2]
    close = beside([(100, 50, "topk"), (101, 51, "batchtopk"), (101, 46, "matryoshka")], 300.0)
    assert len({(y, side) for _, y, side in close}) == 3
    assert beside([(290, 50, "batchtopk")], 300.0)[0][2] == "end"


def test_names_at_the_ends_of_lines_keep_the_colour_of_their_line():
    shapes = "".join(end_names(200.0, [(80.0, 1, "low"), (20.0, 0, "high")]))
    assert re.findall(r'class="name (c\d)">(\w+)<', shapes) == [("c0", "high"), ("c1", "low")]


def test_a_line_has_a_gap_where_a_point_is_missing():
    x, y = axis_over([0.0, 4.0], "x"), axis_over([0.0, 1.0], "y")
    points = ((0.0, 0.1), (1.0, 0.2), (2.0, math.nan), (3.0, 0.3), (4.0, 0.4))
    drawing = draw_plot(Plot(heading="h", x=x, y=y, traces=(Trace(style="line", points=points),)), anchor="a")
    assert drawing.count("<path") == 2
    assert "nan" not in drawing


def test_the_array_has_all_points_and_the_table_says_whose_they_are():
    found = curves_of(sae_result())
    assert [(curve.of, curve.fact) for curve in found[: len(FACTS)]] == [((SITES[0], "topk"), fact) for fact in FACTS]
    assert len(found) == len(SITES) * len(NAMES) * len(FACTS)
    first, last = found[0], found[-1]
    np.testing.assert_allclose(last.steps, np.linspace(0, LAST, POINTS))
    np.testing.assert_array_equal(last.values, curves()[-1, :, -1])
    assert len(first.values) == POINTS - 1
    assert 35 not in first.steps  # the point that was never made


@pytest.mark.parametrize("array", [None, np.zeros(3), np.zeros((2, 5, 4)), np.zeros((6, 5, 3))])
def test_without_a_fitting_array_curves_are_those_of_the_table(array):
    result = sae_result(arrays={} if array is None else {"training": array})
    found = curves_of(result)
    assert found[0].steps.tolist() == [0, 50, 100]
    assert found[0].values.tolist() == [row[3] for row in training_table().rows[:3]]


def test_tables_that_hold_no_numbers_have_no_curves():
    words = table("training", "", "site step loss", [("a", "b", "c"), ("a", "d", "e")])
    result = fake_result(tables=(words,), arrays={})
    assert all(len(curve.values) == 0 for curve in curves_of(result))
    assert curve_figure(words, result, limit=9) is None


def test_panels_of_one_number_share_axes_and_a_line_keeps_its_colour():
    figure = curve_figure(training_table(), sae_result(), limit=36)
    assert [plot.heading for plot in figure.plots[:2]] == ["loss at resid.5", "penalty at resid.5"]
    assert len(figure.plots) == len(SITES) * len(FACTS)
    loss, other = figure.plots[0], figure.plots[len(FACTS)]
    assert loss.y == other.y
    assert loss.y.logarithmic
    assert not figure.plots[1].y.logarithmic
    for plot in figure.plots:
        assert {trace.label: trace.colour for trace in plot.traces} == {"topk": 0, "relu": 1, "conca": 2}
    few = curve_figure(training_table(), sae_result(), limit=3)
    assert (len(few.plots), few.omitted) == (3, 5)


def test_bars_count_every_latent_once():
    """Against NumPy's histogram over quarters of a power of ten; the bar at the left is those that never fire."""
    arrays = sae_result().arrays
    figure = density_figure(density_table(), arrays, limit=36)
    assert len(figure.plots) == len(SITES) * len(SPARSE)
    assert figure.plots[0].x == figure.plots[-1].x
    shares = density(SITES[0], "topk")
    *_, area = figure.plots[0].traces
    assert area.style == "area"
    never, bars = area.points[0][1], area.points[3:]
    assert never == (shares == 0).sum()
    expected, _ = np.histogram(shares[shares > 0], bins=10 ** np.arange(-3, 0.01, 0.25) * (1 - 1e-9) + 1e-12)
    assert [count for _, count in bars[::2]] == expected.tolist()
    assert never + sum(count for _, count in bars[::2]) == LATENTS
    assert figure.plots[0].traces[0].style == "null"
    assert str((shares == 0).sum()) in figure.plots[0].note


def test_histograms_need_their_arrays_and_fewer_can_be_asked_for():
    arrays = {f"{SITES[0]}/topk/density": np.zeros(5)}
    figure = density_figure(density_table(), arrays, limit=36)
    assert [plot.heading for plot in figure.plots] == ["topk at resid.5"]
    assert "5 of 5 never fire" in figure.plots[0].note
    assert density_figure(density_table(), {}, limit=36) is None
    assert density_figure(replace(density_table(), name="other"), sae_result().arrays, limit=36) is None
    assert density_figure(density_table(), sae_result().arrays, limit=1).omitted == 3


def one(name, left, spent):
    keys = {"site": "resid.5", "autoencoder": name}
    return Pair(
        name=name,
        site="resid.5",
        left=Measure(name="fvu", value=left, unit="", keys=keys),
        spent=Measure(name="l0", value=spent, unit="", keys=keys),
    )


@given(numbers=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8))
def test_the_unbeaten_are_those_that_no_other_beats(numbers):
    """Oracle: by comparison of all with all; of equal ones one stands for all."""
    pairs = [one(str(i), left, spent) for i, (left, spent) in enumerate(numbers)]
    found = {(pair.left.value, pair.spent.value) for pair in unbeaten(pairs)}
    beaten = {(b, s) for b, s in numbers for c, t in numbers if c <= b and t <= s and (c, t) != (b, s)}
    assert found == set(numbers) - beaten
    assert len(unbeaten(pairs)) == len(found)
    assert unbeaten(pairs[::-1]) is not None
    assert {(p.left.value, p.spent.value) for p in unbeaten(pairs[::-1])} == found


def test_each_site_has_its_crosses_beside_principal_components():
    figure = trade_off_figure(sae_result(), limit=36)
    assert [plot.heading for plot in figure.plots] == list(SITES)
    for plot in figure.plots:
        assert [mark.label for mark in plot.marks] == list(SPARSE)
        reference = plot.traces[0]
        assert reference.style == "reference"
        for number, share in reference.points:
            assert share == pytest.approx(1 - number / DIMENSIONS)
        drawing = draw_plot(plot, anchor="a")
        assert drawing.count('class="whisker') == 2 * len(SPARSE)
        assert drawing.count('class="mark') == len(SPARSE)
    assert "conca" in figure.caption
    assert all(mark.x.name == "l0" and mark.y.name == "fvu" for mark in figure.plots[0].marks)
    assert trade_off_figure(sae_result(), limit=1).omitted == 1


def test_without_the_curve_its_points_are_the_controls():
    figure = trade_off_figure(sae_result(arrays={}), limit=36)
    (trace, *_) = figure.plots[0].traces
    assert trace.points == ((16.0, float(components()[16])), (40.0, float(components()[40])))


def test_what_leaves_more_than_the_mean_is_drawn_at_the_top_and_said():
    high = tuple(replace(m, value=30.0, high=31.0) if m.keys["autoencoder"] == "relu" else m for m in measures())
    figure = trade_off_figure(sae_result(measures=high), limit=36)
    plot = figure.plots[0]
    assert f"{HIGHEST:.3f}" in figure.caption
    assert plot.at(10, 30.0)[1] == plot.at(10, plot.y.high)[1]
    assert "nan" not in draw_plot(plot, anchor="a")


def test_measures_without_a_partner_make_no_figure():
    assert trade_off_figure(fake_result(), limit=36) is None
    alone = tuple(m for m in measures() if m.name == "fvu")
    assert trade_off_figure(sae_result(measures=alone), limit=36) is None
    assert pairs_of([replace(m, value=math.nan) for m in measures()]) == []
