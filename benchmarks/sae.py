"""What a training step of a sparse autoencoder costs, in products of its encoder; and what it costs elsewhere.

    python benchmarks/sae.py --json benchmarks/results/sae.json --peers            # about forty minutes on 2 cores
    python benchmarks/sae.py --json out.json --d 1024 --m 16384 --k 32 --batch 2048

The unit is X [N, d] @ W [d, m] in float32, the one product that an exact step cannot do without; both take turns in one
process, and the median of at least nine pairs counts. Peers are measured against the same product in a process of their
own. sparsify with Adam also begins with our weights, and after as many steps on the same rows must have got as far.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_environments import Absent, environment, last_line
from sae_rows import batch_of
from store_machine import machine_facts
from store_pairs import Quiet, Record, Side, measure, say

from lrh_ray.analyses.sae.architectures.relu import Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.parameters import Weights, first_weights
from lrh_ray.analyses.sae.reader import TopKReader
from lrh_ray.analyses.sae.selection import BatchTopK, TopK
from lrh_ray.analyses.sae.sparse_step import SparseTraining
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.analyses.sae.training import Training
from lrh_ray.vector_math import settle_vector_math

SIZES = ((1024, 16384, 32, 2048), (512, 8192, 32, 1024), (576, 18432, 64, 4096))
PEERS = ("sparsify", "sae-lens", "dictionary-learning", "llamascopium")
BAR, FASTER = 1.35, {"sparsify": 1.6, "sae-lens": 5.0, "dictionary-learning": 5.0, "llamascopium": 5.0}
PRESELECT, PRESELECTED = 2, 0.95
"""Candidates in multiples of k, and what a step may then cost where the processor multiplies in bfloat16."""
STEPS, RATE = 40, 1e-3
PEER_SECONDS = 3000

Size = tuple[int, int, int, int]


def start_of(size: Size) -> Weights:
    width, latents, _, rows = size
    return first_weights(latents, batch_of(width, rows, 0).mean(axis=0, dtype=np.float64), seed=0)


def trainings(size: Size, threads: ThreadPoolExecutor) -> dict[str, Training]:
    """Kinds of ours, by name."""
    _, latents, k, _ = size
    groups = tuple(latents >> power for power in (3, 2, 1, 0))
    return {
        "TopK": SparseTraining(start_of(size), TopK(k=k), threads=threads),
        "BatchTopK": SparseTraining(start_of(size), BatchTopK(k=k), threads=threads),
        "TopK, preselected": SparseTraining(start_of(size), TopK(k=k), threads=threads, preselect=PRESELECT),
        "Matryoshka": SparseTraining(start_of(size), BatchTopK(k=k), groups=groups, threads=threads),
        "ReLU, dense": DenseTraining(Relu(dict(start_of(size).named()), PowerPenalty(weight=0.03))),
    }


def ours(size: Size, pairs: int, quiet: Quiet) -> dict[str, Record]:
    width, latents, _, rows = size
    x, w = torch.from_numpy(batch_of(width, rows, 0)), torch.randn(width, latents)
    out = torch.empty(rows, latents)
    unit = Side(name="X @ W", run=lambda: torch.mm(x, w, out=out))
    found = {}
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for name, training in trainings(size, threads).items():
            numbers = itertools.count()

            def step(training: Training = training, numbers: Any = numbers) -> None:
                training.step(batch_of(width, rows, next(numbers)), rate=RATE)

            found[name] = in_products(measure(unit, Side(name=name, run=step), pairs=pairs, quiet=quiet))
            if isinstance(training, SparseTraining):
                found[name]["recall"] = training.recall(batch_of(width, rows, -1))
    return found


def in_products(record: Record) -> Record:
    """The ratio the other way round: how many products a step costs."""
    low, high = record["interval"]
    return {**record, "products": round(1 / record["ratio"], 3), "between": [round(1 / high, 3), round(1 / low, 3)]}


def far(size: Size, steps: int) -> dict[str, Any]:
    """Variance of held-out rows that is left unexplained after some steps."""
    width, _, k, rows = size
    training = SparseTraining(start_of(size), TopK(k=k))
    for number in range(steps):
        training.step(batch_of(width, rows, number), rate=RATE)
    held_out = torch.from_numpy(batch_of(width, rows, -1))
    reader = TopKReader(parameters=training.parameters, k=k)
    error, spread = reader.decode(reader.codes(held_out)) - held_out, held_out - held_out.mean(0)
    return {"steps": steps, "fvu": (error.pow(2).sum() / spread.pow(2).sum()).item()}


def peer(name: str, size: Size, pairs: int, steps: int) -> dict[str, Any]:
    """What the peer's own process found.

    Raises:
        Absent: It cannot be installed, or fails.
    """
    python = environment(name)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.npz"
        np.savez(start, **{key: tensor.numpy() for key, tensor in start_of(size).named()})  # type: ignore[arg-type]
        settings = dict(zip(("--d", "--m", "--k", "--batch"), size, strict=True))
        settings |= {"--pairs": pairs, "--steps": steps}
        command = [str(python), str(Path(__file__).with_name("sae_inside_peer.py")), name, "--start", str(start)]
        command += [str(word) for item in settings.items() for word in item] + ["--rate", str(RATE)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=PEER_SECONDS,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent)},
        )
    if done.returncode:
        raise Absent(f"failed: {last_line(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "records": [in_products(record) for record in found["records"]]}


def beside(mine: Record, theirs: Sequence[Record], bar: float) -> dict[str, Any]:
    """How many times a peer's fastest way takes longer, both in products."""
    fastest = min(theirs, key=lambda record: record["products"])
    slower = round(fastest["products"] / mine["products"], 2)
    return {
        "ours": fastest["ours"],
        "products": fastest["products"],
        "slower": slower,
        "bar": bar,
        "met": slower >= bar,
    }


def one_size(size: Size, options: argparse.Namespace) -> dict[str, Any]:
    say(f"d, m, k, N = {size}")
    found: dict[str, Any] = {
        "size": size,
        "ours": ours(size, options.pairs, Quiet(patience=options.patience)),
        "after": far(size, options.steps),
    }
    found["bar"] = {"exact": BAR, "met": found["ours"]["TopK"]["products"] <= BAR}
    cost = found["ours"]["TopK, preselected"]["products"]
    found["bar_preselected"] = {
        "products": PRESELECTED,
        "met": cost <= PRESELECTED,
        "processor_multiplies_bfloat16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    }
    if options.peers:
        found["peers"], found["faster"] = {}, {}
        for name in PEERS:
            try:
                told = peer(name, size, options.pairs, options.steps)
            except Absent as reason:
                found["peers"][name] = {"absent": str(reason)}
                say(f"  {name}: {reason}")
                continue
            found["peers"][name] = told
            found["faster"][name] = beside(found["ours"]["TopK"], told["records"], FASTER[name])
            say(f"  {name}: {found['faster'][name]}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    for name, meaning in (("--d", "features"), ("--m", "latents"), ("--k", "codes of a row"), ("--batch", "rows")):
        parser.add_argument(name, type=int, help=f"{meaning}; all four or none")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=STEPS, help="before unexplained variances are compared")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a quiet machine, at most")
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    options = parser.parse_args(arguments)
    asked = (options.d, options.m, options.k, options.batch)
    if any(asked) and not all(asked):
        sys.exit("Give all of --d, --m, --k and --batch, or none for the usual sizes.")
    settle_vector_math()
    facts = {
        "machine": machine_facts(),
        "threads": torch.get_num_threads(),
        "sizes": [one_size(size, options) for size in ((asked,) if all(asked) else SIZES)],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
