"""Verify and repair beside the laboratory: levels, unfinished stores, views, staged blocks, killed repairs."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lrh_ray.errors import PathUnusable, StoreConflict, StoreMissing
from lrh_ray.records import Concept, Document
from lrh_ray.store.commit_records import object_key, record_key, staged_key
from lrh_ray.store.commits import PACK, pending_blocks, read_commits, read_standing
from lrh_ray.store.labelling import add_sidecar
from lrh_ray.store.objects import LocalObjects, open_objects
from lrh_ray.store.plan import IDENTITY, SEALED
from lrh_ray.store.reader import open_store
from lrh_ray.store.repair import repair
from lrh_ray.store.seal import MANIFEST, create_store, seal
from lrh_ray.store.stamps import stamped
from lrh_ray.store.verify import verify
from lrh_ray.store.views import view_dtype
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.memory import MemoryObjects
from lrh_ray.testing.stores import FakeStore, fill, make_store, truth, write_block

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16]


@pytest.fixture
def fake(tmp_path) -> FakeStore:
    return make_store(tmp_path / "store", LENGTHS, rows_per_block=64)


@pytest.fixture
def whole(fake) -> FakeStore:
    fill(fake)
    seal(fake.root, fake.plan, parity={"passed": True})
    return fake


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def extract_again(fake: FakeStore) -> list[int]:
    create_store(
        fake.root, fake.plan, fake.tokens, fake.corpus, config_yaml="name: fake\n", provenance={"made_by": "tests"}
    )
    pending = list(pending_blocks(open_objects(fake.root), fake.plan))
    for block in pending:
        write_block(fake, block, attempt="ee")
    seal(fake.root, fake.plan, parity={"passed": True})
    return pending


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_whole_store_is_whole_at_every_level(whole, level):
    verdict = verify(whole.root, level)
    assert verdict.ok
    assert verdict.sealed
    assert not verdict.litter
    assert not verdict.pending
    assert verdict.num_blocks == whole.plan.num_blocks
    files = [path for path in whole.root.rglob("*") if path.is_file()]
    records = {IDENTITY, SEALED, MANIFEST}
    assert verdict.num_objects == len(files) - len(records)
    assert verdict.num_bytes == sum(p.stat().st_size for p in files if p.name not in {Path(r).name for r in records})
    assert json.loads(json.dumps(verdict.as_plain()))["ok"]


def test_each_level_finds_what_the_one_before_cannot(whole):
    shard = whole.root / object_key("resid.0", 1)
    flip(shard, 100)
    assert [verify(whole.root, level).ok for level in (0, 1, 2)] == [True, True, False]
    flip(shard, 100)
    flip(shard, shard.stat().st_size - 10)
    assert [verify(whole.root, level).ok for level in (0, 1, 2)] == [True, False, False]
    os.truncate(shard, shard.stat().st_size - 1)
    assert [verify(whole.root, level).ok for level in (0, 1, 2)] == [False, False, False]


def test_damage_is_located_to_the_chunk(whole):
    plan, layout = whole.plan, whole.plan.shard("resid.0")
    shard = whole.root / object_key("resid.0", 2)
    flip(shard, layout.chunk_offset(1) + 5)
    flip(shard, layout.chunk_offset(3) + 5)
    found = verify(whole.root, 2).findings
    first = 2 * plan.rows_per_block
    expected = [(first + chunk * plan.chunk_rows, first + (chunk + 1) * plan.chunk_rows - 1) for chunk in (1, 3)]
    assert [finding.rows for finding in found] == expected
    assert {(finding.block, finding.site, finding.kind) for finding in found} == {(2, "resid.0", "bytes")}
    assert all(f"rows {finding.rows[0]}..{finding.rows[1]}" in finding.describe() for finding in found)


def test_an_unfinished_store_has_pending_blocks_and_no_damage(fake):
    write_block(fake, 1)
    verdict = verify(fake.root, 2)
    assert verdict.ok
    assert not verdict.sealed
    assert verdict.pending == (0, 2, 3)
    assert not repair(fake.root).dropped


def test_a_writer_at_work_is_no_damage(fake):
    write_block(fake, 0)
    with BlockWriter(fake.root, fake.plan, block=1, attempt="aa", worker="w") as writer:
        writer.write("resid.0", 0, truth(fake.plan, "resid.0", 1))
        verdict = verify(fake.root, 2)
        assert verdict.ok
        assert {entry.key.split(".")[0] for entry in verdict.litter} == {"staging/00000001"}


def test_a_committed_block_that_is_still_staged_is_checked_where_it_stands(fake, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr("lrh_ray.store.commits.publish", lambda objects, commit: None)
        write_block(fake, 0)
    staged = fake.root / staged_key(0, "a1", "resid.0")
    assert staged.exists()
    assert verify(fake.root, 2).ok
    flip(staged, 7)
    (finding,) = verify(fake.root, 2).findings
    assert (finding.block, finding.site, finding.key) == (0, "resid.0", staged_key(0, "a1", "resid.0"))
    assert repair(fake.root).dropped == (0,)
    assert verify(fake.root, 2).pending == tuple(range(fake.plan.num_blocks))
    assert extract_again(fake) == list(range(fake.plan.num_blocks))
    assert verify(fake.root, 2).ok


def test_the_uint16_view_is_the_same_store(whole):
    root = open_store(whole.root).root
    view_dtype(whole.root, "uint16")
    assert verify(whole.root, 2).ok
    key = whole.root / "data.zarr/acts/resid.0/zarr.json"
    flip(key, 40)
    assert [finding.site for finding in verify(whole.root, 2).findings] == ["resid.0"]
    repaired = repair(whole.root)
    assert not repaired.dropped
    assert extract_again(whole) == []
    assert verify(whole.root, 2).ok
    assert open_store(whole.root).root == root


@pytest.mark.parametrize("view", ["float16", "bfloat17", "uint32"])
def test_no_other_name_passes_for_a_view(whole, view):
    path = whole.root / "data.zarr/acts/resid.0/zarr.json"
    path.write_bytes(path.read_bytes().replace(b'"bfloat16"', f'"{view}"'.encode()))
    assert not verify(whole.root, 2).ok


def test_a_damaged_record_of_an_unsealed_store_drops_its_block(fake):
    fill(fake)
    flip(fake.root / record_key(2), 60)
    (finding,) = verify(fake.root, 0).findings
    assert (finding.block, finding.site, finding.rows) == (2, None, (128, 191))
    assert repair(fake.root).dropped == (2,)
    assert extract_again(fake) == [2]
    assert verify(fake.root, 2).ok


def test_good_lines_of_a_damaged_pack_are_kept(whole):
    before = read_commits(open_objects(whole.root), whole.plan.num_blocks)
    root = open_store(whole.root).root
    flip(whole.root / PACK, len((whole.root / PACK).read_bytes().splitlines()[0]) + 40)
    repaired = repair(whole.root)
    assert repaired.dropped == (1,)
    standing = read_commits(open_objects(whole.root), whole.plan.num_blocks)
    assert standing == {block: commit for block, commit in before.items() if block != 1}
    assert not verify(whole.root, 2).ok  # sealed with a block that it lacks now, until it is computed again
    assert extract_again(whole) == [1]
    assert open_store(whole.root).root == root


def test_statistics_are_written_again_without_computing_anything(whole):
    (whole.root / "data.zarr/stats/resid.0/mean/c/0").unlink()
    flip(whole.root / "data.zarr/norms/final_norm/c/0", 9)
    manifest = (whole.root / MANIFEST).read_bytes()
    repaired = repair(whole.root)
    assert not repaired.needs_extract
    assert repaired.rewritten == ("data.zarr/norms/final_norm/c/0", "data.zarr/stats/resid.0/mean/c/0")
    assert verify(whole.root, 2).ok
    assert (whole.root / MANIFEST).read_bytes() == manifest


def test_identity_is_written_again_from_the_plan(whole):
    before = (whole.root / IDENTITY).read_bytes()
    (whole.root / IDENTITY).unlink()
    (finding,) = verify(whole.root, 0).findings
    assert (finding.part, finding.rows) == ("identity", (0, whole.plan.num_rows - 1))
    assert not repair(whole.root).needs_extract
    assert (whole.root / IDENTITY).read_bytes() == before
    assert verify(whole.root, 2).ok


def test_a_plan_that_is_lost_with_its_identity_cannot_be_repaired(whole):
    (whole.root / IDENTITY).unlink()
    (whole.root / "plan/plan.json").unlink()
    left = repair(whole.root).left
    assert "identity" in {finding.part for finding in left}


class Killed(BaseException):
    """A kill between two steps."""


def test_a_repair_that_is_killed_at_any_step_is_finished_by_the_next(whole, tmp_path, monkeypatch):
    """Blocks, plan, pack and statistics damaged at once; killed after every operation that changes anything."""
    operations, steps = ("put", "delete"), 0
    root = open_store(whole.root).root
    flip(whole.root / object_key("resid.0", 0), 50)
    flip(whole.root / PACK, -30)
    flip(whole.root / "data.zarr/token_id/c/0", 5)
    flip(whole.root / "plan/documents.parquet", 50)
    flip(whole.root / "data.zarr/norms/resid.0/c/0", 5)
    while True:
        fake = replace(whole, root=Path(shutil.copytree(whole.root, tmp_path / str(steps))))
        left = [steps]
        with monkeypatch.context() as context:
            for name in operations:
                context.setattr(LocalObjects, name, _dying(getattr(LocalObjects, name), left))
            try:
                repair(fake.root)
                survived = True
            except Killed:
                survived = False
        again = repair(fake.root)
        assert not again.left
        assert set(extract_again(fake)) <= {0, fake.plan.num_blocks - 1}
        verdict = verify(fake.root, 2)
        assert verdict.ok, (steps, verdict.findings)
        assert open_store(fake.root).root == root
        if survived:
            break
        steps += 1
    assert steps >= 8


def _dying(operation, left):
    def run(*arguments, **options):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return operation(*arguments, **options)

    return run


def test_sidecars_of_labels_are_checked_by_their_own_record(whole):
    objects = open_objects(whole.root)
    concept = Concept(name="late", level="document", description="added later", values=("a", "b"))
    add_sidecar(objects, "late", [concept], [Document(id="doc-1", text="ab", labels={"late": "a"})])
    assert verify(whole.root, 2).ok
    assert not verify(whole.root, 2).litter
    flip(whole.root / "labels/late.parquet", 30)
    (finding,) = verify(whole.root, 2).findings
    assert (finding.part, finding.key) == ("labels", "labels/late.parquet")
    assert repair(whole.root).left == (finding,)


def test_what_is_no_part_of_the_store_is_litter_and_no_damage(whole):
    (whole.root / "notes.txt").write_text("mine")
    (whole.root / "data.zarr/acts/resid.0/c/9").mkdir()
    (whole.root / "data.zarr/acts/resid.0/c/9/0").write_bytes(b"x")
    verdict = verify(whole.root, 2)
    assert verdict.ok
    assert sorted(entry.key for entry in verdict.litter) == ["data.zarr/acts/resid.0/c/9/0", "notes.txt"]


def test_progress_adds_up_to_what_was_checked(whole):
    seen = []
    verdict = verify(whole.root, 2, on_progress=seen.append)
    assert sum(seen) == verdict.num_bytes


def test_many_bytes_are_checked_in_threads(whole, monkeypatch):
    monkeypatch.setattr("lrh_ray.store.block_check.THREADS_FROM_BYTES", 1)
    assert verify(whole.root, 2).ok
    flip(whole.root / object_key("final_norm", 3), 99)
    assert verify(whole.root, 2).damaged_blocks == (3,)


def test_a_run_folder_is_its_store_and_nothing_is_none(whole, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    whole.root.rename(run / "store")
    assert verify(run, 0).location == str(run / "store")
    with pytest.raises(StoreMissing):
        verify(tmp_path / "none")
    (run / "store" / IDENTITY).write_bytes(stamped({"format": "lrh_ray.activations", "version": 1}))
    with pytest.raises(StoreConflict):
        verify(run)


def test_a_bucket_is_checked_and_repaired_like_a_folder(whole, monkeypatch):
    """Nothing but the four operations; a dropped block keeps a record that says so, and no claim survives it."""
    bucket = MemoryObjects(stages=False)
    for path in whole.root.rglob("*"):
        if path.is_file():
            bucket.put(path.relative_to(whole.root).as_posix(), path.read_bytes())
    for module in ("verify", "repair"):
        monkeypatch.setattr(f"lrh_ray.store.{module}.open_objects", lambda location: bucket)
    assert verify("s3://bucket/store", 2).ok
    key = object_key("final_norm", 2)
    found = bucket.get(key)
    data = bytearray(found.data)
    data[20] ^= 1
    bucket.put(key, bytes(data), over=found.tag)
    verdict = verify("s3://bucket/store", 2)
    assert [(one.block, one.site, one.key) for one in verdict.findings] == [(2, "final_norm", key)]
    assert repair("s3://bucket/store", verdict).dropped == (2,)
    assert read_standing(bucket, 2).state == "dropped"
    assert pending_blocks(bucket, whole.plan) == (2,)


def test_a_service_that_does_not_answer_is_no_damage(whole, monkeypatch):
    bucket = MemoryObjects(stages=False)

    def refuse(key, start=0, length=None):
        raise PathUnusable("the object store did not answer")

    monkeypatch.setattr(bucket, "get", refuse)
    monkeypatch.setattr("lrh_ray.store.verify.open_objects", lambda location: bucket)
    with pytest.raises(PathUnusable, match="did not answer"):
        verify("s3://bucket/store", 0)
