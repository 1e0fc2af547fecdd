"""Break one thing in a sealed store, and know which rows that touched.

    lab = CorruptionLab("runs/demo/store", older=["backup/store"])
    damage = lab.corrupt(seed=7)             # None: this seed would change nothing
    ...                                      # verify must find it, at `damage.harms`
    damage.undo()

One seed is one corruption: a kind of object, an object of that kind, and one of

    flip       one bit anywhere, in data, checksums, indices, metadata, records
    truncate   cut anywhere, to nothing too
    extend     bytes or zeros after the end
    delete     the object is gone
    swap       two objects of one kind change places
    stale      the same key's object of another store: another attempt, another plan, an older seal
    zero       as many zero bytes, as after a crash of a file system

The truth about the rows is worked out here from the store's format alone (keys, the Zarr metadata, the lines of the
pack), never with the code that checks. It works on anything `open_objects` opens; bytes of the touched objects are kept
in memory until they are put back.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from lrh_ray.store.objects import Location, Objects, open_objects

How: TypeAlias = Literal["flip", "truncate", "extend", "delete", "swap", "stale", "zero"]
HOW: tuple[How, ...] = ("flip", "truncate", "extend", "delete", "swap", "stale", "zero")
PACK = "commits/packed.jsonl"
CRC_BYTES, INDEX_ENTRY_BYTES = 4, 16

KINDS = {
    "shard": r"data\.zarr/acts/(?P<site>[^/]+)/c/(?P<block>\d+)/0",
    "statistics": r"statistics/\d{5}/(?P<block>\d{8})\.safetensors",
    "record of a block": r"commits/\d{5}/(?P<block>\d{8})\.json",
    "pack": r"commits/packed\.jsonl",
    "column": r"data\.zarr/(?P<array>token_id|position|doc|char_start|char_end)/c/(?P<chunk>\d+)",
    "norms": r"data\.zarr/(?P<array>norms/(?P<site>[^/]+))/c/(?P<chunk>\d+)",
    "merged statistics": r"data\.zarr/stats/(?P<site>[^/]+)/[^/]+/c/0",
    "documents": r"data\.zarr/docs/[^/]+/c/.+",
    "metadata of a site": r"data\.zarr/(acts|norms|stats)/(?P<site>[^/]+)/(.+/)?zarr\.json",
    "metadata": r"data\.zarr/.*zarr\.json",
    "table": r"(plan/documents|labels/corpus)\.parquet",
    "plan": r"plan/(table\.npy|plan\.json|config\.yaml)",
    "record": r"plan/sealed\.json|dataset\.json|manifest\.json",
}
"""Kinds of objects by their keys, the first that matches; objects of one kind may be swapped."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Harm:
    """Rows that one corrupted object stands for."""

    key: str
    block: int | None
    site: str | None
    rows: tuple[int, int]
    """First and last."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption that was done, and how to take it back."""

    how: How
    kind: str
    harms: tuple[Harm, ...]
    objects: Objects
    before: dict[str, bytes]
    """The touched objects as they were."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.before)

    def undo(self) -> None:
        """Put back what was there."""
        for key, data in self.before.items():
            _write(self.objects, key, data)


class CorruptionLab:
    """Corruptions of one store. The store may be in any state when `corrupt` is called; its keys are listed once."""

    def __init__(self, location: Location, *, older: Sequence[Location] = ()) -> None:
        self._objects = open_objects(location)
        self._older = [open_objects(place) for place in older]
        self._keys: dict[str, list[str]] = {}
        for entry in sorted(self._objects.list(""), key=lambda entry: entry.key):
            kind = kind_of(entry.key)
            if kind is not None:
                self._keys.setdefault(kind, []).append(entry.key)
        shape = json.loads(self._read("plan/plan.json"))
        self._rows_per_block, self._chunk_rows = int(shape["rows_per_block"]), int(shape["chunk_rows"])
        self.num_rows = self._rows_per_block * int(shape["num_blocks"])
        metadata = json.loads(self._read("data.zarr/zarr.json"))["consolidated_metadata"]["metadata"]
        self._array_chunks = {
            name: int(entry["chunk_grid"]["configuration"]["chunk_shape"][0])
            for name, entry in metadata.items()
            if entry["node_type"] == "array"
        }

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of objects that this store has."""
        return tuple(self._keys)

    def corrupt(self, seed: int) -> Corruption | None:
        """Do one corruption, a pure function of the seed and the store; None where it would change nothing."""
        rng = np.random.default_rng(seed)
        kind = str(rng.choice(sorted(self._keys)))
        how: How = HOW[int(rng.integers(len(HOW)))]
        keys = self._keys[kind]
        key = keys[int(rng.integers(len(keys)))]
        before = self._read(key)
        if how == "swap":
            return self._swap(kind, key, [other for other in keys if other != key], rng)
        after = self._changed(how, key, before, rng)
        if after == before:
            return None
        harms = self._harms(how, kind, key, before, after)
        _write(self._objects, key, after)
        return Corruption(how=how, kind=kind, harms=harms, objects=self._objects, before={key: before})

    def _swap(self, kind: str, key: str, others: list[str], rng: np.random.Generator) -> Corruption | None:
        if not others:
            return None
        other = others[int(rng.integers(len(others)))]
        one, two = self._read(key), self._read(other)
        if one == two:
            return None
        harms = (*self._harms("swap", kind, key, one, two), *self._harms("swap", kind, other, two, one))
        _write(self._objects, key, two)
        _write(self._objects, other, one)
        return Corruption(how="swap", kind=kind, harms=harms, objects=self._objects, before={key: one, other: two})

    def _changed(self, how: How, key: str, data: bytes, rng: np.random.Generator) -> bytes | None:
        """What the object becomes; None: it is gone."""
        if how == "delete":
            return None
        if how == "stale":
            found = self._older[int(rng.integers(len(self._older)))].get(key) if self._older else None
            return data if found is None else found.data
        if how == "flip" and data:
            place = int(rng.integers(len(data)))
            return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]
        if how == "truncate" and data:
            return data[: int(rng.integers(len(data)))]
        if how == "extend":
            more = rng.bytes(int(rng.integers(1, 65)))
            return data + (bytes(len(more)) if rng.integers(2) else more)
        return bytes(len(data))

    def _harms(self, how: How, kind: str, key: str, before: bytes, after: bytes | None) -> tuple[Harm, ...]:
        match = re.fullmatch(KINDS[kind], key)
        names = {} if match is None else match.groupdict()
        site = names.get("site")
        if kind == "pack" and how != "stale":
            lost = _lost_lines(before, after or b"")
            if lost:
                return tuple(Harm(key=key, block=block, site=None, rows=self._block_rows(block)) for block in lost)
        if names.get("block") is not None:
            block = int(names["block"])
            rows = self._block_rows(block)
            if kind == "shard" and how == "flip" and after is not None:
                rows = self._flipped_rows(block, before, after)
            return (Harm(key=key, block=block, site=site, rows=rows),)
        if names.get("chunk") is not None:
            size, chunk = self._array_chunks[names["array"]], int(names["chunk"])
            return (Harm(key=key, block=None, site=site, rows=(chunk * size, self._last(chunk * size + size))),)
        return (Harm(key=key, block=None, site=site, rows=(0, self.num_rows - 1)),)

    def _block_rows(self, block: int) -> tuple[int, int]:
        return block * self._rows_per_block, (block + 1) * self._rows_per_block - 1

    def _last(self, stop: int) -> int:
        return min(stop, self.num_rows) - 1

    def _flipped_rows(self, block: int, before: bytes, after: bytes) -> tuple[int, int]:
        """The chunk of the byte that differs, by the shard's own index; all rows where it is the index itself."""
        place = next(i for i, (one, two) in enumerate(zip(before, after, strict=True)) if one != two)
        num_chunks = self._rows_per_block // self._chunk_rows
        start = len(before) - CRC_BYTES - num_chunks * INDEX_ENTRY_BYTES
        index = np.frombuffer(before[start:-CRC_BYTES], dtype="<u8").reshape(-1, 2).tolist()
        first = block * self._rows_per_block
        for chunk, (offset, length) in enumerate(index):
            if offset <= place < offset + length:
                return first + chunk * self._chunk_rows, first + (chunk + 1) * self._chunk_rows - 1
        return self._block_rows(block)

    def _read(self, key: str) -> bytes:
        found = self._objects.get(key)
        return b"" if found is None else found.data


def kind_of(key: str) -> str | None:
    """The kind of an object; None for what is no part of a store."""
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, key)), None)


def _lost_lines(before: bytes, after: bytes) -> list[int]:
    """Blocks whose line of the pack does not stand there any more."""
    standing = set(after.splitlines(keepends=True))
    return [json.loads(line)["block"] for line in before.splitlines(keepends=True) if line not in standing]


def _write(objects: Objects, key: str, data: bytes | None) -> None:
    """Make an object hold `data`, or be gone."""
    found = objects.get(key, 0, 0)
    if data is None:
        objects.delete(key)
    else:
        objects.put(key, data, over=None if found is None else found.tag)


def corrupt(location: Location, seed: int, *, older: Sequence[Location] = ()) -> Corruption | None:
    """One seeded corruption of a store; None where this seed would change nothing."""
    return CorruptionLab(location, older=older).corrupt(seed)
