"""Hold a store against itself: is everything there, does every byte match, and if not, which rows are touched?

    verdict = verify("runs/demo/store", level=2)
    verdict.ok, [finding.describe() for finding in verdict.findings]

    level 0   every object that the plan, the commits and the manifest name is there with its size; records are intact
    level 1   and the index of every shard is the one that was committed
    level 2   and every byte of every object matches its checksum or digest

What stands for what: `dataset.json` and the records under `plan/` must give the plan's digest; `plan/sealed.json` holds
the digest of every object that existed before the first row; a commit holds those of its block's objects; the
manifest holds the root over all commits, and the digests of what the seal wrote. Each record carries its own stamp. So
any single change contradicts something, and the key of the object tells the rows (`lrh_ray.store.touched`).

A level-3 check, which needs the model, is `lrh_ray.studies.reextraction`. What can go wrong: no store at all is
`StoreMissing`; a remote service that does not answer is `PathUnusable` and no finding. Memory is constant in the size
of objects; it grows with the number of blocks (their commits).
"""

import time
from collections.abc import Callable

from lrh_ray.errors import PathUnusable
from lrh_ray.store.block_check import check_blocks, check_commits
from lrh_ray.store.checking import Check
from lrh_ray.store.commit_records import Commit
from lrh_ray.store.findings import Level, Verdict
from lrh_ray.store.objects import Location, Objects, child, open_objects
from lrh_ray.store.plan import IDENTITY, SEALED, SHAPE
from lrh_ray.store.plan_check import check_identity, check_plan_files
from lrh_ray.store.seal_check import check_labels, check_sealed, litter, read_sealed


def verify(location: Location, level: Level = 2, *, on_progress: Callable[[int], None] | None = None) -> Verdict:
    """Check a store at one level (0, 1 or 2); damage is a finding, never an exception.

    Args:
        location: Folder or URL of the store, or of its run.
        level: 0 completeness, 1 and the index of each shard, 2 and every byte.
        on_progress: Called with the number of bytes of each object that was checked, from any thread.

    Raises:
        StoreMissing: There is no store.
        StoreConflict: A store of another format version.
    """
    started = time.monotonic()
    check = Check(objects=open_objects(find_store(location)), level=level, on_progress=on_progress)
    check.plan = plan = check_identity(check)
    entries = list(check.objects.list(""))
    commits: dict[int, Commit] = {}
    pending: tuple[int, ...] = ()
    sealed = False
    check_plan_files(check, plan)
    if plan is not None:
        manifest = read_sealed(check, plan)
        found = check_commits(check, plan, manifest)
        check_blocks(check, plan, found.commits)
        check_sealed(check, plan, manifest, found)
        check_labels(check, plan)
        commits, pending, sealed = found.commits, found.pending, manifest is not None
    order = sorted(check.findings, key=lambda found: (found.key, found.rows or (0, 0)))
    return Verdict(
        location=check.objects.location,
        level=level,
        sealed=sealed,
        findings=tuple(order),
        pending=pending,
        litter=tuple(litter(check, entries)) if plan is not None else (),
        num_objects=check.num_objects,
        num_bytes=check.num_bytes,
        num_blocks=len(commits),
        seconds=time.monotonic() - started,
    )


def find_store(location: Location) -> Location:
    """The place itself, or the folder `store` in it where that is a run's."""
    inside = child(location, "store")
    return location if _has_store(open_objects(location)) or not _has_store(open_objects(inside)) else inside


def _has_store(objects: Objects) -> bool:
    """Is any of the records there that only a store has? One of them may be damaged or lost."""
    try:
        return any(objects.get(key, 0, 0) is not None for key in (IDENTITY, SEALED, SHAPE))
    except PathUnusable:
        return objects.stages
