"""The corruption laboratory: any one damage of any object is found at level 2, located, and repaired.

Truth comes from the laboratory, which knows what it broke and works out the rows on its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from lrh_ray.store.commits import pending_blocks
from lrh_ray.store.objects import open_objects
from lrh_ray.store.reader import open_store
from lrh_ray.store.repair import repair
from lrh_ray.store.seal import create_store, seal
from lrh_ray.store.verify import verify
from lrh_ray.store.writer import BlockWriter
from lrh_ray.testing.corruption import HOW, CorruptionLab
from lrh_ray.testing.corruption_campaign import mistake
from lrh_ray.testing.stores import FakeStore, fill, make_store, truth, write_block

SEEDS = 10_000
PROCESSES = 2
REPAIRS = 100
LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16]
PARITY = {"passed": True}


@pytest.fixture(scope="module")
def folder():
    """In memory where there is such a place: ten thousand corruptions write and sync twenty thousand files."""
    memory = Path("/dev/shm")
    inside = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="lrh-lab-", dir=inside))
    yield folder
    shutil.rmtree(folder)


def sealed(root: Path, **options) -> FakeStore:
    fake = make_store(root, LENGTHS, rows_per_block=64, **options)
    fill(fake)
    seal(fake.root, fake.plan, parity=PARITY)
    return fake


def other_rows(root: Path) -> FakeStore:
    """The same plan with other rows from other attempts in half of the blocks."""
    fake = make_store(root, LENGTHS, rows_per_block=64)
    for block in range(fake.plan.num_blocks):
        if block % 2:
            write_block(fake, block, attempt="0a")
            continue
        with BlockWriter(fake.root, fake.plan, block=block, attempt="0b", worker="older") as writer:
            for site in fake.plan.sites:
                writer.write(site.name, 0, -truth(fake.plan, site.name, block))
            writer.commit()
    seal(fake.root, fake.plan, parity={"passed": True, "older": 1})
    return fake


@pytest.fixture(scope="module")
def store(folder) -> FakeStore:
    return sealed(folder / "store")


@pytest.fixture(scope="module")
def older(folder) -> list[Path]:
    """Where stale objects come from: other rows of the same plan, and another plan."""
    return [other_rows(folder / "older").root, sealed(folder / "another-plan", seed=1).root]


def test_every_seeded_corruption_is_found_and_located(folder, store, older):
    """In processes of their own: run-time type checks of the suite would make each check seven times slower."""
    before = verify(store.root, 2)
    assert before.ok
    assert not before.litter
    runs = []
    for number in range(PROCESSES):
        copy = shutil.copytree(store.root, folder / f"copy-{number}")
        command = [sys.executable, "-m", "lrh_ray.testing.corruption_campaign", str(copy)]
        options = [
            f"--count={SEEDS // PROCESSES}",
            f"--first-seed={number * 10**6}",
            *(f"--older={one}" for one in older),
        ]
        runs.append(subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True))
    answers = [json.loads(run.communicate(timeout=250)[0]) for run in runs]
    missed = [one for answer in answers for one in answer["missed"]]
    assert not missed, missed[:10]
    assert sum(answer["count"] for answer in answers) == SEEDS
    done = sum((Counter(answer["done"]) for answer in answers), Counter())
    lab = CorruptionLab(store.root)
    for kind in lab.kinds:  # whatever the object, these always change it
        for how in ("flip", "truncate", "extend", "delete", "zero"):
            assert done[f"{kind}/{how}"] > 0
    assert {name.rpartition("/")[2] for name in done} == set(HOW)
    for name in ("shard/stale", "shard/swap", "statistics/swap", "pack/stale", "record/stale", "plan/stale"):
        assert done[name] > 0
    assert all(verify(folder / f"copy-{number}", 2).ok for number in range(PROCESSES))


def again(fake: FakeStore) -> list[int]:
    """What `lrh extract CONFIG` does: the same plan, the missing blocks, the seal. Returns the blocks computed."""
    create_store(
        fake.root, fake.plan, fake.tokens, fake.corpus, config_yaml="name: fake\n", provenance={"made_by": "tests"}
    )
    pending = list(pending_blocks(open_objects(fake.root), fake.plan))
    for block in pending:
        write_block(fake, block, attempt="fe")
    seal(fake.root, fake.plan, parity=PARITY)
    return pending


def test_repair_and_the_same_extraction_restore_the_root(folder, store, older):
    """In a process of its own, as above."""
    code = f"import test_lab_corruption as tests; tests.repair_many({str(folder)!r}, {[str(one) for one in older]!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-4000:]


def repair_many(folder: str, older: list[str]) -> None:
    """Corrupt, repair, extract again: the root returns, and only what was harmed is computed."""
    fake = sealed(Path(folder) / "repaired")
    root = open_store(fake.root).root
    assert root == open_store(Path(folder) / "store").root
    lab = CorruptionLab(fake.root, older=older)
    done: Counter[str] = Counter()
    seed = 100_000
    while done.total() < REPAIRS:
        seed += 1
        before = {path: path.stat().st_mtime_ns for path in fake.root.glob("data.zarr/acts/*/c/*/0")}
        damage = lab.corrupt(seed)
        if damage is None:
            continue
        name = f"seed {seed}: {damage.how} of {damage.keys}"
        repaired = repair(fake.root)
        assert not repaired.left, (name, repaired)
        computed = again(fake)
        assert computed == list(repaired.dropped), name
        assert open_store(fake.root).root == root, name
        verdict = verify(fake.root, 2)
        assert verdict.ok, (name, verdict.findings)
        assert not verdict.litter, (name, verdict.litter)
        harmed = {harm.block for harm in damage.harms if harm.block is not None}
        if (damage.kind, damage.how) != ("pack", "stale"):
            assert set(computed) == harmed, name
        for path, changed in before.items():
            if int(path.parent.name) not in computed:
                assert path.stat().st_mtime_ns == changed, f"{name}: block {path.parent.name} was written again"
        for site in fake.plan.sites:
            for block in computed:
                rows = open_store(fake.root).block_rows(site.name, block)
                assert rows.tobytes() == truth(fake.plan, site.name, block).tobytes(), name
        done[damage.kind] += 1
    assert set(done) == set(lab.kinds)


@pytest.mark.parametrize("compression", ["zstd1", "lz4bit"])
def test_corruptions_of_compressed_shards_are_located_too(folder, compression):
    fake = sealed(folder / compression, compression=compression)
    lab = CorruptionLab(fake.root)
    done: Counter[str] = Counter()
    for seed in range(250):
        damage = lab.corrupt(seed)
        if damage is None:
            continue
        if damage.kind == "shard":
            verdict = verify(fake.root, 2)
            assert mistake(verdict, damage, fake.plan.num_rows) is None
            done[damage.how] += 1
        damage.undo()
    assert len(done) >= 5
    assert verify(fake.root, 2).ok


def test_an_unsealed_store_with_all_its_blocks_is_checked_by_its_records(folder):
    fake = make_store(folder / "unsealed", LENGTHS, rows_per_block=64)
    fill(fake)
    lab = CorruptionLab(fake.root)
    assert "record of a block" in lab.kinds
    assert verify(fake.root, 2).ok
    seen = 0
    for seed in range(200):
        damage = lab.corrupt(seed)
        if damage is None:
            continue
        verdict = verify(fake.root, 2)
        if damage.kind == "record of a block" and damage.how == "delete":
            assert verdict.pending == (damage.harms[0].block,)  # it was never promised, so it is only missing
        else:
            wrong = mistake(verdict, damage, fake.plan.num_rows)
            assert wrong is None, (seed, wrong)
        damage.undo()
        seen += damage.kind == "record of a block"
    assert seen > 8
    assert verify(fake.root, 2).ok


def test_a_seed_is_one_corruption_and_undo_takes_it_back(store, older):
    lab = CorruptionLab(store.root, older=older)

    def contents():
        return {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}

    before = contents()
    for seed in range(100):
        damage = lab.corrupt(seed)
        if damage is None:
            continue
        first = contents()
        damage.undo()
        assert contents() == before
        damage = lab.corrupt(seed)
        assert contents() == first != before
        damage.undo()
