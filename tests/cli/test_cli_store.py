"""`lrh verify`, `lrh gc` and `lrh status` as people and scripts meet them."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lrh_ray.cli import main
from lrh_ray.store.commit_records import object_key, staged_key
from lrh_ray.store.commits import pending_blocks
from lrh_ray.store.objects import open_objects
from lrh_ray.store.seal import seal
from lrh_ray.testing.stores import FakeStore, fill, make_store, write_block

LRH = str(Path(sys.executable).with_name("lrh"))


@pytest.fixture
def run(capsys):
    """`lrh` in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        return stop.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture
def fake(tmp_path) -> FakeStore:
    fake = make_store(tmp_path / "run" / "store", [7, 30, 12, 25, 18, 40], rows_per_block=64)
    fill(fake)
    seal(fake.root, fake.plan, parity={"passed": True})
    return fake


def damage(fake: FakeStore) -> None:
    path = fake.root / object_key("resid.0", 1)
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)


def test_a_whole_store_is_clean_and_exits_0(run, fake):
    for level in ("0", "1", "2"):
        code, out, err = run("verify", str(fake.root.parent), "--level", level)
        assert code == 0
        assert "error" not in err
        assert f"level {level}" in " ".join(out.split())
    code, out, _ = run("verify", str(fake.root), "--json")
    assert code == 0
    assert json.loads(out)["ok"]


def test_damage_exits_2_with_one_error_that_locates_it_and_tells_the_way_out(run, fake):
    damage(fake)
    code, out, err = run("verify", str(fake.root))
    assert code == 2
    (message,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert "1 places" in message
    assert "block 1, site resid.0, rows 64..79" in err
    assert "--repair" in err
    assert "Traceback" not in err
    code, out, _ = run("verify", str(fake.root), "--json")
    assert code == 2
    answer = json.loads(out)
    assert not answer["ok"]
    assert answer["findings"][0]["rows"] == [64, 79]
    assert answer["damaged_blocks"] == [1]


def test_repair_exits_0_and_says_what_to_run_next(run, fake):
    damage(fake)
    code, out, _ = run("verify", str(fake.root), "--repair")
    assert code == 0
    assert "dropped blocks: 1" in out
    assert "lrh extract CONFIG" in out
    assert pending_blocks(open_objects(fake.root), fake.plan) == (1,)
    write_block(fake, 1, attempt="b1")
    seal(fake.root, fake.plan, parity={})
    assert run("verify", str(fake.root))[0] == 0
    damage(fake)
    code, out, _ = run("verify", str(fake.root), "--repair", "--json")
    assert code == 0
    assert json.loads(out)["repair"]["dropped_blocks"] == [1]


def test_mistakes_are_one_message(run, fake, tmp_path):
    for arguments in (
        ("verify", str(tmp_path / "nowhere")),
        ("gc", str(tmp_path / "nowhere")),
        ("status", str(tmp_path / "nowhere")),
        ("verify", str(fake.root), "--level", "3"),
    ):
        code, out, err = run(*arguments)
        assert code == 2
        assert not out
        assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert "--config" in err


def test_gc_looks_first_and_deletes_when_told(run, fake):
    left = fake.root / staged_key(2, "dead", "resid.0")
    left.write_bytes(b"12345")
    code, out, _ = run("gc", str(fake.root))
    assert code == 0
    assert "--delete" in out
    assert left.exists()
    answer = json.loads(run("gc", str(fake.root), "--delete", "--json")[1])
    assert (answer["objects"], answer["bytes"], answer["deleted"]) == (1, 5, True)
    assert not left.exists()
    assert run("gc", str(fake.root))[1] == "nothing\n"


def test_status_tells_json_and_lines(run, fake):
    facts = json.loads(run("status", str(fake.root.parent), "--json")[1])
    assert facts["sealed"]
    assert facts["blocks"] == facts["blocks_planned"] == fake.plan.num_blocks
    assert facts["parity"] == {"passed": True}
    assert facts["root"] in run("status", str(fake.root))[1]


def test_watching_ends_when_the_store_is_sealed(tmp_path):
    """In a shell of its own, without a terminal: one plain line per look."""
    fake = make_store(tmp_path / "store", [7, 30, 12, 25, 18, 40], rows_per_block=64)
    watching = subprocess.Popen(
        [LRH, "status", str(fake.root), "--watch", "--every", "0.1"], stdout=subprocess.PIPE, text=True
    )
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(watching.stdout))
    reader.start()
    try:
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            time.sleep(0.05)
        fill(fake)
        seal(fake.root, fake.plan, parity={})
        assert watching.wait(timeout=60) == 0
    finally:
        watching.kill()
        reader.join()
        watching.stdout.close()
    assert lines[0].startswith("0 of ")
    assert lines[-1].rstrip().endswith("sealed")
    assert "\x1b" not in "".join(lines)
