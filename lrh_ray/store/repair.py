"""Take damage out of a store, so that the command which wrote it puts back what was there when it is repeated.

    verdict = verify("runs/demo/store", level=2)
    repair("runs/demo/store", verdict).next_step

Every part has one way back, and none of them touches a block that is whole:

    block       its commit is taken back (`drop_block`); the next run computes it again and the root returns
    pack        good lines become records of their own again, the pack goes; blocks without a good line are recomputed
    plan file   the damaged object goes, then `plan/sealed.json`; the next run makes the same plan, and writes what is
                missing
    identity    `dataset.json` is written again from the plan
    seal        statistics and manifest are written again from the blocks: at once, or by the next seal
    labels      sidecars that were added later are left to whoever has them: `lrh label add`

Order keeps every step safe to interrupt: what vouches for an object (its commit, `sealed.json`, the pack) outlives the
object only as long as the damage can still be found, so that a second repair finishes a first one that was killed.

What can go wrong: damage that nothing in the store can mend (a folder that is a link, a plan and its identity both
lost) is returned in `Repaired.left`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from lrh_ray.errors import LrhError, PathUnusable, StoreCorrupt, StoreIncomplete
from lrh_ray.records import Plain
from lrh_ray.store.commit_records import record_key
from lrh_ray.store.commits import PACK, drop_block, restore_record
from lrh_ray.store.findings import Finding, Repaired, Verdict
from lrh_ray.store.objects import Location, Objects, open_objects
from lrh_ray.store.origin import writing_command
from lrh_ray.store.pack_check import PackReading, read_damaged_pack
from lrh_ray.store.plan import IDENTITY, SEALED, Plan, claim_of, restore_plan
from lrh_ray.store.seal import MANIFEST, put_latest, read_manifest, seal
from lrh_ray.store.stamps import stamped
from lrh_ray.store.verify import find_store, verify
from lrh_ray.store.views import name_as_planned


@dataclass(kw_only=True)
class _Work:
    """One repair: the damage by part, and what was done about it."""

    objects: Objects
    verdict: Verdict
    dropped: set[int] = field(default_factory=set)
    removed: list[str] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)

    def of(self, part: str) -> list[Finding]:
        return [finding for finding in self.verdict.findings if finding.part == part]

    def remove(self, key: str) -> None:
        if self.objects.delete(key):
            self.removed.append(key)


def repair(location: Location, verdict: Verdict | None = None) -> Repaired:
    """Repair what a verdict names (by default of a fresh check at level 2); repeating it does no harm.

    Raises:
        StoreMissing: There is no store.
        StoreFull: No space for the records that are written.
    """
    location = find_store(location)
    verdict = verify(location, 2) if verdict is None else verdict
    work = _Work(objects=open_objects(location), verdict=verdict)
    plan = _plan(work.objects)
    if verdict.ok:
        return _repaired(work, plan, needs_extract=bool(verdict.pending))
    work.left += [*work.of("labels"), *work.of("folder")]
    _repair_identity(work, plan)
    if plan is not None:
        _repair_pack(work, plan)
        _repair_blocks(work)
    _repair_plan_files(work, plan)
    sealed_again = plan is not None and _repair_seal(location, work, plan)
    return _repaired(work, plan, needs_extract=not sealed_again)


def _repaired(work: _Work, plan: Plan | None, *, needs_extract: bool) -> Repaired:
    return Repaired(
        dropped=tuple(sorted(work.dropped)),
        removed=tuple(work.removed),
        rewritten=tuple(work.rewritten),
        left=tuple(work.left),
        needs_extract=needs_extract,
        writing_command=writing_command(None if plan is None else plan.identity, work.objects.location),
    )


def _plan(objects: Objects) -> Plan | None:
    try:
        return restore_plan(objects)
    except (LrhError, OSError):
        return None


def _repair_identity(work: _Work, plan: Plan | None) -> None:
    findings = work.of("identity")
    if not findings:
        return
    if plan is None:
        work.left += findings
        return
    _clear_way(work.objects, IDENTITY)
    put_latest(work.objects, IDENTITY, stamped(claim_of(plan)))
    work.rewritten.append(IDENTITY)


def _repair_pack(work: _Work, plan: Plan) -> None:
    """Good lines get records of their own before the pack goes; nothing else remembers those commits."""
    findings = work.of("pack")
    if not findings:
        return
    work.dropped |= {finding.block for finding in findings if finding.block is not None}
    reading = _read_pack(work.objects, plan)
    if reading is None or not (work.dropped or reading.complaints or _is_unreadable(findings)):
        return  # a whole pack of another time than the manifest is written again with it
    try:
        for commit in reading.commits.values():
            restore_record(work.objects, commit)
        work.remove(PACK)
    except PathUnusable:
        if not work.objects.stages:
            raise
        work.left += findings


def _is_unreadable(findings: Iterable[Finding]) -> bool:
    return any(finding.kind == "unreadable" for finding in findings)


def _read_pack(objects: Objects, plan: Plan) -> PackReading | None:
    try:
        return read_damaged_pack(objects, plan.num_blocks)
    except (PathUnusable, OSError):
        return PackReading(commits={}, complaints=("unreadable",), num_bytes=0, digest="")


def _repair_blocks(work: _Work) -> None:
    findings = [finding for finding in work.of("block") if finding.block is not None]
    for block in sorted({cast(int, finding.block) for finding in findings}):
        try:
            _clear_way(work.objects, record_key(block))
            drop_block(work.objects, block)
            work.dropped.add(block)
        except (PathUnusable, OSError) as error:
            if not work.objects.stages:
                raise
            work.left += [finding for finding in findings if finding.block == block]
            del error


def _clear_way(objects: Objects, key: str) -> None:
    """Remove what stands at a key without being a file: a link, a pipe."""
    if not objects.stages:
        return
    try:
        objects.get(key, 0, 0)
    except PathUnusable:
        objects.delete(key)


def _repair_plan_files(work: _Work, plan: Plan | None) -> None:
    """Damaged objects first, the record that vouches for them last: between the two, a check still finds the gap."""
    findings = work.of("plan")
    if not findings:
        return
    if plan is not None:
        name_as_planned(work.objects, plan)
    for finding in sorted(findings, key=lambda finding: finding.key == SEALED):
        if finding.key != SEALED:
            _remove_damaged(work, finding)
    if not any(finding.part == "plan" for finding in work.left):
        work.remove(SEALED)


def _remove_damaged(work: _Work, finding: Finding) -> None:
    try:
        work.remove(finding.key)
    except (PathUnusable, OSError):
        if not work.objects.stages:
            raise
        work.left.append(finding)


def _repair_seal(location: Location, work: _Work, plan: Plan) -> bool:
    """Write again what the seal wrote, if all it needs is whole; True if the store is sealed and whole now."""
    findings = work.of("seal")
    for finding in findings:
        if finding.key == MANIFEST and finding.kind != "missing":
            work.remove(MANIFEST)
        elif finding.kind == "unreadable":
            _clear_way(work.objects, finding.key)
    manifest = _manifest(work.objects)
    if manifest is None or work.dropped or work.of("plan") or work.of("folder"):
        return False
    if not findings and not work.of("pack"):
        return True
    try:
        parity = cast(Mapping[str, Plain], manifest["parity"])
        seal(location, plan, parity=parity, allow_missing=bool(manifest["missing"]))
    except StoreIncomplete:
        return False
    except (StoreCorrupt, PathUnusable):
        work.left += [*findings, *work.of("pack")]
        return False
    work.rewritten += sorted({finding.key for finding in (*findings, *work.of("pack"))} - {MANIFEST})
    return True


def _manifest(objects: Objects) -> Mapping[str, Plain] | None:
    try:
        return read_manifest(objects)
    except (LrhError, OSError):
        return None
