"""Commit records: the only truth about which blocks exist.

A block is committed by one put-if-absent of `commits/<folder>/<block>.json`, which names the attempt that won and, for
each of its objects, size and digest. The first attempt wins; a loser discards its staging, so no block ever mixes two
attempts. Publishing then renames each staged object to its final name. That is idempotent and may be redone by anyone:
a killed publisher is finished by the next start. A zombie never gets there, because only the committed attempt's files
are published.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from lrh_ray.digests import canonical_json, digest_json
from lrh_ray.durable import make_folder, sync_folder
from lrh_ray.errors import StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.objects import put_if_absent
from lrh_ray.store.plan import Plan, read_json
from lrh_ray.store.tree import shard_path

FOLDER_SIZE = 1000
STATISTICS = "statistics"
STAGED_NAME = re.compile(r"(\d{8})\.([0-9a-f]{1,32})\.(.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One published file of a block: a site's shard, or the block's statistics."""

    num_bytes: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The record of one block. `objects` maps each site, and "statistics", to its file."""

    block: int
    attempt: str
    valid_rows: int
    objects: Mapping[str, StoredObject]
    nonfinite: Mapping[str, int]
    index_crc32c: Mapping[str, int]
    seconds: float
    worker: str
    software: Mapping[str, str]


def commit_path(root: Path, block: int) -> Path:
    return root / "commits" / f"{block // FOLDER_SIZE:05d}" / f"{block:08d}.json"


def statistics_path(root: Path, block: int) -> Path:
    return root / STATISTICS / f"{block // FOLDER_SIZE:05d}" / f"{block:08d}.safetensors"


def object_path(root: Path, name: str, block: int) -> Path:
    return statistics_path(root, block) if name == STATISTICS else shard_path(root, name, block)


def staged_path(root: Path, block: int, attempt: str, name: str) -> Path:
    return root / "staging" / f"{block:08d}.{attempt}.{name}"


def write_commit(root: Path, commit: Commit) -> bool:
    """Commit a block; True if the record that stands is this attempt's.

    The record is read back, because a link may have succeeded although the call failed or said otherwise.
    """
    try:
        if put_if_absent(commit_path(root, commit.block), canonical_json(asdict(commit))):
            return True
    except OSError:
        if not is_committed_by(root, commit.block, commit.attempt):
            raise
    return is_committed_by(root, commit.block, commit.attempt)


def is_committed_by(root: Path, block: int, attempt: str) -> bool:
    standing = read_commit(root, block)
    return standing is not None and standing.attempt == attempt


def read_commit(root: Path, block: int) -> Commit | None:
    path = commit_path(root, block)
    if not path.exists():
        return None
    record = read_json(path)
    objects = cast(Mapping[str, Mapping[str, object]], record["objects"])
    return Commit(**{**record, "objects": {name: StoredObject(**entry) for name, entry in objects.items()}})  # type: ignore[arg-type]


def read_commits(root: Path) -> dict[int, Commit]:
    """All commit records, by block."""
    found = {}
    for path in sorted((root / "commits").glob("*/*.json")):
        commit = read_commit(root, int(path.stem))
        if commit is not None:
            found[commit.block] = commit
    return found


def pending_blocks(root: Path, plan: Plan) -> tuple[int, ...]:
    return tuple(block for block in range(plan.num_blocks) if not commit_path(root, block).exists())


def publish(root: Path, commit: Commit) -> None:
    """Give every object of a committed block its final name; safe to repeat, by anyone, at any time.

    The staged file of the committed attempt is the truth and replaces whatever stands at the final name (a damaged
    shard whose commit was dropped, say). No other attempt is ever published, so a zombie has nothing to replace with.

    Raises:
        StoreCorrupt: A committed object is neither staged nor published, or has another size.
    """
    for name, stored in commit.objects.items():
        final = object_path(root, name, commit.block)
        _rename_staged(staged_path(root, commit.block, commit.attempt, name), final)
        if final.stat().st_size != stored.num_bytes:
            raise StoreCorrupt(
                f"Block {commit.block}, {name!r}: {final} has {final.stat().st_size} bytes, its commit record says "
                f"{stored.num_bytes}. Remove {commit_path(root, commit.block)} and repeat `lrh extract CONFIG`; only "
                f"that block is computed again."
            )


def _rename_staged(staged: Path, final: Path) -> None:
    try:
        make_folder(final.parent)
        staged.rename(final)
    except FileNotFoundError as error:
        if not final.exists():
            raise StoreCorrupt(
                f"{final} is committed and neither published nor staged; it was deleted by hand. Remove its commit "
                f"record and repeat `lrh extract CONFIG`; only that block is computed again."
            ) from error
        return
    sync_folder(final.parent)


def recover(root: Path) -> int:
    """Finish what a killed run left: publish every committed block, sweep dead staging. Returns files swept."""
    for commit in read_commits(root).values():
        publish(root, commit)
    return sum(_sweep(root, path) for path in _staged_files(root))


def _staged_files(root: Path) -> Iterator[Path]:
    folder = root / "staging"
    yield from sorted(path for path in folder.glob("*") if STAGED_NAME.fullmatch(path.name)) if folder.is_dir() else []


def _sweep(root: Path, path: Path) -> bool:
    """Delete a staged file unless a living writer holds its lock, or its attempt has committed meanwhile."""
    block, attempt, _ = path.name.split(".", 2)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        commit = read_commit(root, int(block))  # under the lock: this attempt can no longer commit
        if commit is not None and commit.attempt == attempt:
            publish(root, commit)
            return False
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def discard_attempt(root: Path, block: int, attempt: str) -> None:
    """Remove the staged files of an attempt that lost or failed."""
    for path in (root / "staging").glob(f"{block:08d}.{attempt}.*"):
        path.unlink(missing_ok=True)
    sync_folder(root / "staging")


def root_digest(plan: Plan, commits: Mapping[int, Commit]) -> str:
    """Digest of a store's content: the plan and, per block and site, valid rows, object length and file digest.

    Attempt, worker, time and software stay outside, so an interrupted run and an undisturbed one agree.
    """
    table: list[Plain] = [
        [block, site.name, commits[block].valid_rows, stored.num_bytes, stored.digest]
        for block in sorted(commits)
        for site in plan.sites
        for stored in [commits[block].objects[site.name]]
    ]
    return digest_json({"plan": plan.digest, "objects": table})
