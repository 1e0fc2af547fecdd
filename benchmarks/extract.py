"""How much slower a model runs when its hidden states are kept, durably and exactly once.

    python benchmarks/extract.py --json benchmarks/results/extract.json            # SmolLM2: 1, 4 and all sites
    python benchmarks/extract.py --json /tmp/e.json --only all --peers             # no tools of other environments
    python benchmarks/extract.py --json /tmp/e.json --model FOLDER --sites resid.3 resid.0:5

In one process, in rounds there and back on blocks of real text: a bare forward to the same depth (nobody listens, no
logits), extraction until the block is durable and committed, and the same by hand, then all three in reverse order. A
ratio is (seconds of the bare forward) / (seconds of extraction) of a round, by the clock and in CPU seconds of the
process, each the median over rounds with its interval.

- R      the ratio above;
- S      bytes a second of raw writes with fdatasync of the same files, in the same run;
- R_max  min(1, S / (bytes a second the bare forward makes)): what a perfect system reaches;
- E      R / R_max.

Documents of equal length say what keeping costs. Two more cases say what people wait for: one site at mid-depth, and
documents of the lengths they have.

Peers do the same work on the same tokens: `output_hidden_states=True` and `np.save` in the same rounds; nnsight,
TransformerLens and SAELens (one site) each in an environment of its own, against the bare forward of its own process.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from extract_case import Blocks, Case, bare
from extract_peers import PEERS, peer_record
from peer_environments import Absent
from store_machine import file_system, machine_facts
from store_pairs import OTHER_LOAD, Quiet, Record, Side, median_interval, say, there_and_back
from store_rows import scratch
from store_write import empty
from transformers import AutoModel

from lrh_ray.models.batches import Lengths, plan_batches
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts
from lrh_ray.models.hf import TransformersBackend, as_numpy

RESULTS = "benchmarks/results"
TARGETS = {1: 0.97, 4: 0.97, "all": 0.93}
ROUNDS = {"all": 2.0, "own lengths": 0.5}
"""Of `--rounds`, where it is not all of them: what writes most varies most, and what has no target may be rougher."""
EARLY_EXIT_TARGET = 1.8
PEER_TOKENS = 2048
"""Of a block, for peers in environments of their own: they have no commit that a larger block would spread."""
BY_HAND = 8
"""Documents of a batch in a script written by hand."""

Batching = Callable[[Lengths], Sequence[np.ndarray]]
"""Which sequences of a block share a forward pass, from their lengths."""


def rounds_of(options: argparse.Namespace, name: int | str) -> int:
    rounds: int = options.rounds
    return max(1, round(rounds * ROUNDS.get(str(name), 1.0)))


def measure_sites(options: argparse.Namespace, name: int | str, sites: Sequence[str], quiet: Quiet) -> list[Record]:
    """R, R_max and E of one choice of sites, and the peer."""
    rounds = rounds_of(options, name)
    case = Case.of(options, sites, rounds * 3 + 2)
    say(f"{len(case.plan.sites)} sites, {case.plan.rows_per_block} tokens a block, {case.plan.dtype}")
    with (
        scratch(options.disk) as folder,
        closing(TransformersBackend(case.checkpoint, case.config, case.plan.sites)) as backend,
    ):
        blocks = Blocks(case, folder / "store")
        limit = Side(name="bare forward to the same depth", run=partial(bare, backend, blocks))
        ways = kept_by(case, blocks, backend, folder, partial(plan_batches, batch_tokens=options.batch_tokens))
        record, by_hand = there_and_back(limit, ways, rounds=rounds, quiet=quiet)
        bare_seconds = median(turn[0] for turn in record["seconds"]) / 2
        sink = sink_bandwidth(case, folder)
        r_max = min(1.0, sink / (case.plan.rows_per_block * case.bytes_per_token / bare_seconds))
        target = TARGETS.get(name)
        facts = {
            "sites": name,
            "tokens": case.plan.rows_per_block,
            "dtype": case.plan.dtype,
            "bytes_per_token": case.bytes_per_token,
            "bare_tokens_per_second": round(case.plan.rows_per_block / bare_seconds, 1),
            "sink_gb_per_second": round(sink / 1e9, 3),
            "r_max": round(r_max, 4),
            "e": round(record["ratio"] / r_max, 4),
        }
        met = None if target is None else min(record["ratio"], record["cpu_ratio"]) >= target
    peers = [in_the_same_rounds(record, by_hand), *(beside(record, peer) for peer in measure_peers(options, case))]
    return [
        {"measure": "extract", "target": target, "met": met, **facts, **record},
        *({**facts, "measure": "peer", "target": None, "e": None, **peer} for peer in peers),
    ]


def kept_by(
    case: Case, blocks: Blocks, backend: TransformersBackend, folder: Path, batches: Batching
) -> tuple[Side, Side]:
    """Extraction, and what people write by hand, on the block whose turn it is."""
    ours = Side(name="extraction, durable and committed", run=partial(blocks.extract, backend), after=blocks.turn)
    return ours, hand_written(case, blocks, folder / "peer", batches)


def in_the_same_rounds(ours: Record, peer: Record) -> Record:
    """A peer's record with how it compares: how many times as fast we were, round by round."""
    times = [theirs / own for (_, own), (_, theirs) in zip(ours["seconds"], peer["seconds"], strict=True)]
    low, high, _ = median_interval(times)
    against = {"ours_times_as_fast": round(median(times), 4), "times_interval": [round(low, 4), round(high, 4)]}
    return {**peer, **against, "ahead": median(times) > 1, "apart": low > 1 or high < 1}


def beside(ours: Record, peer: Record) -> Record:
    """The same for a peer with rounds of its own: `apart` if the intervals of the medians do not overlap."""
    (low, high), (peer_low, peer_high) = ours["interval"], peer["interval"]
    return {**peer, "ahead": ours["ratio"] > peer["ratio"], "apart": low > peer_high or peer_low > high}


def measure_peers(options: argparse.Namespace, case: Case) -> list[Record]:
    """The same tokens through other tools, for sites of the residual stream."""
    layers = [site.layer for site in case.plan.sites]
    if any(site.name != f"resid.{site.layer}" for site in case.plan.sites):
        return []
    token_ids = case.tokens.token_ids[: min(options.tokens, PEER_TOKENS)].astype(np.int64)
    records = []
    for peer in options.peers:
        try:
            record = peer_record(
                peer,
                case.checkpoint.path,
                token_ids.reshape(-1, options.document_tokens),
                [layer or 0 for layer in layers],
                dtype=case.compute,
                batch=options.batch_tokens // options.document_tokens,
                pairs=max(3, options.rounds // 3),
                disk=options.disk,
            )
        except Absent as error:
            options.missing[f"{peer}, {len(layers)} sites"] = str(error)
        else:
            records.append(record)
    return records


_peer_models: dict[str, Any] = {}


def hand_written(case: Case, blocks: Blocks, folder: Path, batches: Batching) -> Side:
    """What people write by hand, on the block whose turn it is."""
    folder.mkdir()
    return Side(
        name="output_hidden_states and np.save",
        run=partial(save_hidden_states, case, blocks, folder, batches),
        after=partial(empty, folder),
    )


def save_hidden_states(case: Case, blocks: Blocks, folder: Path, batches: Batching) -> None:
    """All hidden states of the whole model, padded to the longest of a batch; one file per site and batch."""
    if not _peer_models:
        dtype = getattr(torch, case.compute)
        _peer_models["model"] = AutoModel.from_pretrained(case.checkpoint.path, dtype=dtype).eval()
    model, block = _peer_models["model"], blocks.tokens()
    with torch.inference_mode():
        for number, members in enumerate(batches(block.lengths)):
            mask = torch.arange(int(block.lengths[members].max())) < torch.from_numpy(block.lengths[members])[:, None]
            ids = torch.zeros(mask.shape, dtype=torch.int64)
            for row, m in enumerate(members):
                ids[row, mask[row]] = torch.from_numpy(
                    block.token_ids[block.starts[m] : block.starts[m + 1]].astype(np.int64)
                )
            states = model(ids, attention_mask=None if mask.all() else mask, output_hidden_states=True).hidden_states
            for site in case.plan.sites:
                rows = as_numpy(states[site.layer][mask].to(getattr(torch, case.plan.dtype)))
                np.save(folder / f"{number}.{site.name}.npy", rows.view(np.uint16))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fdatasync(file.fileno())


def sink_bandwidth(case: Case, folder: Path) -> float:
    """Bytes a second of raw writes with fdatasync of files like a block's, median of five."""
    data = np.zeros(case.plan.rows_per_block * case.bytes_per_token // len(case.plan.sites), np.uint8) + 7
    taken = []
    for number in range(5):
        started = time.perf_counter()
        for site in range(len(case.plan.sites)):
            file = os.open(folder / f"raw{number}.{site}", os.O_WRONLY | os.O_CREAT)
            os.write(file, data.data)
            os.fdatasync(file)
            os.close(file)
        taken.append(time.perf_counter() - started)
    return data.size * len(case.plan.sites) / median(taken)


def measure_early_exit(options: argparse.Namespace, num_layers: int, quiet: Quiet) -> list[Record]:
    """Extraction at mid-depth, and the same by hand, against a bare forward through all blocks."""
    site = f"resid.{num_layers // 2}"
    case = Case.of(options, [site], options.rounds * 3 + 2)
    whole = model_facts(case.checkpoint, case.config, ["final_norm"]).sites
    batches = partial(plan_batches, batch_tokens=options.batch_tokens)
    with closing(TransformersBackend(case.checkpoint, case.config, whole)) as full:
        limit = "bare forward through all blocks"
        ours, peer = beside_by_hand(options, case, batches, quiet, rounds=options.rounds, limit=limit, model=full)
    met = ours["ratio"] >= EARLY_EXIT_TARGET
    ours = {"measure": "early exit", "target": EARLY_EXIT_TARGET, "met": met, **ours}
    return [{"sites": f"{site}, early exit", **record} for record in (ours, peer)]


def measure_own_lengths(options: argparse.Namespace, sites: Sequence[str], quiet: Quiet) -> list[Record]:
    """Documents of the lengths they have; a script written by hand takes them as they come, and pads."""
    rounds = rounds_of(options, "own lengths")
    case = Case.of(options, sites, rounds * 3 + 2, own_lengths=True)
    limit = "bare forward to the same depth"
    ours, peer = beside_by_hand(options, case, by_arrival, quiet, rounds=rounds, limit=limit)
    ours = {"measure": "own lengths", "target": None, "met": None, **ours}
    return [{"sites": f"{len(sites)}, own lengths", **record} for record in (ours, peer)]


def by_arrival(lengths: Lengths) -> Sequence[np.ndarray]:
    return np.split(np.arange(len(lengths)), range(BY_HAND, len(lengths), BY_HAND))


def beside_by_hand(
    options: argparse.Namespace,
    case: Case,
    batches: Batching,
    quiet: Quiet,
    *,
    rounds: int,
    limit: str,
    model: TransformersBackend | None = None,
) -> tuple[Record, Record]:
    """Extraction, and the same by hand, both against the bare forward of `model`; by default to the same depth."""
    with (
        scratch(options.disk) as folder,
        closing(TransformersBackend(case.checkpoint, case.config, case.plan.sites)) as backend,
    ):
        blocks = Blocks(case, folder / "store")
        forward = Side(name=limit, run=partial(bare, model or backend, blocks))
        ways = kept_by(case, blocks, backend, folder, batches)
        record, peer = there_and_back(forward, ways, rounds=rounds, quiet=quiet)
    return record, {"measure": "peer", "target": None, **in_the_same_rounds(record, peer)}


def run(options: argparse.Namespace) -> Record:
    quiet = Quiet(patience=options.patience, allowance=options.patience, budget=options.patience * 4)
    started = time.monotonic()
    num_layers = model_facts(resolve_checkpoint(options.model), ModelConfig(name=options.model), ["resid.0"]).num_layers
    choices: dict[int | str, Sequence[str]] = {
        1: [f"resid.{num_layers}"],
        4: [f"resid.{num_layers * k // 4}" for k in (1, 2, 3, 4)],
        "all": ["resid.*"],
    }
    if options.sites:
        choices = {" ".join(options.sites): options.sites}
    elif options.only:
        choices = {name: sites for name, sites in choices.items() if str(name) == options.only}
    records: list[Record] = []
    for name, sites in choices.items():
        records += measure_sites(options, name, sites, quiet)
    if not options.sites and not options.only:
        records += measure_early_exit(options, num_layers, quiet)
        records += measure_own_lengths(options, choices[4], quiet)
    return {
        "command": shlex.join(["python", "benchmarks/extract.py", *options.spoken]),
        "machine": {**machine_facts(), "torch": torch.__version__, "threads": options.threads},
        "settings": {
            "model": options.model,
            "rounds": options.rounds,
            "tokens_a_block": options.tokens,
            "tokens_a_document": options.document_tokens,
            "other_load_limit_cores": OTHER_LOAD,
            "disk_file_system": file_system(options.disk),
        },
        "measures": records,
        "missing": options.missing,
        "seconds": round(time.monotonic() - started),
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--sites", nargs="*", help="one choice of sites instead of 1, 4 and all")
    parser.add_argument("--only", choices=[str(name) for name in TARGETS], help="one of the choices")
    parser.add_argument("--rounds", type=int, default=9, help="there and back; with all sites twice as many")
    parser.add_argument("--tokens", type=int, default=2048, help="of a block; a run's own are larger")
    parser.add_argument("--document-tokens", type=int, default=128)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="other tools; default: all")
    parser.add_argument("--disk", type=Path, default=Path("runs"))
    parser.add_argument("--patience", type=float, default=30.0, help="most seconds to wait for a quiet machine")
    options = parser.parse_args(arguments)
    place = str(options.json)
    options.missing = {}
    options.spoken = [word if word != place else f"{RESULTS}/{options.json.name}" for word in arguments]
    facts = run(options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    say(f"{options.json}: {len(facts['measures'])} measures in {facts['seconds']} s")


if __name__ == "__main__":
    main(sys.argv[1:])
