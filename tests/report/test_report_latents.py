"""Pages of latents: shaded passages, and the page of a result of autoencoders as a whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import Page
from sae_fakes import NAMES, SITES, TEXTS, passages, sae_result

from lrh_ray.records import Table
from lrh_ray.report import render_report
from lrh_ray.report.numbers import readable
from lrh_ray.report.page import MAX_BYTES
from lrh_ray.report.passages import is_passages, latent_groups


def of_one(text, spans, codes):
    """The only passage of the only latent."""
    table = Table(name="latents", description="", columns=("latent", "text"), rows=((7, text),))
    arrays = {
        "latents/starts": np.array([0, len(codes)]),
        "latents/spans": np.array(spans, np.int64).reshape(-1, 2),
        "latents/codes": np.array(codes, np.float32),
    }
    ((latent,),) = (group.latents for group in latent_groups(table, arrays, limit=10))
    return latent.passages[0].pieces


TOKENS = st.lists(st.tuples(st.integers(-2, 14), st.integers(-2, 14), st.floats(-1, 9, width=32)), max_size=6)


@given(text=st.text(st.characters(exclude_characters="\r"), max_size=12), tokens=TOKENS)
def test_every_character_is_shown_once_whatever_the_tokens(text, tokens):
    """Overlapping, empty, reversed and outside spans too: shades may then be odd, the text may not."""
    pieces = of_one(text, [(start, end) for start, end, _ in tokens], [code for *_, code in tokens])
    assert "".join(piece.text for piece in pieces) == readable(text, 400)
    assert all(0 <= piece.shade <= 1 for piece in pieces)


def test_shades_are_codes_over_the_largest():
    pieces = of_one("the old socket", [(0, 3), (3, 7), (7, 14)], [0.0, 2.0, 8.0])
    assert [(piece.text, piece.shade, piece.hint) for piece in pieces] == [
        ("the", 0.0, ""),
        (" old", 0.25, "2.000"),
        (" socket", 1.0, "8.000"),
    ]


def test_tokens_of_one_character_shade_it_by_the_largest():
    (piece,) = of_one("言", [(0, 1), (0, 1), (0, 1)], [1.0, 4.0, 2.0])
    assert (piece.text, piece.shade, piece.hint) == ("言", 1.0, "4.000")


def test_latents_are_grouped_by_whose_they_are_and_the_largest_is_of_the_latent():
    table, arrays = passages()
    groups = latent_groups(table, arrays, limit=999)
    assert [group.subject for group in groups] == [f"{name}, {site}" for site in SITES for name in NAMES]
    for group in groups:
        assert [latent.name for latent in group.latents] == ["3", "170"]
        for latent in group.latents:
            assert "share of rows 0.010" in latent.facts
            assert [len(passage.pieces) > 1 for passage in latent.passages] == [True] * len(TEXTS)
            shades = [max(piece.shade for piece in passage.pieces) for passage in latent.passages]
            assert shades == pytest.approx([1 / 3, 2 / 3, 1], abs=0.01)


def test_fewer_passages_leave_out_latents_of_every_autoencoder_alike():
    table, arrays = passages()
    groups = latent_groups(table, arrays, limit=len(SITES) * len(NAMES) * len(TEXTS))
    assert [(len(group.latents), group.omitted) for group in groups] == [(1, 1)] * len(SITES) * len(NAMES)


def test_without_arrays_the_text_stands_unshaded():
    table, arrays = passages()
    for wrong in ({}, {**arrays, "latents/starts": np.array([0, 1])}):
        for group in latent_groups(table, wrong, limit=999):
            for latent in group.latents:
                assert [len(passage.pieces) for passage in latent.passages] == [1] * len(TEXTS)
    assert not is_passages(Table(name="latents", description="", columns=("latent", "code"), rows=()))


def test_the_page_has_figures_passages_and_every_identifier_once():
    page = Page(render_report([sae_result(), sae_result(title="Second")], title="Autoencoders"))
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    panels = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    of_measures, of_curves, of_densities, of_trades = len(NAMES), 8, 4, 2
    assert len(panels) == 2 * (of_measures + of_curves + of_densities + of_trades)
    for panel in panels:
        assert set(panel["aria-labelledby"].split()) <= set(identifiers)
    for words in ("socket↵is closed", "naïve 言葉", "Chosen by a rule.", "doc-1", "as many principal components"):
        assert words in page.words or words in str(page.tags)
    shaded = [attributes for tag, attributes in page.tags if tag == "i" and "--s:1" in (attributes.get("style") or "")]
    assert len(shaded) >= 2 * 2 * len(SITES) * len(NAMES)


def test_at_one_site_the_trade_off_stands_alone():
    """A figure by layer with one layer would show single dots."""
    result = sae_result()
    own = tuple(m for m in result.measures if m.keys["site"] == SITES[0])
    page = render_report([sae_result(measures=own, tables=(), arrays={})], title="One site")
    assert page.count('role="img"') == 1
    assert "nearer to the lower" in page


def test_foreign_text_in_passages_stays_text():
    hostile = "<script>alert(1)</script>\u202e\ud800\x1b"
    table, arrays = passages()
    rows = tuple((*row[:5], hostile, row[6], hostile, hostile) for row in table.rows)
    evil = Table(name="latents", description=hostile, columns=table.columns, rows=rows)
    calm = Table(
        name="latents",
        description="x",
        columns=table.columns,
        rows=tuple((*row[:8], "x" * len(hostile)) for row in table.rows),
    )
    found, harmless = (
        Page(render_report([sae_result(tables=(one,), arrays=arrays)], title="T")) for one in (evil, calm)
    )
    assert {tag for tag, _ in found.tags} == {tag for tag, _ in harmless.tags}
    assert found.count("script") == harmless.count("script")
    assert "\x1b" not in found.words
    assert "\u202e" not in found.words


def test_a_page_of_many_passages_stays_small_and_says_what_is_missing():
    table, _ = passages()
    rows = tuple(
        ("resid.1", f"kind {i % 9}", i // 9, 0.1, 1.0, "strongest", 1.0, "d", "言" * 200) for i in range(9 * 400)
    )
    page = render_report(
        [sae_result(tables=(Table(name="latents", description="", columns=table.columns, rows=rows),))], title="T"
    )
    assert len(page.encode()) <= MAX_BYTES
    assert "more latents in" in page
