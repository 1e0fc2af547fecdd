"""What a check of a store found, in records that a person, a program and a repair can read.

A `Finding` says which object is wrong, how, and which rows that touches: `block` and `site` are None where all of them
are meant, `rows` is the first and the last row. A `Verdict` is the whole answer of `lrh verify`.

Pending blocks (not committed yet, in a store that was never sealed) and litter (files no reader looks at) are told and
are no damage.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lrh_ray.records import Plain
from lrh_ray.store.objects import Entry

Level: TypeAlias = Literal[0, 1, 2, 3]
Part: TypeAlias = Literal["identity", "plan", "block", "pack", "seal", "labels", "folder"]
"""What a finding breaks, which decides how it is repaired."""
Kind: TypeAlias = Literal["missing", "unreadable", "size", "bytes", "record", "values"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One damage, located."""

    part: Part
    kind: Kind
    """`missing`; `unreadable` (a link, a pipe, an I/O error); `size`; `bytes` (checksum or digest); `record` (not what
    this place holds: broken JSON, another plan, another block); `values` (rows of another model or layer)."""
    key: str
    block: int | None
    """None: not one block."""
    site: str | None
    """None: every site."""
    rows: tuple[int, int] | None
    """First and last row touched; None where the plan itself is unreadable, which touches all of them."""
    message: str

    def as_plain(self) -> dict[str, Plain]:
        return {
            "part": self.part,
            "kind": self.kind,
            "key": self.key,
            "block": self.block,
            "site": self.site,
            "rows": None if self.rows is None else list(self.rows),
            "message": self.message,
        }

    def describe(self) -> str:
        """One line for people."""
        where = ["whole store" if self.block is None and self.site is None else ""]
        where.append("" if self.block is None else f"block {self.block}")
        where.append("" if self.site is None else f"site {self.site}")
        where.append("" if self.rows is None else f"rows {self.rows[0]}..{self.rows[1]}")
        return f"{', '.join(filter(None, where))}: {self.key}: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a check of a store at one level found."""

    location: str
    level: Level
    sealed: bool
    findings: tuple[Finding, ...]
    pending: tuple[int, ...]
    """Blocks that a store which was never sealed has not committed yet."""
    litter: tuple[Entry, ...]
    """Objects that are no part of the store; `lrh gc` knows which of them can go."""
    num_objects: int
    num_bytes: int
    """Bytes read and compared; at level 0 the sizes alone of most objects are."""
    num_blocks: int
    """Committed blocks looked at."""
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def damaged_blocks(self) -> tuple[int, ...]:
        """Blocks whose own files or records are damaged: what a repair drops."""
        return tuple(sorted({finding.block for finding in self.findings if finding.block is not None}))

    def as_plain(self) -> dict[str, Plain]:
        return {
            "store": self.location,
            "level": self.level,
            "ok": self.ok,
            "sealed": self.sealed,
            "findings": [finding.as_plain() for finding in self.findings],
            "damaged_blocks": list(self.damaged_blocks),
            "pending_blocks": list(self.pending),
            "litter": [entry.key for entry in self.litter],
            "blocks": self.num_blocks,
            "objects": self.num_objects,
            "bytes": self.num_bytes,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What a repair did, and what is left to do."""

    dropped: tuple[int, ...]
    """Blocks whose commit was taken back; the command that wrote the store computes them again."""
    removed: tuple[str, ...]
    """Damaged objects that were removed; the command that wrote the store writes them again."""
    rewritten: tuple[str, ...]
    """Damaged objects that were written again from what stands."""
    left: tuple[Finding, ...]
    """Damage that a repair cannot mend."""
    needs_extract: bool
    writing_command: str
    """What computes again what was dropped."""

    def as_plain(self) -> Mapping[str, Plain]:
        return {
            "dropped_blocks": list(self.dropped),
            "removed": list(self.removed),
            "rewritten": list(self.rewritten),
            "left": [finding.as_plain() for finding in self.left],
            "next": self.next_step,
        }

    @property
    def next_step(self) -> str:
        if self.left:
            return "Some damage cannot be repaired from the store; restore the named objects from a copy."
        if self.needs_extract:
            return f"Repeat {self.writing_command}: it computes only what was dropped, and seals the store again."
        return "Nothing: the store is whole."
