"""The targets of the activation store, each as a ratio inside one process, and its peers beside it.

    python benchmarks/store.py --json benchmarks/results/store.json     # both sizes, about a quarter of an hour
    python benchmarks/store.py --json /tmp/store.json --quick           # small and imprecise, under a minute
    python benchmarks/table.py                                          # docs/benchmarks.md from the JSON

A ratio is (seconds of the limit) / (seconds of ours): 1 is as fast as the limit, more is faster. `store_pairs` says how
a ratio is taken, `store_write`, `store_read` and `store_peers` what is compared. Temporary files (about four times the
rows of a size) stand under --memory and --disk, and are removed.
"""

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path

from store_machine import file_system, machine_facts
from store_pairs import OTHER_LOAD, Quiet, Record, say
from store_peers import PEERS, Absent, Peer, peer_measures
from store_read import BATCH_ROWS, WINDOWS, cold_measures, our_epochs, piece_rows, warm_measures
from store_rows import DOCUMENT_ROWS, SITE, Data, scratch
from store_write import durable_measures, write_measures

RESULTS = "benchmarks/results/store.json"
SIZES = ((131072, 576), (32768, 4096))
QUICK_SIZES = ((16384, 576), (4096, 4096))
NOT_MEASURED = {
    "annbatch": "needs Python 3.12; its loader reads the same arrays through the zarrs pipeline, which is here",
    "extraction slowed by storing": "needs a model; measured with the model backends",
}


def benchmark_size(
    data: Data, memory: Path, disk: Path, *, peers: tuple[Peer, ...], pairs: int, quiet: Quiet
) -> tuple[list[Record], dict[str, str]]:
    """All measures of one size, and the peers that cannot run here, with the reason."""
    say(f"{data.name}: shards of {data.rows_per_block} rows, chunks of {data.plan.chunk_rows}")
    records = write_measures(data, memory, pairs=pairs, quiet=quiet)
    records += durable_measures(data, disk, pairs=pairs, quiet=quiet)
    with scratch(disk) as folder:
        records += cold_measures(data, folder, pairs=pairs, quiet=quiet)
    missing = {}
    with scratch(memory) as folder:
        data.write_flat(folder / "flat")
        data.make_store(folder / "store")
        ours = our_epochs(data, folder / "store")
        records += warm_measures(data, folder / "flat", ours, pairs=pairs, quiet=quiet)
        for peer in peers:
            try:
                records += peer_measures(data, folder / "store", ours, peer, memory, pairs=pairs, quiet=quiet)
            except Absent as error:
                missing[peer.name] = str(error)
    places = {"durable": disk, "cold shuffled read": disk}
    return [finish(record, data, places.get(record["measure"], memory)) for record in records], missing


def finish(record: Record, data: Data, place: Path) -> Record:
    """A record with what it was measured on, speeds, and whether the target is met."""
    target = record["target"]
    limit, ours = (sorted(pair[k] for pair in record["seconds"])[len(record["seconds"]) // 2] for k in (0, 1))
    return {
        "rows": data.rows,
        "dim": data.dim,
        **record,
        "met": None if target is None else record["ratio"] >= target,
        "gb_per_second": {
            "limit": round(data.num_bytes / limit / 1e9, 3),
            "ours": round(data.num_bytes / ours / 1e9, 3),
        },
        "file_system": file_system(place),
    }


def geometry(data: Data) -> Record:
    return {
        "rows": data.rows,
        "dim": data.dim,
        "dtype": "bfloat16",
        "bytes": data.num_bytes,
        "rows_per_shard": data.rows_per_block,
        "rows_per_chunk": data.plan.chunk_rows,
        "rows_per_piece": piece_rows(data),
        "rows_per_window": data.rows // WINDOWS,
        "rows_per_batch": BATCH_ROWS,
        "rows_per_document": DOCUMENT_ROWS,
        "sites": [SITE],
    }


def run(options: argparse.Namespace) -> Record:
    quiet = Quiet(patience=options.patience, allowance=options.wait / 6, budget=options.wait)
    peers = tuple(peer for peer in PEERS if options.peers is None or peer.name in options.peers)
    started = time.monotonic()
    records: list[Record] = []
    missing, shapes = dict(NOT_MEASURED), []
    for rows, dim in options.sizes:
        data = Data(rows, dim)
        found, absent = benchmark_size(
            data, options.memory, options.disk, peers=peers, pairs=options.pairs, quiet=quiet
        )
        records += found
        missing |= absent
        shapes.append(geometry(data))
    return {
        "command": shlex.join(["python", "benchmarks/store.py", *options.spoken]),
        "machine": machine_facts(),
        "settings": {
            "pairs": options.pairs,
            "other_load_limit_cores": OTHER_LOAD,
            "patience_seconds": options.patience,
            "waiting_budget_seconds": options.wait,
            "waited_seconds": round(quiet.waited, 1),
            "sizes": shapes,
            "memory_file_system": file_system(options.memory),
            "disk_file_system": file_system(options.disk),
            "cold": "POSIX_FADV_DONTNEED before each run; the host of a virtual machine may still hold the bytes",
        },
        "measures": records,
        "missing": missing,
        "seconds": round(time.monotonic() - started),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="one size only: rows, a power of two >= 4096")
    parser.add_argument("--dim", type=int, help="one size only: width of a row; default 576")
    parser.add_argument("--pairs", type=int, help="default 9; 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes, three pairs, no waiting")
    parser.add_argument("--peers", nargs="*", choices=[peer.name for peer in PEERS], help="default: all")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="folder in memory (tmpfs)")
    parser.add_argument("--disk", type=Path, default=Path("runs"), help="folder on a real disk")
    parser.add_argument("--patience", type=float, help="most seconds to wait before a pair; default 60")
    parser.add_argument("--wait", type=float, help="most seconds to wait in all; default 360")
    options = parser.parse_args(arguments)
    usual, quick = {"pairs": 9, "patience": 60.0, "wait": 360.0}, {"pairs": 3, "patience": 0.0, "wait": 0.0}
    defaults = quick if options.quick else usual
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    place = str(options.json)
    options.spoken = [word if word != place else RESULTS for word in arguments]
    options.sizes = QUICK_SIZES if options.quick else SIZES
    if options.rows or options.dim:
        options.sizes = ((options.rows or SIZES[0][0], options.dim or SIZES[0][1]),)
    return options


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    facts = run(options)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    say(f"{options.json}: {len(facts['measures'])} measures in {facts['seconds']} s")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that files are removed
    main(sys.argv[1:])
