"""What every part of a check shares: where it looks, what it found, and how one object is held against a record.

Damage of an object is a finding, never an exception; on a remote store a request that failed says nothing about the
object and is passed on.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from lrh_ray.errors import PathUnusable, StoreCorrupt
from lrh_ray.records import Plain
from lrh_ray.store.findings import Finding, Kind, Level, Part
from lrh_ray.store.objects import Entry, Objects
from lrh_ray.store.plan import Plan
from lrh_ray.store.stamps import read_record
from lrh_ray.store.streams import Digested, digest_object
from lrh_ray.store.touched import Touched, all_rows, touched_by
from lrh_ray.store.views import is_view_of


@dataclass(kw_only=True)
class Check:
    """What one run of `verify` looks at, and what it has found so far; methods may be called from any thread."""

    objects: Objects
    level: Level
    on_progress: Callable[[int], None] | None
    plan: Plan | None = None
    sealed: Mapping[str, Plain] | None = None
    """Content of `plan/sealed.json`, if it is intact."""
    findings: list[Finding] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    num_objects: int = 0
    num_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def found(self, part: Part, kind: Kind, key: str, place: Touched, message: str) -> None:
        finding = Finding(
            part=part, kind=kind, key=key, block=place.block, site=place.site, rows=place.rows, message=message
        )
        with self.lock:
            self.findings.append(finding)

    def count(self, num_bytes: int) -> None:
        with self.lock:
            self.num_objects += 1
            self.num_bytes += num_bytes
        if self.on_progress is not None:
            self.on_progress(num_bytes)

    def read(self, part: Part, key: str, place: Touched, *, most: int) -> Digested | None:
        """Size of an object, and its digest at level 2; None, with a finding, where it cannot be read.

        What is longer than `most` bytes, which its record says, is not read.
        """
        try:
            found = digest_object(self.objects, key, most if self.level >= 2 else 0)
        except (PathUnusable, OSError) as error:
            if not self.objects.stages:
                raise  # a service that does not answer says nothing about its objects
            self.found(part, "unreadable", key, place, str(error))
            return None
        if found is None:
            self.found(part, "missing", key, place, "is missing")
        else:
            self.count(found.num_bytes)
        return found

    def record(self, part: Part, key: str, place: Touched) -> dict[str, Plain] | None:
        """A stamped record; None where there is none. One that is damaged is a finding and None."""
        self.known.add(key)
        try:
            return read_record(self.objects, key)
        except StoreCorrupt as error:
            self.found(part, "record", key, place, str(error))
        except (PathUnusable, OSError) as error:
            if not self.objects.stages:
                raise
            self.found(part, "unreadable", key, place, str(error))
        return None

    def listing(self, folder: str) -> list[Entry]:
        """Objects in a folder of the store; none, with a finding, where the folder is a link."""
        try:
            return list(self.objects.list(folder))
        except PathUnusable as error:
            if not self.objects.stages:
                raise
            self.found("folder", "unreadable", folder, all_rows(self.plan), str(error))
            return []

    def locate(self, plan: Plan | None) -> None:
        """Fill in the rows of what was found before the plan was known."""
        rows = all_rows(plan).rows
        self.findings = [replace(finding, rows=finding.rows or rows) for finding in self.findings]

    def blames(self, key: str) -> bool:
        """Is there a finding about this object already?"""
        return any(finding.key == key for finding in self.findings)


def size_of(facts: object) -> int:
    """What a record says about an object's size."""
    size = facts.get("bytes") if isinstance(facts, dict) else None
    return size if isinstance(size, int) and size >= 0 else 0


def check_file(check: Check, part: Part, plan: Plan | None, key: str, facts: object) -> None:
    """One object of which a record holds size and digest."""
    check.known.add(key)
    place = all_rows(None) if plan is None else touched_by(plan, key)
    if not isinstance(facts, dict):
        check.found(part, "record", key, place, "has no size and digest in the record that names it")
        return
    found = check.read(part, key, place, most=size_of(facts))
    if found is None:
        return
    size, digest = facts.get("bytes"), facts.get("digest")
    same = found.num_bytes == size and (check.level < 2 or found.digest == digest)
    viewed = key.endswith("/zarr.json") and (
        plan is None or plan.dtype == "bfloat16"
    )  # may name its elements by their bits
    if same or (viewed and is_view_of(check.objects, key, digest)):
        return
    if found.num_bytes != size:
        check.found(part, "size", key, place, f"has {found.num_bytes} bytes instead of {size}")
    else:
        check.found(part, "bytes", key, place, "its bytes do not match the digest that was recorded")
