"""Passages of latents: which rows, which tokens around them, and that nobody chose them."""

import numpy as np
import pytest
from planted_stores import LENGTH, write_store
from studies_material import config_of

from lrh_ray.analyses.sae.chosen import spread_by_density
from lrh_ray.artifacts import load_result
from lrh_ray.report import render_report
from lrh_ray.store.parts import RowKeys
from lrh_ray.store.reader import open_store
from lrh_ray.studies.sae_latents import AFTER, BEFORE, BY_CHANCE, LEAST_ROWS, REACH, STRONGEST, window_of
from lrh_ray.studies.sae_study import autoencoders

WIDTH, DOCUMENTS, SHOWN = 32, 300, 6
DIRECTIONS = np.random.default_rng(9).standard_normal((40, WIDTH))


def planted(layer, kinds, marks, rng):
    """Sparse sums of some directions."""
    del layer, kinds
    active = rng.random((len(marks), len(DIRECTIONS))).argsort(1) < 3
    return (active * (0.5 + rng.random(active.shape))) @ DIRECTIONS + 0.1 * rng.standard_normal((len(marks), WIDTH))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planted") / "store", 1, planted, num_documents=DOCUMENTS, width=WIDTH)


def answered(material, root, runs, *overrides):
    config = config_of(
        material,
        "name=latents",
        f"runs={runs}",
        f"store.location={root}",
        "sae.latents=64",
        "sae.steps=60",
        "sae.batch_rows=256",
        "sae.rate=0.005",
        "sae.groups=10",
        "sae.workers={workers: 1, cpus: 1}",
        "sae.kinds=[{kind: topk, k: 4}, {kind: relu}]",
        *overrides,
    )
    return autoencoders(config)


@pytest.fixture(scope="module")
def result(material, root, cluster, tmp_path_factory):
    return load_result(answered(material, root, tmp_path_factory.mktemp("runs"), f"sae.shown_latents={SHOWN}"))


def table(result):
    return next(table for table in result.tables if table.name == "latents")


def rows_of(result, name):
    return [dict(zip(table(result).columns, row, strict=True)) for row in table(result).rows if row[1] == name]


def held_out_rows(result, root):
    """Number of held-out rows."""
    rows = next(table for table in result.tables if table.name == "rows").rows[0]
    return rows[2]


@pytest.mark.parametrize("name", ["topk", "relu"])
def test_the_latents_are_those_of_the_rule(result, root, name):
    fired = np.rint(result.arrays[f"resid.0/{name}/density"] * held_out_rows(result, root)).astype(np.int64)
    expected = spread_by_density(fired, num=SHOWN, least=LEAST_ROWS).tolist()
    assert list(dict.fromkeys(row["latent"] for row in rows_of(result, name))) == expected
    assert len(expected) == SHOWN


def test_passages_are_the_strongest_and_some_by_chance_of_different_documents(result, root):
    """Oracle: the codes of all held-out rows, from the weights of the result; the groups are those of the study."""
    store = open_store(root)
    arrays = {
        key.removeprefix("resid.0/topk/"): a for key, a in result.arrays.items() if key.startswith("resid.0/topk")
    }
    own = rows_of(result, "topk")
    for latent in dict.fromkeys(row["latent"] for row in own):
        shown = [row for row in own if row["latent"] == latent]
        strongest = [row for row in shown if row["shown as"] == "strongest"]
        assert len(strongest) == STRONGEST
        assert len(shown) <= STRONGEST + BY_CHANCE
        assert len({row["document"] for row in shown}) == len(shown)
        assert max(row["code"] for row in shown) == strongest[0]["code"] == strongest[0]["largest code"]
        for row in shown:
            code = codes_of_document(store, arrays, row["document"])[:, latent]
            assert row["code"] > 0
            assert np.isclose(code, row["code"], rtol=1e-3).any()
            if row in strongest:
                assert row["code"] == pytest.approx(code.max(), rel=1e-3)


def codes_of_document(store, arrays, document):
    rows = store.rows("resid.0", documents=[document], sinks="drop")
    pre = (rows - arrays["decoder_bias"]) @ arrays["encoder"].T + arrays["encoder_bias"]
    kth = np.sort(pre, axis=1)[:, -4][:, None]
    return np.where((pre >= kth) & (pre > 0), pre, 0)


def test_tokens_and_codes_are_those_of_the_text(result):
    starts, spans, codes = (result.arrays[f"latents/{part}"] for part in ("starts", "spans", "codes"))
    rows = [dict(zip(table(result).columns, row, strict=True)) for row in table(result).rows]
    assert len(starts) == len(rows) + 1
    assert starts[-1] == len(spans) == len(codes)
    for number, row in enumerate(rows):
        own = slice(starts[number], starts[number + 1])
        assert len(codes[own]) <= min(LENGTH, BEFORE + AFTER + 1)
        assert [row["text"][a:b] for a, b in spans[own]] == ["ab"] * len(codes[own])
        assert np.isclose(codes[own], row["code"], rtol=1e-4).any()
        assert codes[own].min() >= 0


def test_only_held_out_documents_are_shown(result, root):
    """A tenth of the documents; a passage of any other would be a leak."""
    shown = {row["document"] for name in ("topk", "relu") for row in rows_of(result, name)}
    rng = np.random.default_rng([0, 0])
    ids = np.unique(np.array(open_store(root).document_ids))
    held_out = set(ids[rng.permutation(len(ids))[: round(0.1 * len(ids))]].tolist())
    assert shown <= held_out


def test_the_page_shows_them(result):
    page = render_report([result], title="SAE")
    assert "nobody chose them" in page
    assert page.count('<section class="latent">') == 2 * SHOWN
    assert "as many principal components" in page
    assert "never fire" in page


def test_none_are_kept_when_none_are_asked_for_and_training_is_not_repeated(material, root, cluster, tmp_path):
    first = load_result(answered(material, root, tmp_path, "sae.shown_latents=0", "sae.steps=20"))
    assert all(table.name != "latents" for table in first.tables)
    assert not [name for name in first.arrays if name.startswith("latents/")]
    folders = sorted((tmp_path / "latents" / "training").iterdir())
    second = load_result(answered(material, root, tmp_path, "sae.shown_latents=2", "sae.steps=20"))
    assert sorted((tmp_path / "latents" / "training").iterdir()) == folders
    np.testing.assert_array_equal(first.arrays["training"], second.arrays["training"])
    assert len(rows_of(second, "topk")) > 0


def keys_of(lengths, width):
    """Rows of several sequences, each token `width` characters wide, with every fifth row left out."""
    doc = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    kept = np.arange(len(doc)) % 5 != 2
    columns = {"token_id": doc, "position": position, "doc": doc, "char_start": position * width}
    columns |= {"char_end": position * width + width}
    as_int = {name: column[kept].astype(np.int32) for name, column in columns.items()}
    return RowKeys(index=np.flatnonzero(kept).astype(np.int64) + 100, **as_int)


@pytest.mark.parametrize("width", [1, 40])
def test_a_window_is_around_its_row_and_inside_its_sequence(width):
    keys = keys_of([3, 60, 9], width)
    for row in keys.index.tolist():
        at = np.flatnonzero(keys.index == row)[0]
        inside = np.flatnonzero(window_of(keys, row))
        assert at in inside
        assert (np.diff(inside) == 1).all()
        assert set(keys.doc[inside].tolist()) == {int(keys.doc[at])}
        assert at - BEFORE <= inside[0] <= inside[-1] <= at + AFTER
        reach = keys.char_end[inside[-1]] - keys.char_start[inside[0]]
        assert reach <= 2 * REACH + width
        if width == 1:
            same = np.flatnonzero(keys.doc == keys.doc[at])
            assert inside[0] == max(same[0], at - BEFORE)
            assert inside[-1] == min(same[-1], at + AFTER)
