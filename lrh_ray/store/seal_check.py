"""Check what was written after the blocks: the manifest with the root, merged statistics, sidecars of labels."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from lrh_ray.errors import PathUnusable, StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.block_check import CommitsFound
from lrh_ray.store.checking import Check, check_file
from lrh_ray.store.commit_records import Commit
from lrh_ray.store.commits import PACK, root_digest
from lrh_ray.store.objects import Entry
from lrh_ray.store.plan import Plan
from lrh_ray.store.seal import MANIFEST, check_manifest, read_manifest
from lrh_ray.store.touched import all_rows, block_rows

LABELS_RECORD = re.compile(r"labels/([A-Za-z0-9_-][A-Za-z0-9._-]*)\.json")


def read_sealed(check: Check, plan: Plan) -> dict[str, Plain] | None:
    """The manifest; None where the store is not sealed, or where it is no manifest of this plan, which is a finding."""
    check.known.add(MANIFEST)
    try:
        manifest = read_manifest(check.objects)
        check_manifest(manifest, plan)
    except StoreCorrupt as error:
        check.found("seal", "record", MANIFEST, all_rows(plan), str(error))
        return None
    except (PathUnusable, OSError) as error:
        if not check.objects.stages:
            raise
        check.found("seal", "unreadable", MANIFEST, all_rows(plan), str(error))
        return None
    return manifest


def check_sealed(check: Check, plan: Plan, manifest: Mapping[str, Plain] | None, found: CommitsFound) -> None:
    """Pack and manifest against one another and the commits, once the blocks are checked."""
    for block in found.lost:
        message = "the block's record is missing or damaged; it was sealed as committed"
        check.found("pack", "missing" if found.pack is None else "record", PACK, block_rows(plan, block), message)
    if found.pack is not None:
        check.count(found.pack.num_bytes)
        if found.pack.complaints and not found.lost and not check.blames(PACK):
            check.found("pack", "record", PACK, all_rows(plan), found.pack.complaints[0])
    if manifest is not None:
        _check_root(check, plan, manifest, found)
    elif found.pack is not None and not check.blames(MANIFEST):
        message = "is missing while the commits are packed, so the store is not sealed"
        check.found("seal", "missing", MANIFEST, all_rows(plan), message)


def _check_root(check: Check, plan: Plan, manifest: Mapping[str, Plain], found: CommitsFound) -> None:
    """Where manifest and pack are from two times, the blocks tell which of them is the other one."""
    if found.lost or found.pack is None or check.blames(PACK):
        _check_files(check, plan, manifest)
        return
    files = cast(Mapping[str, object], manifest["files"])
    packed = files.get(PACK)
    same_pack = isinstance(packed, dict) and packed.get("digest") == found.pack.digest
    same_root = _root(plan, found.commits) == manifest["root"]
    if not same_root and not any(finding.part == "block" for finding in check.findings):
        check.found("seal", "record", MANIFEST, all_rows(plan), "its root is not the one that the commits give")
        return  # what it says about other files is from another time, too
    if not same_pack:
        message = f"is not the pack that {MANIFEST} was written for; one of them is from another time"
        check.found("pack", "bytes", PACK, all_rows(plan), message)
    _check_files(check, plan, manifest)


def _root(plan: Plan, commits: Mapping[int, Commit]) -> str | None:
    try:
        return root_digest(plan, commits)
    except KeyError:
        return None  # a commit without one of the plan's sites, which is told with its block


def _check_files(check: Check, plan: Plan, manifest: Mapping[str, Plain]) -> None:
    for key, facts in cast(Mapping[str, object], manifest["files"]).items():
        if key != PACK:
            check_file(check, "seal", plan, key, facts)


def check_labels(check: Check, plan: Plan) -> None:
    """Sidecars that were added later: each has a record with the size and digest of its table."""
    for entry in check.listing("labels"):
        match = LABELS_RECORD.fullmatch(entry.key)
        if match is None:
            continue
        facts = check.record("labels", entry.key, all_rows(plan))
        if facts is not None and facts.get("name") != match[1]:
            check.found("labels", "record", entry.key, all_rows(plan), "is the record of other labels")
        elif facts is not None:
            check_file(check, "labels", plan, f"labels/{match[1]}.parquet", facts)


def litter(check: Check, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Objects that nothing names."""
    for entry in entries:
        name = entry.key.rpartition("/")[2]
        if entry.key not in check.known and (not entry.key.startswith("commits/") or name.startswith(".")):
            yield entry
