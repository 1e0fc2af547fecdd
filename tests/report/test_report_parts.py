"""The parts of a report: numbers as text, axes, lines and panels, shades, reading lines, terminal output."""

import io
import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_fakes import CONCEPTS, FLAG, PROBES, SITES, auc_measure, example_rows, fake_result, table
from rich.cells import cell_len
from rich.console import Console

from lrh_ray.records import Measure, Scalar
from lrh_ray.report import print_result
from lrh_ray.report.examples import example_groups
from lrh_ray.report.frame import Frame
from lrh_ray.report.heatmap import heat_of
from lrh_ray.report.margins import LABEL_GAP, spread
from lrh_ray.report.numbers import interval, number, quantity, readable
from lrh_ray.report.outline import facts, outline
from lrh_ray.report.ranking import best_per_concept, clears_null, primary_metric, where
from lrh_ray.report.series import chart_of, nice_ticks
from lrh_ray.report.tables import measure_view
from lrh_ray.report.text import MAX_ROWS, print_tables

AUCS = tuple(auc_measure(concept, *site, probe) for concept in CONCEPTS for site in SITES for probe in PROBES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98213, "0.982"),
        (-0.5, "−0.500"),
        (0.0, "0.000"),
        (12.345, "12.35"),
        (148.26, "148.3"),
        (24576.4, "24\u202f576"),
        (3.2e-9, "3.20×10⁻⁹"),
        (-4.5e12, "−4.50×10¹²"),
        (9999, "9999"),
        (-1234567, "−1\u202f234\u202f567"),
        (True, "yes"),
        (None, "—"),
        (math.nan, "not a number"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers_as_text(value: float | None, text: str) -> None:
    assert number(value) == text


def test_quantities_and_intervals() -> None:
    assert quantity("bytes", 226492416) == "216.0 MiB"
    assert quantity("stored_bytes", 12) == "12 B"
    assert quantity("rows", 226492416) == "226\u202f492\u202f416"
    assert interval(0.25, None) == "[0.250, —]"
    assert interval(None, None) == "—"


@given(text=st.text(alphabet=st.characters(), max_size=50), limit=st.integers(2, 60))
def test_readable_text_is_valid_short_and_has_no_controls(text: str, limit: int) -> None:
    for keep in ("start", "end"):
        shown = readable(text, limit, keep=keep)
        assert len(shown) <= limit
        shown.encode("utf-8")
        assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in shown)


@given(low=st.floats(-1e9, 1e9), width=st.floats(0, 1e9))
def test_ticks_enclose_the_range_and_are_few(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert list(ticks) == sorted(set(ticks))
    slack = 1e-6 * max(1.0, abs(low), width)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack


@given(heights=st.lists(st.floats(0, 170), max_size=8).map(sorted))
def test_labels_never_overlap(heights: list[float]) -> None:
    placed = spread(heights)
    assert all(later - earlier >= LABEL_GAP - 1e-9 for earlier, later in itertools.pairwise(placed))


def test_a_chart_has_a_panel_per_concept_a_line_per_probe_and_sites_in_order() -> None:
    shuffled = tuple(sorted(AUCS, key=lambda measure: str(measure.value)[::-1]))
    chart = chart_of(shuffled)
    assert chart is not None
    assert [place.label for place in chart.places] == [site for site, _ in SITES]
    assert set(chart.line_labels) == set(PROBES)
    best = [panel.best.value for panel in chart.panels]
    assert best == sorted(best, reverse=True)
    for panel in chart.panels:
        assert len(panel.lines) == len(PROBES)
        for line in panel.lines:
            assert [index for index, _ in line.points] == list(range(len(SITES)))
            assert {m.keys["probe"] for _, m in line.points} == {line.label}
            assert {m.keys["concept"] for _, m in line.points} == {panel.subject}


def test_sites_of_one_layer_become_lines_of_their_own() -> None:
    measures = [replace(m, keys={**m.keys, "site": f"{stem}.{m.keys['layer']}"}) for m in AUCS[:3] for stem in "ab"]
    chart = chart_of(measures)
    assert chart is not None
    assert set(chart.line_labels) == {f"{probe} {stem}" for probe in PROBES for stem in "ab"}


def test_numbers_of_dimensions_lie_along_a_logarithm_with_a_panel_for_each_site() -> None:
    sizes = (1, 2, 4, 500)
    measures = [
        Measure(
            name="share",
            value=size / 1000 + layer / 10,
            unit="",
            keys={
                "concept": "number",
                "site": f"resid.{layer}",
                "layer": layer,
                "probe": "gaussian",
                "dimensions": size,
            },
        )
        for layer in (0, 5)
        for size in sizes
    ]
    chart = chart_of(measures)
    assert chart is not None
    assert [panel.subject for panel in chart.panels] == ["number at resid.5", "number at resid.0"]
    assert [place.tick for place in chart.places] == ["1", "2", "4", "500"]
    steps = [math.exp(place.layer or 0.0) for place in chart.places]
    assert steps == pytest.approx(sizes)
    assert chart.line_labels == ("gaussian",)
    assert not chart.cut
    lost = chart_of([*measures, replace(measures[0], value=-40.0)])
    assert lost is not None
    assert lost.cut
    assert lost.ticks[0] == -0.25
    frame = Frame(places=lost.places, right=200.0, low=lost.ticks[0], high=lost.ticks[-1])
    assert frame.y(-40.0) == frame.y(-0.25) > frame.y(0.5)
    assert where(measures[0]) == ["resid.0", "gaussian", "1 dimensions"]


def of_noise(noise: float, value: float, **keys: str) -> Measure:
    return Measure(name="slope", value=value, unit="", keys={"noise": noise, **keys}, low=value - 0.1, high=value + 0.1)


def test_settings_of_a_world_are_an_axis_in_order_at_their_logarithm_and_doses_as_they_are() -> None:
    chart = chart_of([of_noise(noise, 1 - noise, reader="own") for noise in (0.3, 0.003, 0.03)])
    assert chart is not None
    assert [place.tick for place in chart.places] == ["0.003", "0.03", "0.3"]
    steps = [place.layer or 0.0 for place in chart.places]
    assert steps[1] - steps[0] == pytest.approx(steps[2] - steps[1])
    doses = [replace(of_noise(1, 0.5), keys={"dose": dose}) for dose in (2.0, -1.0, 0.5)]
    chart = chart_of(doses)
    assert chart is not None
    assert [place.layer for place in chart.places] == [-1.0, 0.5, 2.0]


def test_a_control_is_a_line_of_its_own_and_never_the_best() -> None:
    own = [of_noise(noise, 0.4, reader="trained") for noise in (0.1, 0.3)]
    controls = [of_noise(noise, 0.9, control="perfect") for noise in (0.1, 0.3)]
    chart = chart_of([*controls, *own])
    assert chart is not None
    assert {line.label: line.is_control for line in chart.panels[0].lines} == {"perfect": True, "trained": False}
    assert chart.panels[0].best.keys["reader"] == "trained"
    assert best_per_concept(controls)[0].value == 0.9


def test_without_places_or_values_there_is_no_chart() -> None:
    bare = replace(AUCS[0], keys={"concept": "number"})
    assert chart_of([bare]) is None
    assert chart_of([replace(AUCS[0], value=math.nan, low=None, high=None, controls={})]) is None
    assert chart_of([]) is None


def test_the_primary_metric_and_the_best() -> None:
    def one(name: str, value: float, **keys: str) -> Measure:
        return Measure(name=name, value=value, unit="", keys=keys)

    assert primary_metric([one("loss", 1), one("accuracy", 1), one("auc", 1)]) == "auc"
    assert primary_metric([one("loss", 1), one("accuracy", 1)]) == "accuracy"
    assert primary_metric([one("gain", 1), one("loss", 1)]) == "gain"
    assert primary_metric([]) is None
    losses = [one("log_loss", value, concept="c") for value in (math.nan, 0.4, 0.2, math.inf)]
    assert [measure.value for measure in best_per_concept(losses)] == [0.2]


@pytest.mark.parametrize(
    ("name", "low", "high", "clears"),
    [("auc", 0.6, 0.8, True), ("auc", 0.5, 0.8, False), ("log_loss", 0.3, 0.4, True), ("log_loss", 0.3, 0.6, False)],
)
def test_a_number_clears_its_null_when_its_interval_leaves_the_band(
    name: str, low: float, high: float, clears: bool
) -> None:
    measure = Measure(
        name=name, value=0.35, unit="", keys={}, low=low, high=high, controls={"null_low": 0.45, "null_high": 0.55}
    )
    assert clears_null(measure) is clears
    assert clears_null(replace(measure, controls={})) is None


def test_shades_grow_with_what_is_better() -> None:
    for name, better in (("auc", 0.9), ("log_loss", 0.1)):
        measures = [
            Measure(name=name, value=value, unit="", keys={"site": f"resid.{layer}", "layer": layer})
            for layer, value in enumerate((0.1, 0.5, 0.9))
        ]
        (row,) = heat_of(measures, low=0.0, high=1.0, limit=10).rows
        shades = [cell.shade or 0.0 for cell in row.cells]
        assert shades == sorted(shades, reverse=name == "log_loss")
        assert [cell.text for cell in row.cells if cell.best] == [number(better)]


def test_a_heat_map_takes_the_best_probe_and_marks_what_is_weak() -> None:
    heat = heat_of(AUCS, low=0.4, high=1.0, limit=5)
    assert heat.choices == len(PROBES)
    assert (len(heat.rows), heat.omitted) == (5, len(CONCEPTS) - 5)
    full = heat_of(AUCS, low=0.4, high=1.0, limit=99)
    for row in full.rows:
        for (site, _), cell in zip(SITES, row.cells, strict=True):
            rivals = [m.value for m in AUCS if m.keys["concept"] == row.subject and m.keys["site"] == site]
            assert cell.text == number(max(rivals))
    assert any(cell.weak for cell in full.rows[-1].cells)
    assert not any(cell.weak for cell in full.rows[0].cells)


def test_a_table_of_measures_puts_flags_beside_numbers() -> None:
    view = measure_view([AUCS[0], replace(AUCS[1], flags=("separable", "few rows"))], rows=1)
    labels = [column.label for column in view.columns]
    assert labels[labels.index("AUC") + 1] == "flags"
    assert view.omitted == 1
    assert measure_view([replace(AUCS[0], unit="nats")], rows=1).columns[labels.index("AUC")].label == "AUC (nats)"


def test_reading_lines_keep_the_context_next_to_the_token() -> None:
    rows = [("c", "s", 2.0, "positive", "far " * 100 + "near", "token", "close" + " away" * 100), *example_rows()]
    first, *others = example_groups(
        table("examples", "", "concept site score label before token after", rows), limit=99
    )
    (line,) = first.examples
    assert line.before.endswith("near")
    assert line.before.startswith("…")
    assert line.after.startswith("close")
    assert line.after.endswith("…")
    assert [group.concept for group in others] == ["inside parentheses", "number", "documents networking"]
    assert others[0].examples[0].share == 1.0


def printed_examples(rows: list[tuple[Scalar, ...]], width: int = 80) -> list[str]:
    stream = io.StringIO()
    lines = table("examples", "What they are.", "concept site score label before token after", rows)
    print_tables(fake_result(tables=(lines,)), Console(file=stream, width=width), ["examples"])
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_a_terminal_gives_contexts_what_room_it_has(width: int) -> None:
    blank, name, description, *lines = printed_examples(example_rows(), width)
    assert (blank, name, description) == ("", "examples", "What they are.")
    assert len(lines) == len(example_rows()) + 3
    assert max(map(cell_len, lines)) <= width
    if width >= 60:
        longest = max(len(str(row[5])) for row in example_rows())
        side = (width - len("9.400  positive  ") - longest - 4) // 2
        assert side >= 15
        for line, (concept, _, score, label, before, token, after) in zip(
            [line for line in lines if "·" not in line], example_rows(), strict=True
        ):
            assert line.startswith(f"{number(score)}  {label}")
            assert f"{str(before)[1 - side :]}  {token}" in line  # type: ignore[index]
            assert f"  {str(after)[: side - 1]}".replace("\n", "↵") in line, concept


def test_tokens_lie_below_one_another_also_beside_wide_letters() -> None:
    texts = (("ab", "王", "c"), ("王の" * 40, "king", "王の" * 40), ("a\tb\nc", "t" * 60, ""))
    rows = [("c", "s", 1.5, "", *text) for text in texts]
    lines = printed_examples(rows)[4:]
    starts = [cell_len(line[: line.index(token)]) for line, token in zip(lines, ("王", "king", "tt"), strict=True)]
    assert len(set(starts)) == 1
    assert max(map(cell_len, lines)) <= 80
    assert "a⇥b↵c" in lines[2]
    assert "の  king" in lines[1]


def test_a_terminal_says_how_many_examples_it_leaves_out() -> None:
    rows = [(f"c{i}", "s", 1.0, None, "a", "b", "c") for i in range(MAX_ROWS + 7)]
    assert printed_examples(rows)[-1] == "7 more rows in result.json"
    assert len(printed_examples(rows[:1])) == 5
    assert printed_examples([])[1:] == ["examples", "What they are."]


def test_outlines_and_facts() -> None:
    tree = {
        "model": {"name": "smollm2", "empty": {}},
        "sites": ["a", "b"],
        "parts": [{"kind": "x", "n": 1}],
        "none": None,
    }
    assert outline(tree, limit=1000).splitlines() == [
        "model:",
        "  name: smollm2",
        "  empty: {}",
        "sites: [a, b]",
        "parts:",
        "  - kind: x",
        "    n: 1",
        "none: null",
    ]
    assert [(fact.name, fact.value) for fact in facts(tree, limit=2)] == [("model.name", "smollm2"), ("sites", "a, b")]
    assert outline(tree, limit=20).endswith("…")


def printed(width: int = 100, **changes: object) -> str:
    stream = io.StringIO()
    print_result(fake_result(**changes), Console(file=stream, width=width))
    return stream.getvalue()


def test_the_terminal_shows_the_best_of_each_concept_and_the_store() -> None:
    text = printed()
    for best in best_per_concept(AUCS):
        line = next(line for line in text.splitlines() if line.startswith(str(best.keys["concept"])) and "[" in line)
        assert number(best.value) in line
        assert interval(best.low, best.high) in line
        assert number(best.controls["shuffled"]) in line
    assert "216.0 MiB" in text
    assert all(len(line) <= 60 for line in printed(width=60).splitlines())


def test_the_terminal_obeys_nothing_foreign_and_shows_flags() -> None:
    hostile = "[red]\x1b[2J[/red]"
    measure = replace(AUCS[0], flags=(FLAG,), keys={"concept": hostile, "site": hostile})
    text = printed(title=hostile, summary=(hostile,), measures=(measure,), tables=())
    assert "\x1b" not in text
    assert "[red]␛[2J[/red]" in text
    assert f"† {FLAG}" in text
    assert printed(measures=(), tables=(), summary=()).count("\n") == 2
