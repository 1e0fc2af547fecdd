"""Commit records: the only truth about which blocks exist.

A block is committed by one record, `commits/<folder>/<block>.json`, which names the attempt that won and, for each of
its objects, size and digest. The first attempt wins; a loser discards its files, so no block ever mixes two attempts.

Where attempts are staged inside the store (`Objects.stages`, a POSIX file system) the record is put if absent, and the
winner's files are then renamed to their final keys; that may be redone by anyone, and every start does.

On an object store there is no rename: files go to their final keys before the record exists. Two attempts could then
overwrite one another file by file, so the record's key first holds a CLAIM. An attempt claims the block (put if absent,
or in place of exactly the claim it saw), uploads (put if absent, or over exactly the version it saw after finding its
claim still standing), and turns its claim into the commit by replacing exactly that claim. Whoever lost the claim in
between cannot commit, and cannot overwrite a file of the newer claimant, whose version it has not seen.

At the seal all records are packed into `commits/packed.jsonl`, and the records go. A block is committed when either
holds its record, and the pack comes first: a zombie that wakes after the seal finds its record's key free and may put a
record or a claim there, so whoever put one looks into the pack before it moves or overwrites a file.

Seal and repair (`pack`, `unpack`, `drop_block`) are steps of one driver at a time. Writers, zombies and recoveries may
run beside them, and each may die between any two of its operations.
"""

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lrh_ray.digests import digest_json
from lrh_ray.errors import AttemptSuperseded, StoreConflict, StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.commit_records import (
    STAGED_KEY,
    Commit,
    decode_commit,
    encode_commit,
    object_key,
    record_key,
    staged_key,
)
from lrh_ray.store.fields import require_fields
from lrh_ray.store.objects import Blob, Objects, Tag
from lrh_ray.store.plan import Plan
from lrh_ray.store.stamps import MAX_BYTES, stamped, unstamp

PACK = "commits/packed.jsonl"
MAX_PACK_BYTES = 128 << 20
TRIES = 16
READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What stands at a block's key: who claims or committed it, and the version to replace."""

    state: Literal["claimed", "committed", "dropped"]
    attempt: str
    tag: Tag
    commit: Commit | None


def read_standing(objects: Objects, block: int) -> Standing | None:
    """The record at a block's own key, whatever its state."""
    key = record_key(block)
    found = objects.get(key, 0, MAX_BYTES)
    if found is None:
        return None
    record = unstamp(found.data, key)
    state = record.get("state")
    if state not in ("claimed", "committed", "dropped") or record.get("block") != block:
        raise StoreCorrupt(f"{key} is not the record of block {block}. `lrh verify STORE --repair` drops it.")
    require_fields(record, {"attempt": str}, key)
    commit = decode_commit(record, key) if state == "committed" else None
    return Standing(state=state, attempt=str(record["attempt"]), tag=found.tag, commit=commit)


def read_commit(objects: Objects, block: int) -> Commit | None:
    """The commit of one block, from the pack or from its own key.

    The own key is read before and after the pack: only a record that stood there while the pack did not name the block
    is the truth. What changed between the two readings was changed by a seal, a repair or a commit, so it is read
    again.
    """
    while True:
        standing = read_standing(objects, block)
        packed = _read_packed(objects, block)
        if packed is not None:
            return packed
        again = read_standing(objects, block)
        if again == standing:
            return None if standing is None else standing.commit


def _read_packed(objects: Objects, block: int) -> Commit | None:
    return next((commit for commit in read_pack(objects) if commit.block == block), None)


def read_commits(objects: Objects, num_blocks: int) -> dict[int, Commit]:
    """All commits of a store, by block. Read key by key: a listing may lag behind."""
    while True:
        pack = _get_pack(objects)
        packed = {commit.block: commit for commit in _decode_pack(pack, num_blocks)}
        missing = [block for block in range(num_blocks) if block not in packed]
        if objects.stages:
            found = [read_standing(objects, block) for block in missing]
        else:
            with ThreadPoolExecutor(READERS) as readers:
                found = list(readers.map(lambda block: read_standing(objects, block), missing))
        if not missing or objects.get(PACK, 0, 0) == (pack and replace(pack, data=b"")):
            own = {standing.commit.block: standing.commit for standing in found if standing and standing.commit}
            return dict(sorted({**packed, **own}.items()))


def pending_blocks(objects: Objects, plan: Plan) -> tuple[int, ...]:
    committed = read_commits(objects, plan.num_blocks)
    return tuple(block for block in range(plan.num_blocks) if block not in committed)


def is_committed_by(objects: Objects, block: int, attempt: str) -> bool:
    commit = read_commit(objects, block)
    return commit is not None and commit.attempt == attempt


def commit_block(objects: Objects, commit: Commit, files: Mapping[str, Path]) -> bool:
    """Commit a block whose files are staged and durable; True if the record that stands is this attempt's.

    Raises:
        AttemptSuperseded: A newer attempt took the block over before either had committed.
        StoreCorrupt: A file is missing or has another size than the record says.
    """
    if objects.stages:
        committed = _put_record(objects, commit)
        if committed:
            publish(objects, commit)
        return committed
    claim = _claim(objects, commit)
    if claim is None:
        return False
    for name, path in files.items():
        _upload(objects, object_key(name, commit.block), path, commit)
    return _finish_claim(objects, commit, claim)


def _put_record(objects: Objects, commit: Commit) -> bool:
    """Put the record if absent, and look who stands there: the answer may be lost, and the key free after a seal."""
    _put_doubtful(objects, record_key(commit.block), encode_commit(commit), None)
    return is_committed_by(objects, commit.block, commit.attempt)


def _claim(objects: Objects, commit: Commit) -> Tag | None:
    """Claim a block for this attempt; None if it is committed already."""
    record = stamped({"state": "claimed", "block": commit.block, "attempt": commit.attempt})
    for _ in range(TRIES):
        standing = read_standing(objects, commit.block)
        if standing is not None and standing.state == "committed":
            return None
        if standing is not None and (standing.state, standing.attempt) == ("claimed", commit.attempt):
            return None if _read_packed(objects, commit.block) is not None else standing.tag
        _put_doubtful(objects, record_key(commit.block), record, None if standing is None else standing.tag)
    raise AttemptSuperseded(f"Block {commit.block}: {TRIES} other attempts took it over while this one claimed it.")


def _upload(objects: Objects, key: str, path: Path, commit: Commit) -> None:
    """Put one file at its final key, replacing only versions that were there while the claim was ours."""
    if objects.put(key, path) is not None:
        return
    for _ in range(TRIES):
        standing = objects.get(key, 0, 0)
        _require_claim(objects, commit)  # after looking: a newer claimant's file has a version we have not seen
        if objects.put(key, path, over=None if standing is None else standing.tag) is not None:
            return
    raise AttemptSuperseded(f"Block {commit.block}: {key} was replaced {TRIES} times while this attempt wrote it.")


def _require_claim(objects: Objects, commit: Commit) -> None:
    standing = read_standing(objects, commit.block)
    if standing is None or standing.attempt != commit.attempt or standing.state == "dropped":
        raise AttemptSuperseded(f"Block {commit.block}: attempt {commit.attempt} lost the block to a newer one.")


def _finish_claim(objects: Objects, commit: Commit, claim: Tag) -> bool:
    _put_doubtful(objects, record_key(commit.block), encode_commit(commit), claim)
    standing = read_standing(objects, commit.block)
    if standing is None or standing.state != "committed":
        raise AttemptSuperseded(f"Block {commit.block}: attempt {commit.attempt} lost the block to a newer one.")
    return standing.attempt == commit.attempt


def _put_doubtful(objects: Objects, key: str, data: bytes, over: Tag | None) -> None:
    """A put whose outcome the caller reads back; only an error without effect is passed on."""
    try:
        objects.put(key, data, over=over)
    except (OSError, TimeoutError):
        found = objects.get(key)
        if found is None or found.data != data:
            raise


def publish(objects: Objects, commit: Commit) -> None:
    """Move every file of a committed block to its final key; safe to repeat, by anyone, at any time.

    The staged file of the committed attempt is the truth and replaces whatever stands at the final key. No other
    attempt is ever published, so a zombie has nothing to replace with.

    Raises:
        StoreCorrupt: A committed object is neither staged nor published, or has another size.
    """
    for name, stored in commit.objects.items():
        key = object_key(name, commit.block)
        objects.put(key, Path(staged_key(commit.block, commit.attempt, name)))
        standing = objects.get(key, 0, 0)
        if standing is None or standing.num_bytes != stored.num_bytes:
            found = "is missing" if standing is None else f"has {standing.num_bytes} bytes"
            raise StoreCorrupt(
                f"Block {commit.block}, {name!r}: {key} {found}, its commit record says {stored.num_bytes} bytes. "
                f"`lrh verify STORE --repair` drops the block, and names the command that computes it again."
            )


def recover(objects: Objects, num_blocks: int) -> int:
    """Finish what a killed run left: publish every committed block, sweep dead staging. Returns files swept."""
    if not objects.stages:
        return 0
    staged = sorted(staged_files(objects))
    for block in sorted({block for _, block, _ in staged if block < num_blocks}):
        commit = read_commit(objects, block)
        if commit is not None:
            publish(objects, commit)
    return sum(_sweep(objects, *entry) for entry in staged)


def staged_files(objects: Objects) -> Iterator[tuple[str, int, str]]:
    """Key, block and attempt of every staged file."""
    for entry in objects.list("staging"):
        match = STAGED_KEY.fullmatch(entry.key)
        if match:
            yield entry.key, int(match[1]), match[2]


def _sweep(objects: Objects, key: str, block: int, attempt: str) -> bool:
    """Delete a staged file unless a living writer holds it, or its attempt has committed meanwhile."""

    def committed_meanwhile() -> bool:  # asked under the file's lock: this attempt can no longer commit
        commit = read_commit(objects, block)
        if commit is None or commit.attempt != attempt:
            return False
        publish(objects, commit)
        return True

    return objects.delete(key, unless=committed_meanwhile)


def drop_block(objects: Objects, block: int) -> None:
    """Take a block's commit back, so that the next run computes it again; its files stay until that run replaces them.

    Where files are staged in the store, the record goes under its own lock, and only after every staged file of its
    attempt has been moved: a late publisher of that attempt then finds nothing to move over its successor's files.
    """
    unpack(objects)
    standing = read_damaged_standing(objects, block)
    if standing is None or standing.state == "claimed":
        return
    if objects.stages:
        objects.delete(record_key(block), unless=lambda: not _exhaust(objects, block, standing))
        return
    dropped = stamped({"state": "dropped", "block": block, "attempt": standing.attempt})
    _put_doubtful(objects, record_key(block), dropped, standing.tag)


def _exhaust(objects: Objects, block: int, standing: Standing) -> bool:
    """Leave nothing to publish of a commit; False if another one stands there by now."""
    if read_damaged_standing(objects, block) != standing:
        return False
    for name in [] if standing.commit is None else standing.commit.objects:
        objects.put(object_key(name, block), Path(staged_key(block, standing.attempt, name)))
    return True


def read_damaged_standing(objects: Objects, block: int) -> Standing | None:
    """What stands at a block's key; a record that cannot be read stands as dropped."""
    try:
        return read_standing(objects, block)
    except StoreCorrupt:
        found = objects.get(record_key(block), 0, 0)
        return None if found is None else Standing(state="dropped", attempt="0", tag=found.tag, commit=None)


def pack(objects: Objects, commits: Mapping[int, Commit]) -> None:
    """Replace the records of all blocks by one object; the records go only after the pack is seen to stand.

    Raises:
        StoreConflict: Others changed the pack all the time.
    """
    for _ in range(TRIES):
        standing = objects.get(PACK)
        packed = {**commits, **{commit.block: commit for commit in _decode_pack(standing)}}
        data = b"\n".join(encode_commit(packed[block]) for block in sorted(packed)) + b"\n"
        if standing is not None and standing.data == data:
            break
        _put_doubtful(objects, PACK, data, None if standing is None else standing.tag)
    else:
        raise StoreConflict(f"{PACK} was changed {TRIES} times while it was written. Let one driver seal at a time.")
    for block in packed:
        objects.delete(record_key(block))


def unpack(objects: Objects) -> None:
    """Give every packed commit its own record again; the pack goes last."""
    commits = read_pack(objects)
    for commit in commits:
        restore_record(objects, commit)
    if commits:
        objects.delete(PACK)


def restore_record(objects: Objects, commit: Commit) -> None:
    """Put a packed commit at its own key, in place of what a zombie left there."""
    for _ in range(TRIES):
        standing = read_damaged_standing(objects, commit.block)
        if standing is not None and standing.commit == commit:
            return
        tag = None if standing is None else standing.tag
        _put_doubtful(objects, record_key(commit.block), encode_commit(commit), tag)
    raise StoreConflict(f"The record of block {commit.block} was changed {TRIES} times while it was restored.")


def read_pack(objects: Objects) -> list[Commit]:
    """Commits of the pack, or none.

    Raises:
        StoreCorrupt: A line is damaged.
    """
    return _decode_pack(_get_pack(objects))


def _get_pack(objects: Objects) -> Blob | None:
    found = objects.get(PACK, 0, MAX_PACK_BYTES)
    if found is not None and found.num_bytes > MAX_PACK_BYTES:
        raise StoreCorrupt(f"{PACK} has {found.num_bytes} bytes; the commits of a store have at most {MAX_PACK_BYTES}.")
    return found


def _decode_pack(found: Blob | None, num_blocks: int | None = None) -> list[Commit]:
    """Commits of the pack's lines, each of another block; a stranger's endless pack ends at the first that is not."""
    commits: dict[int, Commit] = {}
    for number, line in enumerate(io.BytesIO(b"" if found is None else found.data), 1):
        key = f"{PACK}, line {number}"
        if len(line) > MAX_BYTES:
            raise StoreCorrupt(f"{key} has {len(line)} bytes; records of a store have at most {MAX_BYTES}.")
        commit = decode_commit(unstamp(line.removesuffix(b"\n"), key), key)
        if commit.block in commits or commit.block < 0 or (num_blocks is not None and commit.block >= num_blocks):
            raise StoreCorrupt(f"{key} names block {commit.block} again, or one that the plan does not have.")
        commits[commit.block] = commit
    return list(commits.values())


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
