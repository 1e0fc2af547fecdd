"""Garbage goes, and nothing else: not what a commit names, not what a living writer holds, not what is not ours."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrh_ray.errors import StoreCorrupt
from lrh_ray.store import garbage
from lrh_ray.store.commit_records import Commit, StoredObject, object_key, record_key, staged_key
from lrh_ray.store.commits import commit_block, read_commit, read_commits, read_standing
from lrh_ray.store.garbage import collect_garbage
from lrh_ray.store.objects import Blob, Entry, LocalObjects, Objects, Tag, open_objects
from lrh_ray.store.reader import open_store
from lrh_ray.store.repair import repair
from lrh_ray.store.seal import seal
from lrh_ray.store.status import store_status
from lrh_ray.store.verify import verify
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.memory import MemoryObjects
from lrh_ray.testing.stores import FakeStore, fill, make_store, truth, write_block

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16]


@pytest.fixture
def fake(tmp_path) -> FakeStore:
    return make_store(tmp_path / "store", LENGTHS, rows_per_block=64)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def litter(fake: FakeStore) -> dict[str, str]:
    """One of each kind; kind by key."""
    made = {
        staged_key(2, "dead", "resid.0"): "staged",
        staged_key(0, "beef", "statistics"): "staged",
        "staging/probe-0123": "probe",
        object_key("final_norm", 3): "unnamed",
        object_key("statistics", 3): "unnamed",
        "data.zarr/token_id/.zarr.json.0123456789abcdef0123456789abcdef.tmp": "temporary",
        ".manifest.json.0123456789abcdef0123456789abcdef.tmp": "temporary",
    }
    for key in made:
        path = fake.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"litter")
        os.utime(path, (time.time() - 7200,) * 2)
    return made


def test_every_kind_of_litter_is_found_then_removed_and_nothing_else(fake):
    write_block(fake, 0)
    write_block(fake, 1)
    before = contents(fake.root)
    made = litter(fake)
    (fake.root / "notes.txt").write_text("mine")
    looked = collect_garbage(fake.root, delete=False)
    assert {item.key: item.kind for item in looked.items} == made
    assert looked.num_bytes == 6 * len(made)
    assert set(contents(fake.root)) == {*before, *made, "notes.txt"}
    removed = collect_garbage(fake.root, delete=True)
    assert {item.key: item.kind for item in removed.items} == made
    assert contents(fake.root) == {**before, "notes.txt": b"mine"}
    assert not collect_garbage(fake.root, delete=True).items
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    assert verify(fake.root, 2).ok


def test_a_sealed_store_has_no_garbage(fake):
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    before = contents(fake.root)
    assert not collect_garbage(fake.root, delete=True, grace_seconds=0).items
    assert contents(fake.root) == before
    assert not verify(fake.root, 0).litter


def test_a_young_temporary_file_is_left_to_its_writer(fake):
    path = fake.root / ".manifest.json.0123456789abcdef0123456789abcdef.tmp"
    path.write_bytes(b"half")
    assert not collect_garbage(fake.root, delete=True).items
    assert path.exists()
    assert collect_garbage(fake.root, delete=True, grace_seconds=0).items


def test_what_a_living_writer_holds_is_left_alone(fake):
    with BlockWriter(fake.root, fake.plan, block=1, attempt="aa", worker="w") as writer:
        for site in fake.plan.sites:
            writer.write(site.name, 0, truth(fake.plan, site.name, 1))
        assert not collect_garbage(fake.root, delete=False).items
        assert not collect_garbage(fake.root, delete=True, grace_seconds=0).items
        assert store_status(fake.root).attempts == ("1.aa",)
        assert writer.commit().committed
    assert open_store(fake.root).block_rows("resid.0", 1).tobytes() == truth(fake.plan, "resid.0", 1).tobytes()


DYING = """
    import os, signal, sys
    from pathlib import Path
    from lrh_ray.store.plan import read_plan
    from lrh_ray.store.objects import open_objects
    from lrh_ray.store.writer import BlockWriter
    plan = read_plan(open_objects(Path(sys.argv[1])))
    writer = BlockWriter(Path(sys.argv[1]), plan, block=2, attempt="dead", worker="w")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_goes(fake):
    subprocess.run([sys.executable, "-c", textwrap.dedent(DYING), str(fake.root)], check=False)
    found = collect_garbage(fake.root, delete=True)
    assert {item.key for item in found.items} == {staged_key(2, "dead", site.name) for site in fake.plan.sites}
    assert not list((fake.root / "staging").iterdir())


def test_staged_files_of_a_committed_attempt_are_published_not_removed(fake, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr("lrh_ray.store.commits.publish", lambda objects, commit: None)
        write_block(fake, 0)
    assert not collect_garbage(fake.root, delete=False).items
    assert list((fake.root / "staging").iterdir())
    assert not collect_garbage(fake.root, delete=True).items
    assert not list((fake.root / "staging").iterdir())
    assert open_store(fake.root).block_rows("resid.0", 0).tobytes() == truth(fake.plan, "resid.0", 0).tobytes()


def test_damaged_records_stop_the_collection(fake):
    fill(fake)
    made = fake.root / staged_key(2, "dead", "resid.0")
    made.write_bytes(b"x")
    (fake.root / record_key(1)).write_bytes(b"{}")
    with pytest.raises(StoreCorrupt):
        collect_garbage(fake.root, delete=True)
    assert made.exists()
    repair(fake.root)
    assert collect_garbage(fake.root, delete=True).items


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(committed=st.sets(st.integers(0, 3)), data=st.data())
def test_no_committed_byte_ever_goes(tmp_path_factory, committed, data):
    fake = make_store(tmp_path_factory.mktemp("s") / "store", LENGTHS, rows_per_block=64)
    for block in committed:
        write_block(fake, block)
    before = contents(fake.root)
    places = [object_key(name, block) for name in ("resid.0", "final_norm", "statistics") for block in range(4)]
    places += [staged_key(block, "dead", "resid.0") for block in range(4)]
    for key in data.draw(st.lists(st.sampled_from(places), unique=True)):
        path = fake.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if key not in before:
            path.write_bytes(b"litter")
    collect_garbage(fake.root, delete=True)
    assert contents(fake.root) == before


class Bucket:
    """A bucket in memory, filled from a folder; `before` is called before each operation."""

    stages = False
    location = "memory"

    def __init__(self, local: Path) -> None:
        self.inside = MemoryObjects(stages=False)
        self.before: Callable[[str, str], None] = lambda operation, key: None
        for key, data in contents(local).items():
            self.inside.put(key, data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        self.before("get", key)
        return self.inside.get(key, start, length)

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        self.before("put", key)
        return self.inside.put(key, data, over=over)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self.inside.list(prefix)

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        self.before("delete", key)
        return self.inside.delete(key, unless=unless)

    def local_path(self, key: str) -> Path | None:
        return self.inside.local_path(key)


@pytest.fixture
def bucket(fake, monkeypatch) -> Bucket:
    found = Bucket(fake.root)
    assert isinstance(found, Objects)
    monkeypatch.setattr(garbage, "open_objects", lambda location: found)
    return found


def upload(objects: Objects, fake: FakeStore, folder: Path, block: int, attempt: str) -> bool:
    """One attempt at a block of a bucket, its objects made of its name."""
    names = [*(site.name for site in fake.plan.sites), "statistics"]
    files = {}
    for name in names:
        files[name] = folder / f"{attempt}.{name}"
        files[name].write_bytes(f"{attempt} {name}".encode())
    commit = Commit(
        block=block,
        attempt=attempt,
        valid_rows=int(fake.plan.valid_rows[block]),
        objects={name: StoredObject(num_bytes=path.stat().st_size, digest="d") for name, path in files.items()},
        nonfinite={},
        overflow={},
        seconds=1.0,
        worker="w",
        software={},
    )
    return commit_block(objects, commit, files)


def test_in_a_bucket_unnamed_objects_go_and_their_claimant_cannot_commit(fake, bucket, tmp_path):
    assert upload(bucket, fake, tmp_path, 0, "aa")
    committed = dict(bucket.inside.cells)

    class Stop(BaseException):
        pass

    def stop(operation, key):
        if operation == "put" and key == object_key("statistics", 1):
            raise Stop

    bucket.before = stop
    with pytest.raises(Stop):
        upload(bucket, fake, tmp_path, 1, "bb")
    bucket.before = lambda operation, key: None
    uploaded = {object_key(site.name, 1) for site in fake.plan.sites}
    assert {item.key for item in collect_garbage("x", delete=False).items} == uploaded
    assert {item.key for item in collect_garbage("x", delete=True).items} == uploaded
    assert read_standing(bucket, 1).state == "dropped"
    assert not collect_garbage("x", delete=True).items
    assert committed.items() <= bucket.inside.cells.items()
    assert upload(bucket, fake, tmp_path, 1, "cc")
    assert set(read_commits(bucket, fake.plan.num_blocks)) == {0, 1}


def test_in_a_bucket_no_commit_ever_misses_an_object_whenever_a_new_attempt_comes(fake, tmp_path, monkeypatch):
    """A new attempt runs, whole, before the n-th operation of the collection, for every n."""
    committed, moment = [], 0
    while not committed or committed[-1] is not None:
        moment += 1
        bucket = Bucket(fake.root)
        monkeypatch.setattr(garbage, "open_objects", lambda location, found=bucket: found)
        for site in fake.plan.sites:
            bucket.put(object_key(site.name, 1), b"left behind")
        happened = _at(bucket, moment, lambda here=bucket: upload(here, fake, tmp_path, 1, "bb"))
        collect_garbage("x", delete=True)
        bucket.before = lambda operation, key: None
        commit = read_commit(bucket, 1)
        for name, stored in {} if commit is None else commit.objects.items():
            found = bucket.get(object_key(name, 1))
            assert found is not None, (moment, name)
            assert found.num_bytes == stored.num_bytes, (moment, name)
        assert commit is not None or upload(bucket, fake, tmp_path, 1, "cc")
        committed.append(happened or None)
    assert moment > 20


def _at(bucket: Bucket, moment: int, act: Callable[[], object]) -> list[int]:
    """Run `act` before the bucket's n-th operation; the list fills when it did."""
    left, happened = [moment], []

    def meanwhile(operation, key):
        left[0] -= 1
        if left[0] == 0:
            happened.append(moment)
            bucket.before = lambda operation, key: None
            act()

    bucket.before = meanwhile
    return happened


def test_status_is_told_by_the_store_alone(fake):
    empty = store_status(fake.root)
    assert (empty.blocks, empty.rows, empty.rows_per_second, empty.sealed, empty.root) == (0, 0, None, False, None)
    assert empty.missing_rows == ((0, fake.plan.num_rows - 1),)
    write_block(fake, 1)
    (fake.root / staged_key(3, "dead", "resid.0")).write_bytes(b"12345")
    some = store_status(fake.root)
    assert some.blocks == 1
    assert some.rows == int(fake.plan.valid_rows[1])
    assert some.missing_rows == ((0, 63), (128, fake.plan.num_rows - 1))
    assert some.attempts == ("3.dead",)
    assert some.litter_bytes == 5
    assert some.workers == ("test",)
    assert "1 of 4 blocks" in some.line()
    collect_garbage(fake.root, delete=True)
    fill(fake)
    seal(fake.root, fake.plan, parity={"passed": True})
    done = store_status(fake.root)
    assert done.sealed
    assert done.root == open_store(fake.root).root
    assert not done.missing_rows
    assert not done.litter_bytes
    assert done.as_plain()["parity"] == {"passed": True}
    assert open_objects(fake.root).location == done.location
    assert LocalObjects.stages
