"""What takes longer than the everyday tests of the store: all crash schedules, kills, faults, corruptions.

python benchmarks/prove_store.py --json benchmarks/results/prove_store.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lrh_ray.store.seal import seal
from lrh_ray.testing.s3 import s3_server
from lrh_ray.testing.stores import fill, make_store

Facts = dict[str, Any]
LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16]
ENOUGH_SCHEDULES = 250_000


def command(module: str, *arguments: str) -> Facts:
    """What a laboratory's command prints; it is a process of its own because forks need a parent without threads."""
    run = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{module} {' '.join(arguments)}:\n{run.stdout}{run.stderr[-4000:]}")
    facts: Facts = json.loads(run.stdout)
    return facts


def crashes(size: str) -> Facts:
    """Every schedule, walked and explored; a broken law ends the program with the line that replays it."""
    facts = command("lrh_ray.testing.crash_lab", "--size", size)
    facts["schedules_explored"] = sum(report["schedules"] for report in facts["explored"].values())
    return facts


def kills(folder: Path, number: int, remote: int, seed: int) -> Facts:
    """SIGKILL of writers on a folder, and on an object store."""
    arguments = ["--kills", str(number), "--blocks", "400", "--seed", str(seed)]
    facts = {"folder": command("lrh_ray.testing.kills", str(folder / "killed"), *arguments)}
    with s3_server() as bucket:
        arguments = ["--kills", str(remote), "--blocks", "20", "--seed", str(seed)]
        facts["object store"] = command("lrh_ray.testing.kills", f"{bucket}/killed", *arguments)
    return facts


def faults(runs: int) -> Facts:
    """One fault per run, of every kind, spread over every call of a small run."""
    return command("lrh_ray.testing.faults", "--runs", str(runs))


def corruptions(folder: Path, count: int) -> Facts:
    """Random damages of a sealed store: each must be found at level 2 and located."""
    places = []
    for seed in range(2):
        fake = make_store(folder / f"sealed-{seed}", LENGTHS, seed=seed)
        fill(fake)
        seal(fake.root, fake.plan, parity={"passed": True})
        places.append(str(fake.root))
    arguments = [places[0], "--count", str(count), "--older", places[1]]
    return command("lrh_ray.testing.corruption_campaign", *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--size", choices=("ci", "all"), default="all")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--remote-kills", type=int, default=40)
    parser.add_argument("--faults", type=int, default=680)
    parser.add_argument("--corruptions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform()}
    facts: Facts = {"machine": machine, "seed": options.seed}
    started = time.monotonic()
    facts["crashes"] = crashes(options.size)
    print(json.dumps({name: facts["crashes"][name] for name in ("schedules_walked", "schedules_explored", "seconds")}))
    with tempfile.TemporaryDirectory(prefix="prove-store-") as scratch:
        facts["kills"] = kills(Path(scratch), options.kills, options.remote_kills, options.seed)
        print(json.dumps(facts["kills"]))
        facts["corruptions"] = corruptions(Path(scratch), options.corruptions)
        print(json.dumps(facts["corruptions"]))
    facts["faults"] = faults(options.faults)
    print(json.dumps(facts["faults"]))
    facts["seconds"] = round(time.monotonic() - started)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if facts["crashes"]["schedules_walked"] < ENOUGH_SCHEDULES or facts["faults"]["broken"]:
        sys.exit(f"not shown; see {options.json}")


if __name__ == "__main__":
    main()
