"""Check commits and blocks: is each planned block committed, and is every object of it the one that was committed?

Staged files of a committed attempt count as its objects: a reader uses them until they are published.
"""

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lrh_ray.errors import PathUnusable, StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.checking import Check
from lrh_ray.store.commit_records import STATISTICS, Commit, StoredObject, object_key, record_key, staged_key
from lrh_ray.store.commits import PACK
from lrh_ray.store.pack_check import PackReading, read_damaged_pack, read_own_records
from lrh_ray.store.plan import Plan
from lrh_ray.store.shard_check import Buffer, check_shard
from lrh_ray.store.shard_reader import shard_source
from lrh_ray.store.touched import all_rows, block_rows, shard_rows

REMOTE_THREADS = 8  # requests in flight
LOCAL_THREADS = 4  # at most one per core: checksums are the work
THREADS_FROM_BYTES = 32 << 20
"""Threads cost more than they bring where there is less to read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitsFound:
    """Commits that can be read, and where the others are."""

    commits: dict[int, Commit]
    pack: PackReading | None
    lost: tuple[int, ...]
    """Blocks that a sealed store promises and no record names."""
    pending: tuple[int, ...]
    """Blocks that a store which was never sealed has not committed yet."""


def check_commits(check: Check, plan: Plan, manifest: Mapping[str, Plain] | None) -> CommitsFound:
    """Read the record of every block, of its own or in the pack."""
    pack = _read_pack(check, plan)
    commits = dict(pack.commits) if pack is not None else {}
    damaged: set[int] = set()
    for block, commit in read_own_records(check.objects, [b for b in range(plan.num_blocks) if b not in commits]):
        if isinstance(commit, StoreCorrupt):
            check.found("block", "record", record_key(block), block_rows(plan, block), str(commit))
            damaged.add(block)
        elif commit is not None:
            commits[block] = commit
    absent = [block for block in range(plan.num_blocks) if block not in commits and block not in damaged]
    wanted = promised(plan, manifest) if manifest is not None or pack is not None else set()
    return CommitsFound(
        commits=dict(sorted(commits.items())),
        pack=pack,
        lost=tuple(block for block in absent if block in wanted),
        pending=() if wanted else tuple(absent),
    )


def _read_pack(check: Check, plan: Plan) -> PackReading | None:
    check.known.add(PACK)
    try:
        return read_damaged_pack(check.objects, plan.num_blocks)
    except (PathUnusable, OSError) as error:
        if not check.objects.stages:
            raise
        check.found("pack", "unreadable", PACK, all_rows(plan), str(error))
        return PackReading(commits={}, complaints=(str(error),), num_bytes=0, digest="")


def promised(plan: Plan, manifest: Mapping[str, Plain] | None) -> set[int]:
    """Blocks that a store which was sealed must have."""
    missing = (manifest or {}).get("missing")
    return set(range(plan.num_blocks)) - set(missing if isinstance(missing, list) else [])


class _OfThread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.buffer = Buffer()


def check_blocks(check: Check, plan: Plan, commits: Mapping[int, Commit]) -> None:
    """Every object of every committed block; in threads where that is worth it."""
    staged = {entry.key for entry in check.listing("staging")} if check.objects.stages else set()
    total = sum(stored.num_bytes for commit in commits.values() for stored in commit.objects.values())
    if check.objects.stages and (check.level < 2 or total < THREADS_FROM_BYTES):
        buffer = Buffer()
        for commit in commits.values():
            _check_block(check, plan, commit, staged, buffer)
        return
    own = _OfThread()

    def of_thread(commit: Commit) -> None:
        _check_block(check, plan, commit, staged, own.buffer)

    most = min(LOCAL_THREADS, os.cpu_count() or 1) if check.objects.stages else REMOTE_THREADS
    with ThreadPoolExecutor(most) as threads:
        list(threads.map(of_thread, commits.values()))


def _check_block(check: Check, plan: Plan, commit: Commit, staged: set[str], buffer: Buffer) -> None:
    block = commit.block
    names = {site.name for site in plan.sites} | {STATISTICS}
    if commit.objects.keys() != names or commit.valid_rows != plan.valid_rows[block]:
        message = "the block's record names other sites or rows than the plan"
        check.found("block", "record", record_key(block), block_rows(plan, block), message)
    for name in sorted(names & commit.objects.keys()):
        _check_object(check, plan, commit, name, staged, buffer)


def _check_object(check: Check, plan: Plan, commit: Commit, name: str, staged: set[str], buffer: Buffer) -> None:
    """One shard, or the statistics, of one block: where it stands now, its size, its bytes."""
    stored, final = commit.objects[name], object_key(name, commit.block)
    site = None if name == STATISTICS else name
    place = block_rows(plan, commit.block, site)
    key = staged_key(commit.block, commit.attempt, name)
    key = key if key in staged else final
    check.known.update((key, final))
    found = check.read("block", key, place, most=0 if site is not None else stored.num_bytes)
    if found is None:
        return
    wrong_plan = site is not None and plan.compression == "none" and stored.num_bytes != plan.shard(site).shard_bytes
    if found.num_bytes != stored.num_bytes or wrong_plan:
        check.found("block", "size", key, place, f"has {found.num_bytes} bytes, its commit says {stored.num_bytes}")
    elif site is not None:
        _check_shard(check, plan, commit, site, key, stored, buffer)
    elif check.level >= 2 and found.digest != stored.digest:
        check.found("block", "bytes", key, place, "its bytes do not match the digest that was committed")


def _check_shard(
    check: Check, plan: Plan, commit: Commit, site: str, key: str, stored: StoredObject, buffer: Buffer
) -> None:
    if check.level < 1:
        return
    source = shard_source(check.objects, plan, attempt=commit.attempt, block=commit.block, site=site)
    for damage in check_shard(source, key, stored, every_byte=check.level >= 2, buffer=buffer):
        place = shard_rows(plan, commit.block, site, damage.chunks)
        check.found("block", damage.kind, key, place, damage.message)
