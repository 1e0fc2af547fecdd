"""Every benchmark runs on tiny rows and gives figures that can be true; the page says what the JSON says."""

import importlib
import itertools
import json
import math
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.models.tiny import make_tiny

ROOT = Path(__file__).parents[1]
ROWS, DIM = 4096, 64


@pytest.fixture(scope="module", autouse=True)
def _path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


def module(name):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "out" / "store.json"
    arguments = f"--json {path} --quick --pairs 2 --rows {ROWS} --dim {DIM} --memory {folder}/m --disk {folder}/d"
    module("store").main(arguments.split())
    assert not list((folder / "m").iterdir())
    assert not list((folder / "d").iterdir())
    return json.loads(path.read_text())


def test_every_target_and_peer_is_measured_or_missing_with_a_reason(facts):
    store, peers = module("store"), module("store_peers")
    targets = {record["measure"]: record["target"] for record in facts["measures"] if record["target"] is not None}
    assert targets.keys() == {
        "write",
        "durable",
        "warm shuffled read",
        "warm shuffled read, verified",
        "cold shuffled read",
        "peer read",
    }
    assert (targets["write"], targets["durable"], targets["cold shuffled read"]) == (0.75, 0.70, 0.60)
    assert (targets["warm shuffled read"], targets["warm shuffled read, verified"]) == (0.90, 0.50)
    read = {record["limit"] for record in facts["measures"] if record["measure"] == "peer read"}
    assert read | facts["missing"].keys() == {peer.name for peer in peers.PEERS} | store.NOT_MEASURED.keys()
    assert {"zarr-python, default pipeline", "TensorStore", "safetensors", "Parquet", "HF datasets"} <= read
    assert all(facts["missing"].values())


def test_ratios_follow_from_the_seconds(facts):
    for record in facts["measures"]:
        assert (record["rows"], record["dim"]) == (ROWS, DIM)
        assert len(record["ratios"]) == len(record["seconds"]) == len(record["other_load"]) == 2
        for ratio, (limit, ours) in zip(record["ratios"], record["seconds"], strict=True):
            assert ratio == pytest.approx(limit / ours, rel=0.02)
        low, high = record["interval"]
        assert 0 < low <= record["ratio"] <= high < 1e4
        assert record["met"] in ((None,) if record["target"] is None else (record["ratio"] >= record["target"],))
        assert 0 <= record["noisy_pairs"] <= 2
        assert all(speed > 0 for speed in record["gb_per_second"].values())


def test_the_machine_is_described(facts):
    machine = facts["machine"]
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["packages"]["numpy"] == np.__version__
    (size,) = facts["settings"]["sizes"]
    assert size["bytes"] == ROWS * DIM * 2
    assert size["rows_per_piece"] % size["rows_per_chunk"] == 0


def test_the_page_is_made_from_any_run_and_shows_its_figures(facts):
    text = module("table").page(facts)
    for record in facts["measures"]:
        assert f"{record['ratio']:.2f} [{record['interval'][0]:.2f}, {record['interval'][1]:.2f}]" in text
    assert facts["command"] in text
    for name in facts["missing"]:
        assert name in text


@pytest.fixture(scope="module")
def extraction(tmp_path_factory):
    """Figures of a tiny model: all of its sites, early exit, and the peer in the same process."""
    folder = tmp_path_factory.mktemp("extraction")
    make_tiny("llama", folder / "model")
    path = folder / "out" / "extract.json"
    sizes = "--tokens 128 --document-tokens 32 --batch-tokens 64 --rounds 2 --threads 1 --patience 0 --peers"
    (folder / "disk").mkdir()
    module("extract").main(f"--json {path} --model {folder}/model --disk {folder}/disk {sizes}".split())
    assert not list((folder / "disk").iterdir())
    return json.loads(path.read_text())


def test_extraction_is_measured_at_every_number_of_sites_with_its_limit(extraction):
    ours = [record for record in extraction["measures"] if record["measure"] == "extract"]
    assert [record["sites"] for record in ours] == [1, 4, "all"]
    assert [record["target"] for record in ours] == [0.97, 0.97, 0.93]
    for record in ours:
        assert 0 < record["ratio"] < math.inf
        assert record["e"] == pytest.approx(record["ratio"] / record["r_max"], abs=1e-3)
        assert record["met"] == (min(record["ratio"], record["cpu_ratio"]) >= record["target"])
    assert [record["target"] for record in extraction["measures"] if record["measure"] == "early exit"] == [1.8]
    peers = [record for record in extraction["measures"] if record["measure"] == "peer"]
    ours += [
        record
        for name in ("early exit", "own lengths")
        for record in extraction["measures"]
        if record["measure"] == name
    ]
    assert len(ours) == 5
    for one, peer in zip(ours, peers, strict=True):
        assert peer["sites"] == one["sites"]
        times = [theirs / ours for (_, ours), (_, theirs) in zip(one["seconds"], peer["seconds"], strict=True)]
        assert peer["ours_times_as_fast"] == pytest.approx(np.median(times), abs=1e-3)
        assert [limit for limit, _ in one["seconds"]] == [limit for limit, _ in peer["seconds"]]  # the same rounds
        low, high = peer["times_interval"]
        assert peer["ahead"] == (peer["ours_times_as_fast"] > 1)
        assert peer["apart"] == (not low <= 1 <= high)


def test_the_page_about_extraction_shows_its_figures(extraction):
    text = module("table").extraction_page(extraction)
    for record in extraction["measures"]:
        assert f"{record['ratio']:.2f} [" in text


def test_the_page_about_extraction_in_the_docs_is_the_one_that_the_results_make():
    facts = json.loads((ROOT / "benchmarks" / "results" / "extract.json").read_text())
    assert (ROOT / "docs" / "benchmarks-extraction.md").read_text() == module("table").extraction_page(facts)


def test_the_page_in_the_docs_is_the_one_that_the_results_make():
    facts = json.loads((ROOT / "benchmarks" / "results" / "store.json").read_text())
    assert (ROOT / "docs" / "benchmarks.md").read_text() == module("table").page(facts)


def test_a_side_that_does_the_same_work_twice_is_half_as_fast():
    pairs = module("store_pairs")
    order = []

    def work(name, times):
        order.append(name)
        time.sleep(0.02 * times)

    once, twice = (pairs.Side(name=name, run=partial(work, name, n)) for n, name in ((1, "once"), (2, "twice")))
    record = pairs.measure(once, twice, pairs=7, quiet=pairs.Quiet(patience=0.0), warm_up=False)
    assert record["ratio"] == pytest.approx(0.5, rel=0.2)
    assert order == ["once", "twice"] * 7


def test_what_drifts_evenly_falls_out_of_a_round_there_and_back():
    pairs = module("store_pairs")
    order = []

    def work(name, times):
        time.sleep(0.02 * times * (1 + 0.2 * (len(order) % 6)))  # all slower and slower while a round lasts
        order.append(name)

    once, twice, four = (pairs.Side(name=str(n), run=partial(work, n, n)) for n in (1, 2, 4))
    order += [None] * 3  # beside the untimed runs
    records = pairs.there_and_back(once, [twice, four], rounds=7, quiet=pairs.Quiet(patience=0.0))
    assert order[6:] == [1, 2, 4, 4, 2, 1] * 7
    assert [record["ours"] for record in records] == ["2", "4"]
    for record, ratio in zip(records, (1 / 2, 1 / 4), strict=True):
        assert record["ratio"] == pytest.approx(ratio, rel=0.05)
        assert record["cpu_interval"][0] <= record["cpu_ratio"] <= record["cpu_interval"][1]


def test_waiting_is_bounded_each_time_and_in_all(monkeypatch):
    pairs = module("store_pairs")
    monkeypatch.setattr(pairs, "OTHER_LOAD", -1.0)  # never quiet
    monkeypatch.setattr(pairs, "SAMPLE_SECONDS", 0.01)
    quiet = pairs.Quiet(patience=0.05, budget=0.12)
    waits = [quiet.wait() for _ in range(6)]
    assert all(wait < 0.1 for wait in waits)
    assert sum(waits) < 0.3
    assert waits[-1] < 0.02
    spread = pairs.Quiet(patience=0.05, allowance=0.05, budget=10.0)
    assert sum(spread.wait() for _ in range(5)) < 0.15
    spread.begin()
    assert spread.wait() >= 0.04


def test_other_load_leaves_our_own_work_out():
    pairs = module("store_pairs")
    load, started, own = pairs.OtherLoad(), time.perf_counter(), time.process_time()
    while time.perf_counter() - started < 0.5:
        sum(range(1000))
    ours = (time.process_time() - own) / 0.5
    assert load.cores() <= psutil.cpu_count() - ours + 0.2
    load = pairs.OtherLoad()
    load._start = tuple(start - back for start, back in zip(load._start, (100.0, 250.0, 50.0), strict=True))
    assert load.cores() == pytest.approx(2.0, abs=0.1)  # in 100 s: 250 s of work, 50 s of it ours


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40))
def test_the_interval_holds_the_median_and_its_coverage_is_that_of_coin_tosses(values):
    low, high, coverage = module("store_pairs").median_interval(values)
    assert low <= np.median(values) <= high
    rank = sorted(values).index(low) + 1
    n = len(values)
    if n >= 6:
        assert coverage >= 0.95
    if len(set(values)) == n:
        heads = [sum(toss) for toss in itertools.product((0, 1), repeat=n)] if n <= 10 else None
        expected = 1 - 2 * sum(math.comb(n, k) for k in range(rank)) / 2**n
        assert coverage == pytest.approx(max(0.0, expected), abs=1e-9)
        if heads is not None:
            inside = np.mean([rank <= count <= n - rank for count in heads])
            assert coverage == pytest.approx(max(0.0, inside), abs=1e-9) or n == 1


def test_a_reader_that_drops_or_repeats_a_row_is_found():
    rows, read = module("store_rows"), module("store_read")
    data = rows.Data(ROWS, DIM)
    source = data.source

    def epoch(order):
        return lambda take: take(source[order])

    whole = np.arange(ROWS)
    read.check_epoch(data, "any order", epoch(whole[::-1]))
    for wrong in (whole[:-1], np.append(whole[:-1], 0)):
        with pytest.raises(RuntimeError, match="other rows"):
            read.check_epoch(data, "wrong", epoch(wrong))


def test_a_step_of_an_autoencoder_is_counted_in_products(tmp_path):
    path = tmp_path / "out" / "sae.json"
    sizes = "--d 32 --m 128 --k 4 --batch 64"
    module("sae").main(f"--json {path} {sizes} --pairs 2 --steps 3 --patience 0".split())
    (found,) = json.loads(path.read_text())["sizes"]
    assert found["ours"].keys() == {"TopK", "BatchTopK", "TopK, preselected", "Matryoshka", "ReLU, dense"}
    assert found["ours"]["TopK"]["recall"] == 1
    assert 0.9 < found["ours"]["TopK, preselected"]["recall"] <= 1
    assert all(record["products"] == pytest.approx(1 / record["ratio"], rel=0.01) for record in found["ours"].values())
    assert 0 < found["after"]["fvu"] < 1
    with pytest.raises(SystemExit, match="all of"):
        module("sae").main(f"--json {path} --d 32".split())
