"""The pool of model replicas at full size: chaos on a simulated cluster, a thousand replicas, a store of 20,000 blocks.

python benchmarks/prove_extract_pool.py --json benchmarks/results/prove_extract_pool.json
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

import numpy as np

from lrh_ray.store.commit_records import STATISTICS, Commit, StoredObject, encode_commit, record_key
from lrh_ray.store.status import store_status
from lrh_ray.testing.stores import make_store

Facts = dict[str, Any]
ROWS = 16  # of one block; the least a chunk holds
LEAST_LEASES_PER_SECOND = 500
MOST_BYTES = 1e9
MOST_STATUS_SECONDS = 5.0


def command(module: str, *arguments: str) -> Facts:
    """What a laboratory's command prints, in a process of its own."""
    run = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    facts: Facts = json.loads(run.stdout or '{"failed": true}')
    return facts


def status(folder: Path, blocks: int) -> Facts:
    """Seconds that `lrh status` takes for a store whose blocks are all committed; their files do not matter to it."""
    fake = make_store(folder, [ROWS] * blocks, rows_per_block=ROWS)
    stored = StoredObject(num_bytes=384, digest="0" * 32)
    names = [*(site.name for site in fake.plan.sites), STATISTICS]
    for block in range(fake.plan.num_blocks):
        commit = Commit(
            block=block,
            attempt=f"{block:x}",
            valid_rows=ROWS,
            objects=dict.fromkeys(names, stored),
            nonfinite={},
            overflow={},
            seconds=1.0,
            worker=f"node-{block % 1000}",
            software={},
        )
        path = folder / record_key(block)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_commit(commit))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        seen = store_status(folder)
        seconds.append(round(time.perf_counter() - started, 2))
    return {"blocks": seen.blocks, "seconds": seconds, "median_seconds": float(np.median(seconds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--blocks", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    facts: Facts = {"machine": {"python": platform.python_version(), "cpus": os.cpu_count()}, "seed": options.seed}
    started = time.monotonic()
    facts["leases"] = command("lrh_ray.testing.lease_lab", "--replicas", "1000", "--blocks", "20000")
    print(json.dumps(facts["leases"]))
    with tempfile.TemporaryDirectory(prefix="prove-pool-") as scratch:
        facts["status"] = status(Path(scratch) / "many", 20_000)
        print(json.dumps(facts["status"]))
        (nodes := Path(scratch) / "nodes").mkdir()
        facts["nodes"] = command("lrh_ray.testing.cluster_lab", str(nodes))
        print(json.dumps(facts["nodes"]))
        (demand := Path(scratch) / "demand").mkdir()
        facts["autoscaler"] = command("lrh_ray.testing.autoscaler_lab", str(demand))
        print(json.dumps(facts["autoscaler"]))
        (chaos := Path(scratch) / "chaos").mkdir()
        sizes = ["--kills", str(options.kills), "--blocks", str(options.blocks), "--seed", str(options.seed)]
        facts["chaos"] = command("lrh_ray.testing.chaos", str(chaos), *sizes)
        print(json.dumps(facts["chaos"]))
    facts["seconds"] = round(time.monotonic() - started)
    shown = {
        "leases": facts["leases"]["leases_per_second"] >= LEAST_LEASES_PER_SECOND,
        "memory": facts["leases"]["peak_bytes"] < MOST_BYTES,
        "status": facts["status"]["median_seconds"] < MOST_STATUS_SECONDS,
        "joining": facts["nodes"]["late_start"] < 30,
        "draining": facts["nodes"]["after_drain"] == facts["nodes"]["begun_twice"] == 0,
        "autoscaler": facts["autoscaler"]["done"] == facts["autoscaler"]["begun"] and facts["autoscaler"]["nodes"] == 2,
        "chaos": bool(facts["chaos"].get("clean")),
    }
    facts["shown"] = shown
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1).replace(f"{scratch}/", "") + "\n")
    if not all(shown.values()):
        sys.exit(f"not shown: {[name for name, held in shown.items() if not held]}; see {options.json}")


if __name__ == "__main__":
    main()
