"""Pages from the JSON of benchmarks/store.py and benchmarks/extract.py: every figure on them comes from the files.

    python benchmarks/table.py         # benchmarks/results/store.json   -> docs/benchmarks.md
                                       # benchmarks/results/extract.json -> docs/benchmarks-extraction.md

A page is a pure function of its JSON; a test holds the two against each other. A target counts as met if the median
ratio reaches it; the interval beside it says how sure that is.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS, DOCS = Path("benchmarks/results"), Path("docs")
BUSY = 0.25
TITLES = {
    "write": "write, without fdatasync and commit",
    "durable": "write, durable and committed",
    "warm shuffled read": "shuffled read, warm",
    "warm shuffled read, verified": "shuffled read, warm, every crc32c checked",
    "cold shuffled read": "shuffled read, cold",
    "peer read": "shuffled read, warm",
    "peer write": "write",
}

Record = dict[str, Any]
Size = tuple[int, int]
Key = tuple[str, str, str]


def page(facts: Record) -> str:
    """The whole page."""
    measures = facts["measures"]
    peers = [record for record in measures if record["measure"].startswith("peer")]
    targets = [record for record in measures if record["target"] is not None]
    parts = [
        _intro(),
        _machine(facts),
        "## Targets\n\n" + _target_table(targets, _sizes(facts)) + "\n\n" + _noise(facts),
        "## Peers\n\n" + _peer_intro() + "\n\n" + _peer_table(peers, _sizes(facts)),
        _missing(facts["missing"]),
        "## How\n\n" + _how(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intro() -> str:
    return (
        "# Benchmarks of the store\n\n"
        "Each figure is a ratio inside one process: how fast the store is, divided by how fast the limit beside it is "
        "on the same bytes. 1.00 is as fast as the limit. In brackets stands the 95 % interval of the median ratio."
    )


def _machine(facts: Record) -> str:
    machine = facts["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['kernel']}, "
        f"Python {machine['python']}; {packages}.\n\n"
        f"Made by:\n\n```\n{facts['command']}\npython benchmarks/table.py\n```"
    )


def _sizes(facts: Record) -> list[Size]:
    return [(size["rows"], size["dim"]) for size in facts["settings"]["sizes"]]


def _columns(records: list[Record]) -> dict[Key, dict[Size, Record]]:
    """Measures in the order in which they were taken, with one record for each size."""
    found: dict[Key, dict[Size, Record]] = {}
    for record in records:
        key = record["measure"], record["limit"], record["ours"]
        found.setdefault(key, {})[record["rows"], record["dim"]] = record
    return found


def _ratio(record: Record | None) -> str:
    if record is None:
        return "–"
    low, high = record["interval"]
    return f"{record['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _size_heads(sizes: list[Size]) -> list[str]:
    return [f"{rows:,} × {dim:,}" for rows, dim in sizes]


def _target_table(records: list[Record], sizes: list[Size]) -> str:
    rows = []
    for (measured, limit, _), found in _columns(records).items():
        target = next(iter(found.values()))["target"]
        met = ["–" if size not in found else "yes" if found[size]["met"] else "**no**" for size in sizes]
        verdict = met[0] if len(set(met)) == 1 else ", ".join(met)
        cells = [_ratio(found.get(size)) for size in sizes]
        rows.append([TITLES[measured], limit, *cells, f"≥ {target:.2f}", verdict])
    return _table(["what", "limit", *_size_heads(sizes), "target", "met"], rows)


def _peer_intro() -> str:
    return (
        "How many times as fast the store is as other software on the same rows. Readers that verify check the crc32c "
        "of every chunk; for them our loader is shown without and with verification. The others check nothing, and "
        "hold bfloat16 as uint16."
    )


def _peer_table(records: list[Record], sizes: list[Size]) -> str:
    rows = [
        [TITLES[measured], peer, "yes" if next(iter(found.values()))["limit_verifies"] else "no", ours]
        + [_ratio(found.get(size)) for size in sizes]
        for (measured, peer, ours), found in _columns(records).items()
    ]
    return _table(["what", "peer", "peer verifies", "ours", *_size_heads(sizes)], rows)


def _missing(missing: Record) -> str:
    if not missing:
        return ""
    return "Not measured here:\n\n" + "\n".join(f"- {name}: {reason}." for name, reason in missing.items())


def _noise(facts: Record) -> str:
    measures = facts["measures"]
    noisy = sum(record["noisy_pairs"] for record in measures)
    pairs = sum(len(record["ratios"]) for record in measures)
    limit = facts["settings"]["other_load_limit_cores"]
    warning = "**Taken on a busy machine: these figures are provisional.** " if noisy > BUSY * pairs else ""
    return (
        f"{warning}Of {pairs} pairs (peers included) {noisy} were taken while all else used more than {limit} of "
        "a core, the kernel's own writing to disk included; a busy machine lowers the ratios of whatever uses more "
        "threads, which is ours."
    )


def _how(facts: Record) -> str:
    settings = facts["settings"]
    memory, disk = settings["memory_file_system"], settings["disk_file_system"]
    cold = next((r["share_read_from_disk"] for r in facts["measures"] if "share_read_from_disk" in r), None)
    shapes = [
        f"- {size['rows']:,} × {size['dim']:,} {size['dtype']}, {size['bytes'] / 1e6:,.0f} MB: shards of "
        f"{size['rows_per_shard']:,} rows, chunks of {size['rows_per_chunk']:,}, windows of "
        f"{size['rows_per_window']:,}, pieces of {size['rows_per_piece']:,}, batches of {size['rows_per_batch']:,}."
        for size in settings["sizes"]
    ]
    lines = [
        f"- {settings['pairs']} alternating pairs (limit, ours, limit, ours, ...) after an untimed round; the interval "
        "is a pair of order statistics. Before each pair the benchmark waits, up to a bound, until everything outside "
        "the process uses at most half a core, and repeats a pair during which it used more.",
        f"- Writes and warm reads are on {memory}, durable writes and cold reads on {disk}.",
        "- write: rows come a document of 512 at a time; copying, statistics, BLAKE3, crc32c and index are included. "
        "The limit writes the same array a chunk at a time.",
        "- durable: from the first row to the published commit record, against one fdatasync for each file.",
        "- shuffled read: one epoch, every row once: pieces in random order into a window, a permutation in memory, "
        "batches by `np.take(out=)`. The limit and all peers do the same into one preallocated buffer, with the "
        "loader's pieces; each was checked once to read the rows that were written.",
        f"- cold: {settings['cold']}."
        + ("" if cold is None else f" The kernel counted {cold:.0%} of the bytes as read from the disk."),
        *shapes,
    ]
    return "\n".join(lines)


def extraction_page(facts: Record) -> str:
    """The whole page about extraction."""
    measures = facts["measures"]
    intro = (
        "# Benchmarks of extraction\n\n"
        "How fast a model runs while its hidden states are kept, durably and exactly once, divided by how fast it runs "
        "when nobody listens: R, on the same tokens, to the same depth, in one process. In brackets stands the 95 % "
        "interval of the median. E is R divided by what the disk would allow."
    )
    head = ["sites", "R by the clock", "R in CPU seconds", "E", "target", "met"]
    ours = [_extraction_row(record) for record in measures if record["measure"] != "peer"]
    peers = [
        [f"{record['ours']} {record.get('version', '')}".strip(), str(record["sites"]), _ratio(record), _ahead(record)]
        for record in measures
        if record["measure"] == "peer"
    ]
    settings = facts["settings"]
    how = (
        f"{settings['rounds']} rounds, with all sites twice as many: the bare forward, extraction and the script "
        "written by hand, then the three in reverse order, so that what drifts evenly falls out; a ratio is that of a "
        f"round. Blocks are {settings['tokens_a_block']:,} tokens of real text, in documents of "
        f"{settings['tokens_a_document']}; {settings['model']}, the transformers backend, "
        f"{facts['machine']['threads']} threads, {settings['disk_file_system']}. A run's own blocks are larger, and "
        "the cost of a commit is then spread further. Early exit is the speed of extraction at mid-depth against a "
        "bare forward through all blocks. Documents of their own lengths are docstrings, which the script written by "
        "hand takes as they come, eight at a time and padded; in all other cases it is given batches as full as ours. "
        "A peer in its own environment is measured against the bare forward of its own process; it syncs its files, "
        "and has neither checksums nor commits. *Within noise*: the interval of how many times as fast we were, round "
        "by round, holds 1; for a peer in its own process, the two intervals overlap."
    )
    parts = [
        intro,
        _machine(facts),
        "## Targets\n\n" + _table(head, ours),
        "## Peers\n\n" + _table(["peer", "sites", "R by the clock", "ours is faster"], peers),
        _missing(facts["missing"]),
        "## How\n\n" + how,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _extraction_row(record: Record) -> list[str]:
    return [
        str(record["sites"]),
        _ratio(record),
        _ratio({"ratio": record["cpu_ratio"], "interval": record["cpu_interval"]}),
        f"{record['e']:.2f}" if record.get("e") else "–",
        f"≥ {record['target']:.2f}" if record["target"] else "–",
        "–" if record["met"] is None else "yes" if record["met"] else "**no**",
    ]


def _ahead(record: Record) -> str:
    answer = "yes" if record["ahead"] else "**no**"
    if "times_interval" in record:
        low, high = record["times_interval"]
        answer += f", {record['ours_times_as_fast']:.2f} [{low:.2f}, {high:.2f}] times"
    return answer if record["apart"] else f"{answer}, within noise"


PAGES: dict[str, tuple[Callable[[Record], str], str]] = {
    "benchmarks.md": (page, "store.json"),
    "benchmarks-extraction.md": (extraction_page, "extract.json"),
}
"""Page -> what makes it, and of which result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    for target, (make, name) in PAGES.items():
        (options.docs / target).write_text(make(json.loads((options.results / name).read_text())))


if __name__ == "__main__":
    main()
