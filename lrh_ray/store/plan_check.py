"""Check identity and plan of a store: do its own files give the plan that claimed it, and is each as it was sealed?"""

from collections.abc import Mapping

from lrh_ray.errors import PathUnusable, StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.checking import Check, check_file, size_of
from lrh_ray.store.plan import (
    FORMAT,
    FORMAT_VERSION,
    IDENTITY,
    SEALED,
    SHAPE,
    TABLE,
    Plan,
    claim_of,
    read_plan,
    restore_plan,
)
from lrh_ray.store.streams import digest_object
from lrh_ray.store.touched import all_rows


def check_identity(check: Check) -> Plan | None:
    """The plan, if its own files give one; with findings where they, or what claims and seals them, disagree.

    Raises:
        StoreMissing: None of the records is there.
        StoreConflict: Another release's store.
    """
    claim = check.record("identity", IDENTITY, all_rows(None))
    check.sealed = check.record("plan", SEALED, all_rows(None))
    shape = check.record("plan", SHAPE, all_rows(None))
    check.known.add(TABLE)
    nothing = claim is None and check.sealed is None and shape is None and not check.findings
    if nothing or _is_other_release(claim):
        read_plan(check.objects)  # raises
    plan = _restored(check, shape)
    if plan is not None and _is_outvoted(plan, claim, check.sealed):
        check.found("plan", "record", SHAPE, all_rows(plan), f"is another plan than {IDENTITY} and {SEALED} name")
        return None
    check.locate(plan)
    if claim is None and not check.blames(IDENTITY):
        check.found("identity", "missing", IDENTITY, all_rows(plan), "is missing")
    if claim is not None and plan is not None and claim != claim_of(plan):
        check.found("identity", "record", IDENTITY, all_rows(plan), f"names another plan than {SHAPE}")
    if check.sealed is None and not check.blames(SEALED):
        message = "is missing: the plan was never finished, or was damaged"
        check.found("plan", "missing", SEALED, all_rows(plan), message)
    return plan


def _is_other_release(claim: Mapping[str, Plain] | None) -> bool:
    if claim is None or "format" not in claim:
        return False  # not a claim at all, which is damage
    return (claim["format"], claim.get("version")) != (FORMAT, FORMAT_VERSION)


def _is_outvoted(plan: Plan, claim: Mapping[str, Plain] | None, sealed: Mapping[str, Plain] | None) -> bool:
    """Do the two records beside the plan agree on another one?"""
    others = {None if record is None else str(record.get("plan")) for record in (claim, sealed)}
    return len(others) == 1 and not others & {None, "None", plan.digest}


def _restored(check: Check, shape: Mapping[str, Plain] | None) -> Plan | None:
    """The plan from its own files, or findings about those that are damaged."""
    if shape is None:
        if not check.blames(SHAPE):
            check.found("plan", "missing", SHAPE, all_rows(None), "is missing")
        return None
    try:
        return restore_plan(check.objects, shape)
    except (StoreCorrupt, PathUnusable, OSError) as error:
        if not check.objects.stages and isinstance(error, PathUnusable):
            raise
        for key in (TABLE, SHAPE):
            if not _matches(check, key):
                check.found("plan", "bytes", key, all_rows(None), str(error))
        if not (check.blames(TABLE) or check.blames(SHAPE)):
            check.found("plan", "bytes", SHAPE, all_rows(None), str(error))
    return None


def _matches(check: Check, key: str) -> bool:
    """Is this object the one that was sealed? True where that cannot be known."""
    files = (check.sealed or {}).get("files")
    facts = files.get(key) if isinstance(files, dict) else None
    if not isinstance(facts, dict):
        return True
    try:
        found = digest_object(check.objects, key, size_of(facts))
    except (PathUnusable, OSError):
        return False
    return found is not None and found.digest == facts.get("digest")


def check_plan_files(check: Check, plan: Plan | None) -> None:
    """Every object that existed before the first row, against what `plan/sealed.json` says."""
    if check.sealed is None:
        return  # told already
    files = check.sealed.get("files")
    other_plan = plan is not None and check.sealed.get("plan") != plan.digest
    if other_plan or not isinstance(files, dict) or not {SHAPE, TABLE} <= files.keys():
        check.found("plan", "record", SEALED, all_rows(plan), "is not the record of this plan's files")
        return
    for key, facts in files.items():
        if not check.blames(key):
            check_file(check, "plan", plan, key, facts)
