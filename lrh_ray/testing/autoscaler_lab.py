"""A run that begins on a cluster without a node for it: the autoscaler brings nodes and takes them away; facts as JSON.

python -m lrh_ray.testing.autoscaler_lab FOLDER

first_block    seconds from the run's start to the first block that begins
nodes          nodes that had blocks
done           blocks done
idle           seconds from the run's end until the last node was gone (None: it stayed)
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from lrh_ray.runtime.cluster import connected, living_nodes
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.map import map_blocks
from lrh_ray.testing.autoscaled import autoscaled_cluster
from lrh_ray.testing.cluster_lab import TraceTask, trace

BLOCKS = 24
NODES = 2
IDLE_SECONDS = 4.0
PATIENCE = 60.0


def run(folder: Path) -> dict[str, Any]:
    """Two replicas on no node at all."""
    with autoscaled_cluster(cpus=1, most=NODES, idle_seconds=IDLE_SECONDS) as address, connected(address) as found:
        started = time.time()
        pool = PoolConfig(replicas=NODES, cpus=1, when_short="wait")
        receipts = map_blocks(range(BLOCKS), TraceTask(folder=folder), pool, found)
        ended = time.monotonic()
        idle = None
        while idle is None and time.monotonic() - ended < PATIENCE:
            time.sleep(0.5)
            if not any(node.cpus for node in living_nodes()):
                idle = round(time.monotonic() - ended, 1)
    begun = trace(folder)
    return {
        "cpus_at_start": found.cpus,
        "first_block": round(min(moment for _, _, moment in begun) - started, 1),
        "nodes": len({node for _, node, _ in begun}),
        "begun": len(begun),
        "done": len(receipts),
        "idle": idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    sys.stdout.write(json.dumps(run(parser.parse_args().folder), indent=1) + "\n")


if __name__ == "__main__":
    main()
