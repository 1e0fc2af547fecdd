"""The plan against the run that follows it: bytes, memory of the worker, time; SmolLM2 on this machine's CPU.

python benchmarks/prove_plan.py --json benchmarks/results/prove_plan.json

Bytes must agree to 1 %, the worker's peak memory to 10 %, the time of the whole command to 25 %. Wants a quiet machine:
the plan measures its speed for a few seconds, and the run takes minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from store_machine import machine_facts

LRH = str(Path(sys.executable).with_name("lrh"))
TOLERANCES = {"bytes": 0.01, "memory": 0.10, "seconds": 0.25}
CONFIG = """\
name: planned
runs: {runs}
text:
  sources:
    - {{kind: python-docs, max_characters: 800, passages: first, limit: {documents}}}
model:
  name: smollm2
store:
  sites: {sites}
"""


def planned(config: Path) -> dict[str, Any]:
    done = subprocess.run([LRH, "plan", str(config), "--json"], capture_output=True, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def extracted(config: Path) -> tuple[dict[str, Any], float, int]:
    """Facts of the run, its seconds, and the peak memory of its largest worker."""
    started = time.monotonic()
    told = config.with_name("extract.log").open("w+")
    run = subprocess.Popen([LRH, "extract", str(config), "--json"], stdout=subprocess.PIPE, stderr=told)
    family, peak = psutil.Process(run.pid), 0
    while run.poll() is None:
        peak = max(peak, _largest_replica(family))
        time.sleep(0.5)
    seconds = time.monotonic() - started
    if run.returncode or run.stdout is None:
        told.seek(0)
        sys.exit(f"the run failed:\n{told.read()[-2000:]}")
    return json.loads(run.stdout.read()), seconds, peak


def _largest_replica(family: psutil.Process) -> int:
    """Peak bytes so far of the actors that hold a model; the certificate is made by a task in another process."""
    peaks = [0]
    try:
        for child in family.children(recursive=True):
            name = " ".join(child.cmdline())
            if name.startswith("ray::_Host"):
                lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    except (psutil.Error, OSError):
        pass  # a process ended while it was looked at
    return max(peaks)


def compare(folder: Path, documents: int, sites: str) -> dict[str, Any]:
    config = folder / "run.yaml"
    config.write_text(CONFIG.format(runs=folder / "runs", documents=documents, sites=sites))
    plan = planned(config)
    facts, seconds, peak = extracted(config)
    shards = Path(facts["store"]) / "data.zarr" / "acts"
    estimate = plan["estimate"]
    pairs = {
        "bytes": (plan["bytes"], sum(path.stat().st_size for path in shards.rglob("0") if path.is_file())),
        "memory": (estimate["host_memory"]["total"], peak),
        "seconds": (estimate["duration"]["total"], seconds),
    }
    return {
        "tokens": plan["tokens"],
        "sites": plan["sites"],
        "worker_seconds": facts["worker_seconds"],
        "estimate": estimate,
        **{
            name: {
                "planned": expected,
                "found": found,
                "ratio": round(expected / found, 4),
                "within": abs(expected / found - 1) <= TOLERANCES[name],
            }
            for name, (expected, found) in pairs.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=180)
    parser.add_argument("--sites", default="[resid.0, resid.15, resid.30]")
    options = parser.parse_args()
    facts: dict[str, Any] = {"machine": machine_facts(), "load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="prove-plan-") as scratch:
        facts |= compare(Path(scratch), options.documents, options.sites)
    facts["load_after"] = os.getloadavg()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({name: facts[name] for name in TOLERANCES}, indent=1))
    if not all(facts[name]["within"] for name in TOLERANCES):
        sys.exit(f"not shown; see {options.json}")


if __name__ == "__main__":
    main()
