"""Find and remove what no reader of a store looks at, and nothing else.

    collect_garbage("runs/demo/store", delete=False).items      # what would go
    collect_garbage("runs/demo/store", delete=True)

    staged      files of attempts that ended without a commit (their lock tells that no writer lives)
    temporary   half of an object that a killed process wrote, older than `grace_seconds`
    probe       what a killed test of conditional writes left
    unnamed     files at the place of a block that no commit names

Never touched: anything a commit, the plan or the manifest names; what a living writer locks; files this package did not
make. Parts of interrupted multipart uploads do not show in a listing: give the bucket a lifecycle rule that aborts
incomplete uploads after a day.

An unnamed file in a bucket may belong to an attempt that is still writing. So its block is taken first, by replacing
the block's record with a dropped state: that attempt can no longer commit. On a file system finals are published after
the commit, so an unnamed one came from outside; it goes only while nobody stages the block.
"""

import re
import time
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from lrh_ray.records import Plain
from lrh_ray.store.commit_records import STATISTICS, object_key, record_key
from lrh_ray.store.commits import Standing, drop_block, publish, read_commit, read_commits, read_standing, staged_files
from lrh_ray.store.objects import TEMPORARY, Entry, LocalObjects, Location, Objects, Tag, open_objects
from lrh_ray.store.plan import Plan, read_plan
from lrh_ray.store.stamps import stamped
from lrh_ray.store.tree import TREE

GRACE_SECONDS = 3600.0
PROBES = "staging/probe-"
PLACE = re.compile(rf"{TREE}/acts/([^/]+)/c/(\d{{1,9}})/0|{STATISTICS}/\d{{5}}/(\d{{8}})\.safetensors")
TRIES = 16

Kind: TypeAlias = Literal["staged", "temporary", "probe", "unnamed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One object that can go."""

    kind: Kind
    key: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """What was found, and whether it was removed."""

    location: str
    items: tuple[Item, ...]
    deleted: bool

    @property
    def num_bytes(self) -> int:
        return sum(item.num_bytes for item in self.items)

    def as_plain(self) -> dict[str, Plain]:
        return {
            "store": self.location,
            "deleted": self.deleted,
            "objects": len(self.items),
            "bytes": self.num_bytes,
            "items": [{"kind": item.kind, "key": item.key, "bytes": item.num_bytes} for item in self.items],
        }


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    """One collection: where, and whether it only looks."""

    objects: Objects
    plan: Plan
    delete: bool
    grace_seconds: float
    items: list[Item] = field(default_factory=list)

    def take(self, kind: Kind, entry: Entry) -> None:
        self.items.append(Item(kind=kind, key=entry.key, num_bytes=entry.num_bytes))


def collect_garbage(location: Location, *, delete: bool, grace_seconds: float = GRACE_SECONDS) -> Garbage:
    """Find garbage, and delete it if asked to; safe beside running writers and readers.

    Args:
        location: Folder or URL of the store.
        delete: False only looks.
        grace_seconds: Age from which a temporary file is dead; a living process keeps one for seconds.

    Raises:
        StoreMissing: No store there.
        StoreCorrupt: Damaged records; what they name is unknown, so nothing is deleted. Verify and repair first.
    """
    objects = open_objects(location)
    sweep = _Sweep(objects=objects, plan=read_plan(objects), delete=delete, grace_seconds=grace_seconds)
    entries = list(objects.list(""))  # before the commits: what is committed later is not in it
    read_commits(objects, sweep.plan.num_blocks)  # raises before anything goes
    _staged(sweep, entries)
    for entry in entries:
        if TEMPORARY.fullmatch(entry.key.rpartition("/")[2]) and _is_old(sweep, entry.key):
            _take(sweep, "temporary", entry)
        elif entry.key.startswith(PROBES):
            _take(sweep, "probe", entry)
    _unnamed(sweep, entries)
    items = tuple(sorted(sweep.items, key=lambda item: item.key))
    return Garbage(location=objects.location, items=items, deleted=delete)


def _take(sweep: _Sweep, kind: Kind, entry: Entry) -> None:
    if not sweep.delete or sweep.objects.delete(entry.key):
        sweep.take(kind, entry)


def _is_old(sweep: _Sweep, key: str) -> bool:
    if not isinstance(sweep.objects, LocalObjects):
        return True  # only file systems have temporary files
    try:
        return time.time() - (sweep.objects.root / key).lstat().st_mtime >= sweep.grace_seconds
    except FileNotFoundError:
        return False


def _staged(sweep: _Sweep, entries: list[Entry]) -> None:
    """Staged files without a living writer; what a committed attempt staged is published instead."""
    objects = sweep.objects
    if not objects.stages:
        return
    sizes = {entry.key: entry for entry in entries}
    for key, block, attempt in sorted(staged_files(objects)):
        unlocked: list[str] = []

        def keep(key: str = key, block: int = block, attempt: str = attempt, seen: list[str] = unlocked) -> bool:
            """Asked under the file's lock."""
            commit = read_commit(objects, block) if block < sweep.plan.num_blocks else None
            if commit is not None and commit.attempt == attempt:
                if sweep.delete:
                    publish(objects, commit)
                return True
            seen.append(key)
            return not sweep.delete

        objects.delete(key, unless=keep)
        if unlocked:
            sweep.take("staged", sizes.get(key, Entry(key=key, num_bytes=0)))


def _unnamed(sweep: _Sweep, entries: list[Entry]) -> None:
    """Files at the places of blocks that no commit names, block by block."""
    suspects: dict[int, list[Entry]] = {}
    committed = read_commits(sweep.objects, sweep.plan.num_blocks)
    for entry in entries:
        block = _block_of(sweep.plan, entry.key)
        if block is not None and block not in committed:
            suspects.setdefault(block, []).append(entry)
    for block, found in sorted(suspects.items()):
        if not sweep.delete:
            for entry in found:
                sweep.take("unnamed", entry)
        elif sweep.objects.stages:
            _remove_final(sweep, block, found)
        else:
            _remove_uploaded(sweep, block, found)


def _block_of(plan: Plan, key: str) -> int | None:
    """The block at whose place an object stands."""
    match = PLACE.fullmatch(key)
    if match is None:
        return None
    name, block = (match[1], int(match[2])) if match[1] else (STATISTICS, int(match[3]))
    known = name == STATISTICS or name in {site.name for site in plan.sites}
    return block if known and block < plan.num_blocks and object_key(name, block) == key else None


def _remove_final(sweep: _Sweep, block: int, found: list[Entry]) -> None:
    """On a file system: unless the block is committed or being staged by now."""
    objects = sweep.objects

    def is_wanted() -> bool:
        staged = any(entry.key.startswith(f"staging/{block:08d}.") for entry in objects.list("staging"))
        return staged or read_commit(objects, block) is not None

    for entry in found:
        if objects.delete(entry.key, unless=is_wanted):
            sweep.take("unnamed", entry)


def _remove_uploaded(sweep: _Sweep, block: int, found: list[Entry]) -> None:
    """In a bucket: take the block, delete, and see that nobody claimed it meanwhile."""
    objects = sweep.objects
    tag = _drop_claim(objects, block)
    if tag is None:
        return
    for entry in found:
        if objects.delete(entry.key):
            sweep.take("unnamed", entry)
    for _ in range(TRIES):
        standing = read_standing(objects, block)
        if standing is None or standing.tag == tag or standing.state == "dropped":
            return
        if standing.state == "committed":
            if not _is_whole(objects, standing):
                drop_block(objects, block)
            return
        _drop_claim(objects, block)  # it may have uploaded what was just deleted: it must start again


def _drop_claim(objects: Objects, block: int) -> Tag | None:
    """Replace a block's record by a dropped state, so that its claimant cannot commit; None if it is committed."""
    for _ in range(TRIES):
        standing = read_standing(objects, block)
        if standing is not None and standing.state == "committed":
            return None
        if standing is not None and standing.state == "dropped":
            return standing.tag
        attempt = "0" if standing is None else standing.attempt
        dropped = stamped({"state": "dropped", "block": block, "attempt": attempt})
        objects.put(record_key(block), dropped, over=None if standing is None else standing.tag)
    return None


def _is_whole(objects: Objects, standing: Standing) -> bool:
    """Are all objects of a commit there?"""
    commit = standing.commit
    if commit is None:
        return False
    found = [(objects.get(object_key(name, commit.block), 0, 0), stored) for name, stored in commit.objects.items()]
    return all(blob is not None and blob.num_bytes == stored.num_bytes for blob, stored in found)
