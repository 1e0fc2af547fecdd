"""Real writer processes, killed by the operating system at random moments."""

import json
import subprocess
import sys

from lrh_ray.testing.s3 import s3_server

KILLS = 1000
REMOTE_KILLS = 16


def prove(location, kills, blocks):
    """Facts of a laboratory run in which nothing was lost."""
    command = [sys.executable, "-m", "lrh_ray.testing.kills", str(location), f"--kills={kills}", f"--blocks={blocks}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    facts = json.loads(run.stdout)
    assert facts["kills"] >= kills
    assert (facts["wrong_rows"], facts["missing_blocks"], facts["litter"]) == (0, 0, [])
    return facts


def test_a_thousand_kills_lose_mix_and_tear_nothing(tmp_path):
    facts = prove(tmp_path / "store", KILLS, blocks=200)
    assert facts["committed_while_killing"] > 0  # the writers were killed at work, not before it


def test_kills_of_remote_writers_lose_mix_and_tear_nothing():
    with s3_server() as bucket:
        prove(f"{bucket}/store", REMOTE_KILLS, blocks=20)
