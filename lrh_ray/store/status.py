"""Where a store stands, from the store alone: no process is asked, so it works for any run, anywhere, at any time.

    status = store_status("runs/demo/store")
    status.blocks, status.blocks_planned, status.rows_per_second

A commit says how many seconds its block took, not when: the rate is what one worker does in the latest blocks, times
the workers seen in them. It says nothing about now if the run has stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from lrh_ray.records import Plain
from lrh_ray.store.commit_records import Commit
from lrh_ray.store.commits import read_standing, staged_files
from lrh_ray.store.objects import TEMPORARY, Location, Objects, open_objects
from lrh_ray.store.parts import Part, open_part
from lrh_ray.store.verify import find_store

RECENT_BLOCKS = 64
SHOWN_RANGES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreStatus:
    """Facts about a store, finished or not."""

    location: str
    sealed: bool
    root: str | None
    """Digest of the content; None until the store is sealed."""
    plan: str
    model: str
    sites: tuple[str, ...]
    dtype: str
    compression: str
    blocks: int
    blocks_planned: int
    rows: int
    """Committed rows that stand for a token."""
    rows_planned: int
    num_bytes: int
    worker_seconds: float
    rows_per_second: float | None
    """What the workers of the latest blocks do together; None before the first block."""
    workers: tuple[str, ...]
    missing_rows: tuple[tuple[int, int], ...]
    """First and last row of each run of blocks without a commit."""
    attempts: tuple[str, ...]
    """Attempts in progress, or dead and not swept yet: block and name of each."""
    litter_bytes: int
    """Staged and temporary bytes; `lrh gc` removes those of the dead."""
    sinks: Mapping[str, int]
    parity: Mapping[str, Plain] | None
    writing_command: str

    @property
    def finished(self) -> bool:
        return self.sealed and self.blocks == self.blocks_planned

    def as_plain(self) -> dict[str, Plain]:
        plain: dict[str, Plain] = {
            "store": self.location,
            "sealed": self.sealed,
            "root": self.root,
            "plan": self.plan,
            "model": self.model,
            "sites": list(self.sites),
            "dtype": self.dtype,
            "compression": self.compression,
            "blocks": self.blocks,
            "blocks_planned": self.blocks_planned,
            "rows": self.rows,
            "rows_planned": self.rows_planned,
            "bytes": self.num_bytes,
            "worker_seconds": round(self.worker_seconds, 1),
            "rows_per_second": None if self.rows_per_second is None else round(self.rows_per_second, 1),
            "workers": list(self.workers),
            "missing_rows": [list(rows) for rows in self.missing_rows[:SHOWN_RANGES]],
            "missing_ranges": len(self.missing_rows),
            "attempts": list(self.attempts),
            "litter_bytes": self.litter_bytes,
        }
        if self.sealed:
            plain |= {"sinks": dict(self.sinks), "parity": self.parity}
        return plain if self.finished else {**plain, "next": f"Finish it with {self.writing_command}."}

    def line(self) -> str:
        """One line for logs."""
        done = f"{self.blocks:,} of {self.blocks_planned:,} blocks, {self.rows:,} of {self.rows_planned:,} rows"
        rate = "" if self.rows_per_second is None else f", {self.rows_per_second:,.0f} rows/s"
        return f"{done}{rate}, {len(self.attempts)} in progress{', sealed' if self.sealed else ''}"


def store_status(location: Location) -> StoreStatus:
    """Read where a store stands.

    Raises:
        StoreMissing: No store there.
        StoreCorrupt: Damaged records; `lrh verify STORE` locates the damage.
    """
    return status_of(open_part(location))


def status_of(store: Part) -> StoreStatus:
    """The status of an opened store; attempts in progress are read now."""
    commits, plan = store.commits, store.plan
    attempts, litter_bytes = _in_progress(store.objects, store)
    manifest = store.manifest
    sites = cast(Mapping[str, Mapping[str, int]], {} if manifest is None else manifest["sites"])
    return StoreStatus(
        location=store.objects.location,
        sealed=manifest is not None,
        root=None if manifest is None else store.root,
        plan=plan.digest,
        model=str(cast(Mapping[str, Plain], plan.identity["model"])["name"]),
        sites=tuple(site.name for site in plan.sites),
        dtype=plan.dtype,
        compression=plan.compression,
        blocks=len(commits),
        blocks_planned=plan.num_blocks,
        rows=sum(commit.valid_rows for commit in commits.values()),
        rows_planned=plan.num_valid_rows,
        num_bytes=sum(stored.num_bytes for commit in commits.values() for stored in commit.objects.values()),
        worker_seconds=sum(commit.seconds for commit in commits.values()),
        rows_per_second=_rate([commits[block] for block in sorted(commits)][-RECENT_BLOCKS:]),
        workers=tuple(sorted({commit.worker for commit in commits.values()})),
        missing_rows=tuple(_missing_rows(store)),
        attempts=attempts,
        litter_bytes=litter_bytes,
        sinks={name: site["sinks"] for name, site in sites.items()},
        parity=None if manifest is None else cast(Mapping[str, Plain], manifest["parity"]),
        writing_command=store.writing_command,
    )


def _rate(recent: list[Commit]) -> float | None:
    seconds = sum(commit.seconds for commit in recent)
    workers = len({commit.worker for commit in recent})
    return sum(commit.valid_rows for commit in recent) / seconds * workers if seconds > 0 else None


def _missing_blocks(store: Part) -> list[int]:
    return [block for block in range(store.plan.num_blocks) if block not in store.commits]


def _missing_rows(store: Part) -> list[tuple[int, int]]:
    """Runs of blocks without a commit, as rows."""
    size = store.plan.rows_per_block
    runs: list[tuple[int, int]] = []
    for block in _missing_blocks(store):
        first, last = block * size, (block + 1) * size - 1
        if runs and runs[-1][1] + 1 == first:
            runs[-1] = runs[-1][0], last
        else:
            runs.append((first, last))
    return runs


def _in_progress(objects: Objects, store: Part) -> tuple[tuple[str, ...], int]:
    """Attempts that have staged files, or claim a block; and the bytes of what is no part of the store."""
    if not objects.stages:
        standing = [(block, read_standing(objects, block)) for block in _missing_blocks(store)]
        claimed = [(block, found.attempt) for block, found in standing if found and found.state == "claimed"]
        return tuple(f"{block}.{attempt}" for block, attempt in claimed), 0
    staged = {(block, attempt) for _, block, attempt in staged_files(objects) if block not in store.commits}
    litter = sum(
        entry.num_bytes
        for entry in objects.list("")
        if entry.key.startswith("staging/") or TEMPORARY.fullmatch(entry.key.rpartition("/")[2])
    )
    return tuple(f"{block}.{attempt}" for block, attempt in sorted(staged)), litter


def store_size(location: Location) -> int:
    """Bytes of all objects, for progress; 0 where nothing can be listed."""
    return sum(entry.num_bytes for entry in open_objects(find_store(location)).list(""))
