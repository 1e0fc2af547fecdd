"""Features by number, token and text: what was planted is found, and a token that means nothing finds nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_results import SITE, directions, sae_result
from planted_stores import LENGTH, write_store
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.cli import main
from lrh_ray.errors import ConfigError, NotEnoughData, SiteError, UnknownName
from lrh_ray.store.reader import open_store
from lrh_ray.studies.applying_text import apply_to_text
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.feature_study import EXAMPLES, Question, features
from lrh_ray.studies.fitted import open_fitted

WIDTH, PLANTED, MARKED, OTHER = 24, 5, 300, 17
TOPK = ({"kind": "topk", "k": 4},)


def planted(layer, kinds, marks, rng):
    """Three random directions in each row, and one of its own wherever a token is marked."""
    active = rng.random((len(kinds), WIDTH)).argsort(1) < 3
    active[:, PLANTED] = marks > 0
    return active * (1 + rng.random(active.shape)) @ directions(WIDTH) + 0.01 * rng.standard_normal(active.shape)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted") / "store"
    return write_store(folder, 2, planted, width=WIDTH, marked_token=MARKED)


@pytest.fixture(scope="module")
def result(material, root):
    config = config_of(material, "name=found", f"runs={root.parent}", f"store.location={root}")
    return sae_result(config, open_store(root).root, directions(WIDTH), TOPK, sinks="keep")


def measures(found):
    return {int(str(one.keys["concept"]).split()[1]): one for one in found.measures}


def test_the_planted_feature_of_a_token_is_found(result, cluster):
    found = load_result(features(result, Question(token_id=MARKED, num=3)))
    scores = measures(found)
    assert next(iter(scores)) == PLANTED
    best = scores[PLANTED]
    assert best.controls["null_high"] < best.low < best.value < best.high
    assert best.controls["p_adjusted"] < 0.02
    assert best.controls["recall"] > 0.99
    assert best.controls["precision"] > 0.8  # the fourth code of a row may be noise
    assert (found.arrays["scores"] > best.controls["null_high"]).sum() == 1
    (lines,) = [table for table in found.tables if table.name == "examples"]
    own = [dict(zip(lines.columns, row, strict=True)) for row in lines.rows if row[0] == f"latent {PLANTED}"]
    assert {line["label"] for line in own} == {"yes"}
    assert "fires on" in " ".join(found.summary)


def test_a_token_that_means_nothing_finds_nothing(result, cluster):
    found = load_result(features(result, Question(token_id=OTHER)))
    assert all(one.value < one.controls["null_high"] for one in found.measures)
    assert "0 of 24 latents" in found.summary[0]


def test_one_latent_is_shown_where_it_fires_most(result, root, cluster):
    found = load_result(features(result, Question(latent=PLANTED)))
    (density,) = found.measures
    store = open_store(root)
    rows = np.concatenate([store.block_rows(SITE, block) for block in range(store.plan.num_blocks)])
    with torch.no_grad():
        codes = open_fitted(result).reader.codes(torch.from_numpy(rows)).numpy()[:, PLANTED]
    assert density.value == pytest.approx((codes > 0).mean())
    assert density.low < density.value < density.high
    (lines,) = found.tables
    shown = [row[lines.columns.index("score")] for row in lines.rows]
    per_text = [codes[first : first + LENGTH].max() for first in range(0, len(codes), LENGTH)]
    np.testing.assert_allclose(shown, np.sort(per_text)[::-1][:EXAMPLES], rtol=1e-6)
    assert {row[lines.columns.index("token")] for row in lines.rows} == {"ab"}


def test_answers_stand_beside_the_result_and_are_found_again(result, cluster):
    path = features(result, Question(token_id=OTHER))
    assert path.parent == result.parent
    before = (path / "result.json").stat().st_mtime_ns
    assert features(result, Question(token_id=OTHER)) == path
    assert (path / "result.json").stat().st_mtime_ns == before


def test_the_verbs_answer(result, root, tmp_path, cluster, capsys):
    with pytest.raises(SystemExit) as done:
        main(["features", str(result), "--latent", str(PLANTED)])
    assert done.value.code == 0
    told = capsys.readouterr().out
    assert f"latent {PLANTED}" in told
    assert "examples" in told
    with pytest.raises(SystemExit):
        main(["apply", str(result), str(root), "-o", str(tmp_path / "codes"), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["sites"] == [f"{SITE}.topk.index", f"{SITE}.topk.value"]
    with pytest.raises(SystemExit) as done:
        main(["features", str(result), "--latent", "5", "--token", "a"])
    assert done.value.code == 2
    assert "one of --latent" in capsys.readouterr().err


def test_mistakes_are_named(result, root, tmp_path, cluster):
    narrow = write_store(tmp_path / "narrow", 2, lambda *given: planted(*given)[:, :8], width=8)
    for question, how, error, words in (
        (Question(latent=24), {}, UnknownName, "has 24, from 0 on"),
        (Question(token="ab"), {}, ConfigError, "2 tokens"),
        (Question(token_id=999), {}, NotEnoughData, "No row"),
        (Question(name="relu"), {}, UnknownName, "'topk'"),
        (Question(), {"location": narrow}, SiteError, "24 features"),
    ):
        with pytest.raises(error, match=words):
            features(result, question, **how)
    with pytest.raises(ConfigError, match="one of --latent"):
        Question(latent=1, text="a")
    with pytest.raises(ConfigError, match="1 or more"):
        Question(num=0)


@pytest.fixture(scope="module")
def spoken(material, tmp_path_factory, cluster):
    """A result about a store that a real model wrote."""
    runs = tmp_path_factory.mktemp("spoken")
    config = config_of(material, "name=spoken", f"runs={runs}", "model.dtype=float32", f"store.sites=[{SITE}]")
    extract(config, folder=material)
    store = open_store(config.store_location)
    decoder = np.random.default_rng(0).standard_normal((96, store.plan.site(SITE).width))
    return sae_result(config, store.root, decoder, TOPK, sinks="keep"), store


def test_a_text_is_read_as_the_stores_documents_were(spoken):
    result, store = spoken
    sequence = 3
    block, own = _rows_of(store, sequence)
    text = store.texts[sequence]
    found = load_result(features(result, Question(text=text, num=4)))
    (tokens,) = found.tables
    with torch.no_grad():
        codes = open_fitted(result).reader.codes(torch.from_numpy(store.block_rows(SITE, block)[own])).numpy()
    assert {row[0] for row in tokens.rows} == set(range(own.sum()))
    keys = store.keys(block)
    has_text = (keys.char_end > keys.char_start)[own]
    for position, _, latent, code, share, density, _ in tokens.rows:
        assert code == pytest.approx(codes[position, latent], rel=1e-3, abs=1e-4)
        if has_text[position]:  # the catalogue knows no others
            assert 0 < share < 1.001
            assert 0 < density <= 1
    words = {row[0]: row[1] for row in tokens.rows}
    assert "".join(words[place] for place in sorted(words) if len(words[place]) == 1) == text


def test_a_token_is_found_by_its_text(spoken):
    result, store = spoken
    found = load_result(features(result, Question(token="e")))
    texts, read = store.texts, []
    for keys in (store.keys(block) for block in range(store.plan.num_blocks)):
        own = keys.select(keys.token_id == found.resolved["token"])
        read += [texts[doc][a:b] for doc, a, b in zip(own.doc, own.char_start, own.char_end, strict=True)]
    assert set(read) == {"e"}
    assert f"{len(read):,} of" in found.summary[0]


def test_a_file_of_text_is_read_as_the_stores_documents_were(spoken, tmp_path, cluster, capsys):
    """The codes of documents that are extracted anew are those of the store's own rows."""
    result, store = spoken
    texts = [store.texts[sequence] for sequence in range(40)]
    (tmp_path / "some.jsonl").write_text("\n".join(json.dumps({"id": f"t{n}", "text": t}) for n, t in enumerate(texts)))
    for _ in range(2):  # the second time all is there
        with pytest.raises(SystemExit) as done:
            main(["apply", str(result), str(tmp_path / "some.jsonl"), "--json"])
        assert done.value.code == 0
        facts = json.loads(capsys.readouterr().out)
    found, rows = open_store(facts["store"]), open_store(facts["derived_from"])
    assert set(found.texts) == set(texts)
    assert rows.sites == (SITE,)
    sequence = 3
    block, own = _rows_of(store, sequence)
    again, theirs = _rows_of(found, found.texts.index(texts[sequence]))
    with torch.no_grad():
        codes = open_fitted(result).reader.codes(torch.from_numpy(store.block_rows(SITE, block)[own])).numpy()
    index, value = (found.block_rows(site, again)[theirs] for site in found.sites)
    np.testing.assert_allclose(np.take_along_axis(codes, index, 1), value, rtol=1e-3, atol=1e-4)
    with pytest.raises(ConfigError, match=r"No file 'none\.txt'"):
        apply_to_text(result, Path("none.txt"))


def _rows_of(store, sequence):
    block = int(store.plan.block_of_sequence[sequence])
    return block, store.keys(block).doc == sequence
