"""Text to a sealed store with a tiny Llama: the same store from any number of workers, after any interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import transformers
from studies_material import config_of

from lrh_ray.errors import (
    BlockFailed,
    CheckpointMissing,
    CorpusError,
    DocumentTooLong,
    ParityError,
    SiteError,
    StoreConflict,
    StoreFull,
)
from lrh_ray.records import Receipt
from lrh_ray.store.commit_records import record_key
from lrh_ray.store.commits import PACK
from lrh_ray.store.reader import open_store
from lrh_ray.store.verify import verify
from lrh_ray.studies.extraction import extract, plan_facts, plan_run
from lrh_ray.studies.reextraction import reextract

TWO = "pool.replicas=2"


@pytest.fixture(scope="module")
def extracted(material, cluster):
    return extract(config_of(material, "name=undisturbed", TWO), folder=material)


def test_the_store_is_sealed_with_every_planned_row_and_a_certificate(extracted):
    assert extracted["sealed"]
    assert extracted["rows"] == extracted["rows_planned"]
    assert extracted["blocks"] == extracted["blocks_planned"] >= 12
    assert extracted["parity"]["passed"]
    assert all(site["p99"] <= 1e-4 for site in extracted["parity"]["sites"])


def test_rows_are_the_hidden_states_of_transformers(material, extracted):
    store = open_store(extracted["store"])
    model = transformers.AutoModelForCausalLM.from_pretrained(material / "model", dtype=torch.float32).eval()
    for sequence in (0, 40, 119):
        start, length = int(store.plan.starts[sequence]), int(store.plan.lengths[sequence])
        block = start // store.plan.rows_per_block
        offset = start - block * store.plan.rows_per_block
        tokens = store.block_tokens(block).token_ids[offset : offset + length]
        with torch.inference_mode():
            states = model(torch.tensor(tokens[None].astype(np.int64)), output_hidden_states=True).hidden_states
        expected = {"resid.0": states[0], "resid.2": states[2], "final_norm": states[-1]}
        for site, rows in expected.items():
            stored = store.block_rows(site, block)[offset : offset + length]
            np.testing.assert_allclose(stored, rows[0].numpy(), rtol=2e-5, atol=2e-5)


def test_repeating_the_command_changes_nothing(material, extracted):
    before = {path: path.stat().st_mtime_ns for path in Path(extracted["store"]).rglob("*") if path.is_file()}
    assert extract(config_of(material, "name=undisturbed", TWO), folder=material)["root"] == extracted["root"]
    assert before == {path: path.stat().st_mtime_ns for path in Path(extracted["store"]).rglob("*") if path.is_file()}


def test_one_worker_or_two_give_one_root(material, extracted):
    alone = extract(config_of(material, "name=alone"), folder=material)
    assert alone["root"] == extracted["root"]


def test_a_run_resumes_from_the_blocks_that_stand(material, extracted, monkeypatch):
    class Stop(Exception):
        pass

    def stop_after_five(receipts: list[Receipt]):
        def advance(self, amount):
            receipts.append(amount)
            if len(receipts) == 5:
                raise Stop

        return advance

    monkeypatch.setattr("lrh_ray.studies.progress.Silent.advance", stop_after_five([]))
    with pytest.raises(Stop):
        extract(config_of(material, "name=resumed", TWO), folder=material)
    monkeypatch.undo()
    store = open_store(material / "runs" / "resumed")
    done = {block: Path(store.location, record_key(block)).read_bytes() for block in store.commits}
    assert len(done) >= 5
    assert not store.sealed
    resumed = extract(config_of(material, "name=resumed", TWO), folder=material)
    assert resumed["root"] == extracted["root"]
    packed = Path(store.location, PACK).read_bytes().splitlines()
    assert set(done.values()) <= set(packed)


RUN = """
import sys
from lrh_ray.cli import main
main(["extract", sys.argv[1], "--set", "name=" + sys.argv[2], "--set", "pool.replicas=2", "--json"])
"""


def test_sigkill_of_driver_and_worker_then_the_same_command(material, extracted):
    """Two real kills here; `make prove-01` does twenty at random moments."""
    arguments = [sys.executable, "-W", "ignore", "-c", RUN, str(material / "run.yaml"), "killed"]
    store = material / "runs" / "killed" / "store"
    for victim in ("driver", "worker"):
        run = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        family = psutil.Process(run.pid)
        deadline = time.monotonic() + 90
        wanted = 1 if victim == "driver" else 4
        while len(list(store.glob("commits/*/*.json"))) < wanted and time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.02)
        if victim == "driver":
            run.kill()
        else:
            workers = [one for one in family.children(recursive=True) if "_Host" in " ".join(one.cmdline())]
            for worker in workers[:1]:
                os.kill(worker.pid, signal.SIGKILL)
        output = run.communicate(timeout=120)[0]
    facts = json.loads(output)
    assert facts["sealed"]
    assert facts["root"] == extracted["root"]


def test_the_plan_tells_bytes_files_and_rows_before_anything_runs(material, extracted):
    planned = plan_run(config_of(material, "name=planned"), folder=material)
    facts = plan_facts(planned)
    assert not (material / "runs" / "planned").exists()
    assert facts["plan"] == extracted["plan"]
    assert facts["tokens"] == extracted["rows"]
    store = Path(extracted["store"])
    shards = [path for path in (store / "data.zarr" / "acts").rglob("0") if path.is_file()]
    assert facts["bytes"] == sum(path.stat().st_size for path in shards)
    assert not list(store.glob("commits/*/*.json"))
    assert facts["files"] == len(shards) + len(list(store.glob("statistics/*/*"))) + len([store / PACK])


def test_a_store_whose_model_changed_does_not_seal(material, cluster, monkeypatch):
    """Rows of another layer must not pass for these: the certificate is made from the stored bytes."""
    config = config_of(material, "name=forged")
    forged = np.random.default_rng(0)
    import lrh_ray.studies.extraction as extraction
    from lrh_ray.store.writer import BlockWriter

    def forge(blocks, task, pool, running, *, on_receipt, on_loss):
        plan = open_store(task.location).plan
        for block in blocks:
            with BlockWriter(task.location, plan, block=block, attempt="f", worker="forger") as writer:
                for site in plan.sites:
                    shape = int(plan.valid_rows[block]), site.width
                    writer.write(site.name, 0, forged.normal(size=shape).astype(np.float32))
                on_receipt(writer.commit())

    monkeypatch.setattr(extraction, "map_blocks", forge)
    with pytest.raises(ParityError, match="not sealed"):
        extract(config, folder=material)
    assert not open_store(config.store_location).sealed


def test_a_store_grows_by_sites_and_by_documents_and_reads_as_one(material, extracted):
    half = extract(config_of(material, "name=half", "text.max_documents=40"), folder=material)
    base = f"store.base={half['store']}"
    later = extract(config_of(material, "name=later", base), folder=material)
    assert half["rows"] + later["rows"] == extracted["rows"]
    joined = open_store([half["store"], later["store"]])
    assert sorted(joined.document_ids) == sorted(open_store(extracted["store"]).document_ids)
    wider = ["name=wider", base, "text.max_documents=40", "store.sites=[resid.0, resid.1]"]
    added = extract(config_of(material, *wider), folder=material)
    assert added["sites"] == ["resid.1"]
    both = open_store([half["store"], added["store"]])
    np.testing.assert_array_equal(both.keys(1).token_id, open_store(half["store"]).keys(1).token_id)
    assert added["parity"]["passed"]
    with pytest.raises(StoreConflict, match="nothing to add"):
        extract(config_of(material, "name=nothing", base, "text.max_documents=40"), folder=material)


def test_blocks_that_cannot_be_computed_are_left_out_by_name_only(material, extracted, monkeypatch):
    import lrh_ray.studies.extraction as extraction

    map_blocks = extraction.map_blocks

    def fail_at_two(blocks, *arguments, **settings):
        map_blocks([block for block in blocks if block != 2], *arguments, **settings)
        raise BlockFailed("block 2 failed 3 times")

    config = config_of(material, "name=gap")
    monkeypatch.setattr(extraction, "map_blocks", fail_at_two)
    with pytest.raises(BlockFailed):
        extract(config, folder=material)
    facts = extract(config, folder=material, allow_missing=True)
    assert facts["sealed"]
    assert facts["blocks"] == facts["blocks_planned"] - 1
    assert open_store(facts["store"]).missing_blocks == (2,)
    monkeypatch.undo()
    assert extract(config, folder=material)["root"] == extracted["root"]  # the gap is filled by the same command


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["model.name=/nowhere/model"], CheckpointMissing, "/nowhere/model"),
        (["store.sites=[resid.9]"], SiteError, "0 .*to 4"),
        (["store.sites=[residual.1]"], SiteError, "resid"),
        (["text.sources=[{kind: jsonl, path: empty.jsonl}]"], CorpusError, "empty"),
        (["text.sources=[{kind: jsonl, path: long.jsonl}]", "text.too_long=error"], DocumentTooLong, "too_long: split"),
        (["store.rows_per_block=16"], DocumentTooLong, "rows_per_block"),
    ],
)
def test_mistakes_are_one_typed_error_before_any_work(material, overrides, error, message):
    (material / "empty.jsonl").write_text("")
    (material / "long.jsonl").write_text(json.dumps({"text": "word " * 400}) + "\n")
    config = config_of(material, "name=mistaken", *overrides)
    with pytest.raises(error, match=message):
        extract(config, folder=material)
    assert not config.folder.exists()


def test_another_plan_in_the_same_folder_is_refused(material, extracted):
    with pytest.raises(StoreConflict, match="written by another plan"):
        extract(config_of(material, "name=undisturbed", TWO, "store.seed=9"), folder=material)


def test_a_disk_too_small_is_found_before_the_model_loads(material, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(StoreFull, match="needs"):
        extract(config_of(material, "name=full"), folder=material)


@pytest.mark.parametrize(("rows", "pool"), [("spans:number", "none"), ("last", "none"), ("all", "mean")])
def test_a_store_of_chosen_rows_holds_those_of_the_whole_store(material, extracted, rows, pool):
    name = f"chosen-{rows.replace(':', '-')}-{pool}"
    config = config_of(material, f"name={name}", f"store.rows={rows}", f"store.pool={pool}", "store.min_blocks=3")
    few = open_store(extract(config, folder=material)["store"])
    whole = open_store(extracted["store"])
    assert few.sealed
    texts: dict[str, dict[str, list[np.ndarray]]] = {}
    for store, of in ((few, "few"), (whole, "whole")):
        for block in sorted(store.commits):
            keys, stored = store.keys(block), store.block_rows("resid.2", block)
            for row in range(len(keys.index)):
                document = texts.setdefault(store.document_ids[keys.doc[row]], {"few": [], "whole": []})
                document[of].append(np.array([keys.position[row], *stored[row]], dtype=np.float64))
    compared = 0
    for document in (one for one in texts.values() if one["few"]):
        ours, all_ = np.stack(document["few"]), np.stack(document["whole"])
        expected = all_[:, 1:].mean(axis=0)[None] if pool == "mean" else all_[ours[:, 0].astype(int), 1:]
        np.testing.assert_allclose(ours[:, 1:], expected, rtol=2e-5, atol=2e-5)
        compared += len(ours)
    assert compared == few.plan.num_valid_rows > 30
    assert verify(few.location, level=2).findings == ()


def test_two_processes_that_share_the_model_write_the_rows_of_one(material, extracted):
    few = ("store.min_blocks=3", "model.dtype=float32")
    shared = config_of(material, "name=shared", "model.tensor_parallel=2", "pool.cpus=2", *few)
    alone = config_of(material, "name=unshared", *few)
    two, one = (open_store(extract(config, folder=material)["store"]) for config in (shared, alone))
    assert two.sealed
    assert two.plan.rows_digest == one.plan.rows_digest
    for block in one.commits:
        for site in one.sites:
            ours, theirs = two.block_rows(site, block), one.block_rows(site, block)
            assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    assert reextract(shared, two.location, sample=1, seed=0).verdict.ok  # `lrh verify --level 3` shares it as well
