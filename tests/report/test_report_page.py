"""The page: foreign text stays text, nothing is fetched, every number is there, and it is never too large."""

import base64
import hashlib
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import Page
from report_fakes import FLAG, STORE_ROOT, auc_measure, fake_result, table

from lrh_ray.artifacts import result_digest
from lrh_ray.records import Measure, Result, Table
from lrh_ray.report import render_report
from lrh_ray.report.numbers import interval, number
from lrh_ray.report.page import MAX_BYTES

HOSTILE = [
    "<script>alert(1)</script>",
    "</style></svg></title><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "line\nline\r\n\ttab \x00\x07\x1b[31m",
    "\u202egnp.exe \u2066 שלום مرحبا",
    "\ud800 half a pair",
    "x" * 5000,
    "]]> &lt;b&gt; &#x3c;",
]


def bare(**changes: object) -> Result:
    """A result without measures and tables, to which a test adds what it is about."""
    return fake_result(**{"measures": (), "tables": (), **changes})


def small(**changes: object) -> Result:
    """Two concepts at two sites."""
    places = (("resid.0", 0), ("resid.5", 5), ("final_norm", None))
    measures = [auc_measure(concept, *place, "lda") for concept in ("number", "even line number") for place in places]
    return fake_result(**{"measures": tuple(measures), **changes})


@pytest.fixture(scope="module")
def whole() -> tuple[Result, str]:
    result = fake_result()
    return result, render_report([result], title="A report")


def test_every_number_is_on_the_page_with_its_interval_and_controls(whole: tuple[Result, str]) -> None:
    result, html = whole
    cells = set(re.findall(r"<bdi>([^<]*)</bdi>", html))
    exact = {float(value) for value in re.findall(r'data-v="([^"]*)"', html)}
    for measure in result.measures:
        assert number(measure.value) in cells
        assert measure.value in exact
        assert interval(measure.low, measure.high) in cells
        for name, value in measure.controls.items():
            banded = interval(measure.controls.get("null_low"), measure.controls.get("null_high"))
            assert (banded if name.startswith("null") else number(value)) in cells


def test_the_page_tells_what_was_asked_read_and_found(whole: tuple[Result, str]) -> None:
    result, html = whole
    page = Page(html)
    for line in (*result.summary, FLAG, STORE_ROOT, "lrh fit configs/demo.yaml --set seed=0", "max_passes: null"):
        assert line in page.words
    assert page.words.count(result_digest(result)) >= 3  # head, provenance, foot
    assert page.words.count("traceback") == 1
    assert page.count("mark") == 9
    panels = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(panels) == 12
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for panel in panels:
        assert set(panel["aria-labelledby"].split()) <= set(identifiers)


def test_concepts_come_best_first(whole: tuple[Result, str]) -> None:
    titles = re.findall(r'<section class="multiple">\s*<h4><bdi>([^<]*)', whole[1])
    assert titles[0] == "number"
    assert titles[-1] == "even line number"


def test_nothing_is_fetched_and_only_our_script_may_run(whole: tuple[Result, str]) -> None:
    html = whole[1]
    page = Page(html)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert [link for link in links if not (link or "").startswith("#")] == []
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes) or ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_same_results_give_the_same_bytes() -> None:
    assert render_report([small()], title="A report") == render_report([small()], title="A report")


@pytest.mark.parametrize("hostile", HOSTILE, ids=[repr(text[:12]) for text in HOSTILE])
def test_foreign_text_stays_text(hostile: str) -> None:
    """In every place that holds text, the page has the same elements as with harmless text."""

    def page_with(text: str) -> Page:
        keys = {"concept": text, "site": text, "probe": text, text: 1}
        measures = [
            Measure(name=name, value=0.7, unit=text, keys=keys, low=0.6, high=0.8, controls={text: 0.5}, flags=(text,))
            for name in ("auc", text)
        ]
        rows = [(text, text, 1.0, text, text, text, text)]
        result = bare(
            kind=text.encode("utf-8", "replace").decode(),
            title=text,
            summary=(text, text),
            asked={"a": text, "list": [text, text]},
            measures=tuple(measures),
            tables=(
                table("examples", text, "concept site score label before token after", rows),
                table("store", text, "fact value", [(text, text)]),
                Table(name=text, description=text, columns=(text, "b", "c"), rows=((text, 1, None),)),
            ),
            provenance={"command": text},
        )
        return Page(render_report([result], title="Of " + text))

    found, harmless = page_with(hostile), page_with("harmless")
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in harmless.tags]
    assert [set(attributes) for _, attributes in found.tags] == [set(attributes) for _, attributes in harmless.tags]
    assert not re.search("[\x00-\x08\x0b\x0e-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", found.words)


@settings(max_examples=8, deadline=None)
@given(
    values=st.lists(st.floats() | st.sampled_from([0.5, 0.9]), min_size=1, max_size=4),
    places=st.lists(st.sampled_from(["resid.0", "resid.1", "attn_out.1", "final_norm", ""]), min_size=1, max_size=4),
    layered=st.booleans(),
    control=st.sampled_from(["shuffled", "null_low", "null_high", "majority", "ceiling", "other"]),
)
def test_any_measures_render(values: list[float], places: list[str], layered: bool, control: str) -> None:
    measures = []
    for index, value in enumerate(values):
        site = places[index % len(places)]
        layer = {"layer": int(site[-1])} if layered and site[-1:].isdigit() else {}
        keys = {**({"site": site} if site else {}), **layer, "concept": str(index // 2)}
        low, high = sorted([value, 0.3]) if math.isfinite(value) else (None, value)
        measures.append(
            Measure(name="gain", value=value, unit="bits", keys=keys, low=low, high=high, controls={control: value})
        )
    page = Page(render_report([bare(measures=tuple(measures))], title="any"))
    for measure in measures:
        assert number(measure.value) in page.words


EDGES = {
    "nothing at all": bare(summary=(), asked={}, resolved={}, inputs={}, provenance={}),
    "one number without keys": bare(measures=(Measure(name="rank", value=576, unit="dimensions", keys={}),)),
    "one site": bare(measures=(auc_measure("number", "resid.5", 5, "lda"),)),
    "a site without layer": bare(measures=(auc_measure("number", "final_norm", None, "lda"),)),
    "an empty table": bare(tables=(Table(name="strongest", description="", columns=("a", "b", "c"), rows=()),)),
    "a table without columns": bare(tables=(Table(name="odd", description="", columns=(), rows=((), ())),)),
    "ragged rows": bare(tables=(Table(name="store", description="", columns=("a", "b"), rows=(("x",), ("y", 1, 2))),)),
    "examples without tokens": bare(tables=(table("examples", "", "concept score", [("a", 1.0)]),)),
    "examples with tokens alone": bare(tables=(table("examples", "", "token", [("a",)]),)),
    "lower is better": small(measures=tuple(replace(m, name="log_loss") for m in small().measures)),
    "constant values": small(
        measures=tuple(replace(m, value=1.0, low=None, high=None, controls={}) for m in small().measures)
    ),
}


@pytest.mark.parametrize("result", EDGES.values(), ids=EDGES.keys())
def test_unusual_results_render(result: Result) -> None:
    page = Page(render_report([result], title="Edge"))
    assert result.title in page.words
    for measure in result.measures:
        assert number(measure.value) in page.words


def test_several_results_and_none() -> None:
    page = Page(render_report([small(), small(title="Second")], title="Both"))
    assert page.count("article") == 2
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["#r1", "#r2"]
    assert "nothing to report" in Page(render_report([], title="None")).words


def test_a_huge_result_is_cut_and_says_so() -> None:
    """Rows of long text beyond any budget: the page stays below its limit and tells what is missing."""
    rows = ((1, *["言" * 1000] * 6),) * 450
    tables = tuple(Table(name=f"t{index}", description="", columns=tuple("nabcdef"), rows=rows) for index in range(3))
    html = render_report([bare(tables=tables)], title="Huge")
    assert len(html.encode()) <= MAX_BYTES
    shown = len(re.findall("<td[^>]*><bdi>1<", html))
    missing = sum(int(count) for count in re.findall(r"(\d+) more rows in", html))
    assert shown + missing == 450 * 3
    assert shown == 200 * 3
