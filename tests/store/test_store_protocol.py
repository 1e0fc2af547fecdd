"""Laws of commit and recovery: one attempt wins, nothing is torn, a rerun finishes what a kill left."""

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrh_ray.errors import StoreCorrupt, StoreFull, StoreIncomplete
from lrh_ray.store.commits import drop_block, pending_blocks, publish, read_commit, recover
from lrh_ray.store.objects import LocalObjects, open_objects
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.store.statistics import median_norm
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.stores import fill, make_store, truth, write_block

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16] * 4


def pending(fake):
    return pending_blocks(open_objects(fake.root), fake.plan)


@settings(max_examples=12, deadline=None)
@given(pieces=st.integers(1, 40), seed=st.integers(0, 10), dtype=st.sampled_from(["bfloat16", "float16", "float32"]))
def test_rows_in_any_pieces_and_order_come_back_bit_for_bit(pieces, seed, dtype, tmp_path_factory):
    fake = make_store(tmp_path_factory.mktemp("s") / "store", LENGTHS, dtype=dtype)
    order = np.random.default_rng(seed)
    for block in range(fake.plan.num_blocks):
        write_block(fake, block, pieces=pieces, order=order)
    store = open_store(fake.root)
    for block in range(fake.plan.num_blocks):
        for site in store.sites:
            assert store.block_rows(site, block).tobytes() == truth(fake.plan, site, block).tobytes()


def test_the_root_digest_does_not_depend_on_attempts_or_order(tmp_path):
    roots = []
    for run in range(2):
        fake = make_store(tmp_path / str(run), LENGTHS)
        blocks = range(fake.plan.num_blocks) if run else reversed(range(fake.plan.num_blocks))
        for block in blocks:
            write_block(fake, block, attempt=f"abc{run}", pieces=1 + run)
        roots.append(seal(fake.root, fake.plan, parity={})["root"])
    assert roots[0] == roots[1]


def test_the_root_digest_depends_on_every_row(tmp_path):
    fake = make_store(tmp_path / "a", LENGTHS)
    fill(fake)
    other = make_store(tmp_path / "b", LENGTHS)
    for block in range(1, other.plan.num_blocks):
        write_block(other, block)
    with BlockWriter(other.root, other.plan, block=0, attempt="a1", worker="test") as writer:
        for site in other.plan.sites:
            rows = truth(other.plan, site.name, 0)
            rows[-1, -1] = 7
            writer.write(site.name, 0, rows)
        writer.commit()
    assert seal(fake.root, fake.plan, parity={})["root"] != seal(other.root, other.plan, parity={})["root"]


def test_the_first_attempt_wins_and_the_loser_leaves_nothing(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    first = BlockWriter(fake.root, fake.plan, block=0, attempt="aa", worker="one")
    second = BlockWriter(fake.root, fake.plan, block=0, attempt="bb", worker="two")
    receipts = []
    for writer in (first, second):
        with writer:
            for site in fake.plan.sites:
                writer.write(site.name, 0, truth(fake.plan, site.name, 0))
            receipts.append(writer.commit())
    assert [receipt.committed for receipt in receipts] == [True, False]
    assert read_commit(open_objects(fake.root), 0).attempt == "aa"
    assert not list((fake.root / "staging").iterdir())


def test_a_zombie_cannot_replace_what_is_published(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    write_block(fake, 0)
    before = open_store(fake.root).block_rows("resid.0", 0).tobytes()
    with BlockWriter(fake.root, fake.plan, block=0, attempt="ff", worker="zombie") as zombie:
        for site in fake.plan.sites:
            zombie.write(site.name, 0, np.zeros_like(truth(fake.plan, site.name, 0)))
        assert not zombie.commit().committed
    assert open_store(fake.root).block_rows("resid.0", 0).tobytes() == before


def test_leaving_without_commit_discards(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)

    def break_half_way():
        with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="t") as writer:
            writer.write("resid.0", 0, truth(fake.plan, "resid.0", 0))
            raise RuntimeError("model broke")

    with pytest.raises(RuntimeError, match="model broke"):
        break_half_way()
    assert not list((fake.root / "staging").iterdir())
    assert 0 in pending(fake)


@pytest.mark.parametrize("mistake", ["twice", "missing", "outside", "nan"])
def test_a_backend_that_breaks_its_promise_cannot_commit(tmp_path, mistake):
    fake = make_store(tmp_path / "store", LENGTHS)
    rows = {site.name: truth(fake.plan, site.name, 0) for site in fake.plan.sites}

    def misbehave():
        with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="t") as writer:
            for site, values in rows.items():
                if mistake == "nan":
                    values[3, 3] = np.nan
                writer.write(site, 0, values[:-1] if mistake == "missing" else values)
            if mistake == "twice":
                writer.write("resid.0", 0, rows["resid.0"][:1])
            if mistake == "outside":
                writer.write("resid.0", len(rows["resid.0"]), rows["resid.0"][:1])
            writer.commit()

    with pytest.raises(StoreCorrupt):
        misbehave()
    assert 0 in pending(fake)


def test_a_committed_block_that_was_not_published_is_finished_by_recovery(tmp_path, monkeypatch):
    fake = make_store(tmp_path / "store", LENGTHS)
    monkeypatch.setattr("lrh_ray.store.commits.publish", lambda objects, commit: None)
    write_block(fake, 0)
    monkeypatch.undo()
    assert list((fake.root / "staging").iterdir())
    recover(open_objects(fake.root), fake.plan.num_blocks)
    assert open_store(fake.root).block_rows("resid.0", 0).tobytes() == truth(fake.plan, "resid.0", 0).tobytes()
    assert not list((fake.root / "staging").iterdir())
    publish(open_objects(fake.root), read_commit(open_objects(fake.root), 0))  # again, to no effect


def test_recovery_leaves_the_staging_of_a_living_writer_alone(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    with BlockWriter(fake.root, fake.plan, block=0, attempt="a1", worker="t") as writer:
        for site in fake.plan.sites:
            writer.write(site.name, 0, truth(fake.plan, site.name, 0))
        assert recover(open_objects(fake.root), fake.plan.num_blocks) == 0
        assert writer.commit().committed
    assert open_store(fake.root).block_rows("resid.0", 0).tobytes() == truth(fake.plan, "resid.0", 0).tobytes()


def test_put_if_absent_has_one_winner_among_racing_processes(tmp_path):
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from lrh_ray.store.objects import LocalObjects
        objects = LocalObjects(Path(sys.argv[1]))
        won = [objects.put(str(key), sys.argv[2].encode()) is not None for key in range(60)]
        print("".join("1" if one else "0" for one in won))
        """
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    won = [[int(bit) for bit in racer.communicate()[0].strip()] for racer in racers]
    assert np.sum(won, axis=0).tolist() == [1] * 60
    assert LocalObjects(tmp_path).put("0", b"late") is None
    assert len(list(tmp_path.iterdir())) == 60


KILLED_WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from lrh_ray.testing.stores import FakeStore, write_block
    from lrh_ray.store.commits import pending_blocks, recover
    from lrh_ray.store.objects import open_objects
    from lrh_ray.store.plan import read_plan
    root = Path(sys.argv[1])
    objects = open_objects(root)
    plan = read_plan(objects)
    recover(objects, plan.num_blocks)
    print("ready", flush=True)
    for block in pending_blocks(objects, plan):
        write_block(FakeStore(root=root, plan=plan, tokens=None, corpus=None), block, attempt=sys.argv[2])
    """
)


def test_writers_killed_at_random_moments_leave_a_store_that_the_next_finishes(tmp_path):
    undisturbed = make_store(tmp_path / "clean", LENGTHS, rows_per_block=48)
    fill(undisturbed)
    expected = seal(undisturbed.root, undisturbed.plan, parity={})["root"]
    fake = make_store(tmp_path / "chaos", LENGTHS, rows_per_block=48)
    rng = np.random.default_rng(0)
    for attempt in range(8):
        arguments = [sys.executable, "-c", KILLED_WRITER, str(fake.root), f"{attempt:x}a"]
        writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        writer.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.06)))
        writer.kill()
        writer.communicate()
    recover(open_objects(fake.root), fake.plan.num_blocks)
    for block in pending(fake):
        write_block(fake, block, attempt="ee")
    assert seal(fake.root, fake.plan, parity={})["root"] == expected
    assert not list((fake.root / "staging").iterdir())


def test_dropping_the_commit_of_a_damaged_block_mends_it(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    fill(fake)
    root = seal(fake.root, fake.plan, parity={})["root"]
    path = fake.root / "data.zarr" / "acts" / "resid.0" / "c" / "2" / "0"
    path.write_bytes(bytes(len(path.read_bytes())))
    drop_block(open_objects(fake.root), 2)
    assert pending(fake) == (2,)
    write_block(fake, 2, attempt="b2")
    assert open_store(fake.root).block_rows("resid.0", 2).tobytes() == truth(fake.plan, "resid.0", 2).tobytes()
    assert seal(fake.root, fake.plan, parity={})["root"] == root


def test_blocks_computed_again_must_have_the_sealed_content(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    fill(fake)
    seal(fake.root, fake.plan, parity={})
    drop_block(open_objects(fake.root), 2)
    with BlockWriter(fake.root, fake.plan, block=2, attempt="b2", worker="t") as writer:
        for site in fake.plan.sites:
            writer.write(site.name, 0, truth(fake.plan, site.name, 2) * 2)
        writer.commit()
    with pytest.raises(StoreCorrupt, match="sealed with root"):
        seal(fake.root, fake.plan, parity={})


def test_a_lost_acknowledgement_of_the_commit_loses_nothing(tmp_path, monkeypatch):
    """The link succeeds and the call fails afterwards (a broken disk), or answers "exists" (a network file system)."""
    fake = make_store(tmp_path / "store", LENGTHS)

    put = LocalObjects.put

    def link_then_fail(self, key, data, *, over=None):
        tag = put(self, key, data, over=over)
        if key.startswith("commits/"):
            raise OSError(5, "Input/output error")
        return tag

    def link_then_deny(self, key, data, *, over=None):
        tag = put(self, key, data, over=over)
        return None if key.startswith("commits/") else tag

    for block, broken in enumerate((link_then_fail, link_then_deny)):
        monkeypatch.setattr(LocalObjects, "put", broken)
        assert write_block(fake, block).committed
        monkeypatch.undo()
        recover(open_objects(fake.root), fake.plan.num_blocks)
        stored = open_store(fake.root).block_rows("resid.0", block)
        assert stored.tobytes() == truth(fake.plan, "resid.0", block).tobytes()


def test_a_sweep_with_an_old_view_publishes_what_committed_meanwhile(tmp_path, monkeypatch):
    fake = make_store(tmp_path / "store", LENGTHS)
    monkeypatch.setattr("lrh_ray.store.commits.publish", lambda objects, commit: None)
    write_block(fake, 0)
    monkeypatch.undo()
    seen = iter([None])  # the sweeper's first look finds no commit
    standing = read_commit
    monkeypatch.setattr(
        "lrh_ray.store.commits.read_commit", lambda objects, block: next(seen, standing(objects, block))
    )
    recover(open_objects(fake.root), fake.plan.num_blocks)
    monkeypatch.undo()
    assert open_store(fake.root).block_rows("resid.0", 0).tobytes() == truth(fake.plan, "resid.0", 0).tobytes()
    assert not list((fake.root / "staging").iterdir())


def test_a_seal_needs_every_block_and_names_the_missing_rows(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    for block in range(1, fake.plan.num_blocks):
        write_block(fake, block)
    with pytest.raises(StoreIncomplete, match=r"block 0 \(rows 0\.\."):
        seal(fake.root, fake.plan, parity={})
    with pytest.raises(StoreIncomplete, match="block 0"):
        open_store(fake.root).rows("resid.0")
    assert len(open_store(fake.root).rows("resid.0", missing="skip")) == fake.plan.valid_rows[1:].sum()


def test_a_full_disk_is_one_typed_error_and_loses_nothing(tmp_path, monkeypatch):
    fake = make_store(tmp_path / "store", LENGTHS)
    write_block(fake, 0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lrh_ray.store.shard_writer.os.pwritev", full)
    with pytest.raises(StoreFull, match="repeat the same command"):
        write_block(fake, 1)
    monkeypatch.undo()
    assert pending(fake) == tuple(range(1, fake.plan.num_blocks))
    fill_rest = [write_block(fake, block) for block in pending(fake)]
    assert all(receipt.committed for receipt in fill_rest)


def test_a_flipped_bit_is_found_when_read_and_located(tmp_path):
    fake = make_store(tmp_path / "store", LENGTHS)
    fill(fake)
    path = fake.root / "data.zarr" / "acts" / "resid.0" / "c" / "2" / "0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match=r"Block 2, site 'resid\.0', chunk 0"):
        open_store(fake.root).block_rows("resid.0", 2)


def test_a_commit_whose_objects_are_gone_is_named(tmp_path, monkeypatch):
    fake = make_store(tmp_path / "store", LENGTHS)
    monkeypatch.setattr("lrh_ray.store.commits.publish", lambda objects, commit: None)
    write_block(fake, 0)
    for path in (fake.root / "staging").iterdir():
        path.unlink()
    monkeypatch.undo()
    with pytest.raises(StoreCorrupt, match="drops the block"):
        seal(fake.root, fake.plan, parity={})
    drop_block(open_objects(fake.root), 0)
    assert 0 in pending(fake)


@given(
    norms=st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=200),
    cuts=st.integers(1, 5),
)
def test_the_median_norm_is_the_lower_median(norms, cuts):
    values = np.array(norms, dtype=np.float32)
    expected = np.sort(values)[(len(values) - 1) // 2]
    assert median_norm(np.array_split(values, cuts)) == expected
