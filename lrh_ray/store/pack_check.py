"""Read commit records of which some may be damaged: the good ones, and what is wrong with the others.

`read_commits` of `lrh_ray.store.commits` refuses a store with one damaged record, as a reader must. A check and a
repair need the rest: every line of the pack and every record is judged alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from lrh_ray.digests import DIGEST_LENGTH
from lrh_ray.errors import PathUnusable, StoreCorrupt
from lrh_ray.store.commit_records import Commit, decode_commit
from lrh_ray.store.commits import PACK, read_standing
from lrh_ray.store.lines import read_lines
from lrh_ray.store.objects import Objects
from lrh_ray.store.stamps import unstamp

SPARE_LINES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PackReading:
    """What the pack holds: commits of good lines, and complaints about the rest."""

    commits: dict[int, Commit]
    complaints: tuple[str, ...]
    num_bytes: int
    digest: str


def read_damaged_pack(objects: Objects, num_blocks: int) -> PackReading | None:
    """Every good line of the pack; None if there is no pack."""
    if objects.get(PACK, 0, 0) is None:
        return None
    commits: dict[int, Commit] = {}
    complaints: list[str] = []
    hasher, num_bytes = blake3(), 0
    try:
        for number, line in enumerate(read_lines(objects, PACK), 1):
            hasher.update(line)
            num_bytes += len(line)
            try:
                commit = packed_commit(line, number, num_blocks)
                if commit.block in commits:
                    raise StoreCorrupt(f"line {number} repeats block {commit.block}")
                commits[commit.block] = commit
            except StoreCorrupt as error:
                complaints.append(str(error))
                if len(complaints) > num_blocks + SPARE_LINES:
                    raise StoreCorrupt(f"{PACK} has far more lines than the plan has blocks") from error
    except StoreCorrupt as error:
        complaints.append(str(error))
    return PackReading(
        commits=commits,
        complaints=tuple(complaints),
        num_bytes=num_bytes,
        digest=hasher.hexdigest()[:DIGEST_LENGTH],
    )


def packed_commit(line: bytes, number: int, num_blocks: int) -> Commit:
    """The commit of one line of the pack.

    Raises:
        StoreCorrupt: It is damaged, or of a block that the plan does not have.
    """
    if not line.endswith(b"\n"):
        raise StoreCorrupt(f"line {number} of {PACK} has no end")
    record = unstamp(line[:-1], f"{PACK}, line {number}")
    if record.get("state") != "committed":
        raise StoreCorrupt(f"line {number} of {PACK} is no commit")
    commit = decode_commit(record, f"{PACK}, line {number}")
    if not 0 <= commit.block < num_blocks:
        raise StoreCorrupt(f"line {number} of {PACK} names block {commit.block} of {num_blocks}")
    return commit


def read_own_records(objects: Objects, blocks: Iterable[int]) -> Iterator[tuple[int, Commit | StoreCorrupt | None]]:
    """The record of each block at its own key: a commit, why it cannot be read, or None if it is not committed."""
    for block in blocks:
        try:
            standing = read_standing(objects, block)
        except StoreCorrupt as error:
            yield block, error
            continue
        except PathUnusable as error:
            if not objects.stages:
                raise
            yield block, StoreCorrupt(str(error))
            continue
        yield block, None if standing is None else standing.commit
