"""What a foreign file offers, in one shape: parts with named arrays [rows, width], keys, and pseudo-documents.

Every kind of source (`foreign_npy`, `foreign_safetensors`, `foreign_arrow`) becomes a list of `Part`s: files, or pieces
of files, whose arrays are mapped from disk and read by slices, so memory does not grow with the source. Rows of all
parts, one after the other, are the rows to import. Documents never straddle parts.

A source without documents gets pseudo-documents of `rows_per_document` rows, named by file and row range; so a plan of
the import is a pure function of the files and that number.

What is refused, each with its own message (`SourceUnusable`): data types no store holds (float64, integers, objects),
ranks other than 2, no rows, keys or documents whose lengths do not fit, arrays that differ between files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from lrh_ray.errors import SourceUnusable

STORED = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
}
KEYS = ("token_id", "position", "doc", "lengths")
UNKNOWN_TOKEN = -1
ROWS_PER_DOCUMENT = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Rows that stand together: a file, or a piece of one."""

    name: str
    arrays: Mapping[str, np.ndarray]
    """Mapped, [rows, width] each; one data type."""
    documents: tuple[str, ...]
    lengths: np.ndarray
    """[documents] int64, in order; they add up to the rows."""
    token_id: np.ndarray | None = None
    position: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        return int(self.lengths.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignSource:
    """Everything an import knows before it writes."""

    kind: str
    parts: tuple[Part, ...]
    files: Mapping[str, Path]
    """Data files by the names that enter the digest."""
    facts: Mapping[str, str | int | float | bool | None]
    """What the source says about itself (model, hook); goes into the provenance."""

    @property
    def widths(self) -> dict[str, int]:
        return {name: int(array.shape[1]) for name, array in self.parts[0].arrays.items()}

    @property
    def dtype(self) -> str:
        return STORED[next(iter(self.parts[0].arrays.values())).dtype]


def make_part(
    name: str,
    arrays: Mapping[str, np.ndarray],
    keys: Mapping[str, np.ndarray],
    rows_per_document: int = ROWS_PER_DOCUMENT,
) -> Part:
    """A part from mapped arrays and the keys that stand beside them, checked.

    Raises:
        SourceUnusable: See the head of this file.
    """
    for array, values in arrays.items():
        _check_array(name, array, values)
    num_rows = _same_rows(name, arrays)
    for key in ("token_id", "position", "doc"):
        if key in keys:
            _check_key(name, key, keys[key], num_rows)
    documents, lengths = _documents(name, num_rows, keys, rows_per_document)
    return Part(
        name=name,
        arrays=arrays,
        documents=documents,
        lengths=lengths,
        token_id=_int32(name, "token_id", keys.get("token_id")),
        position=_int32(name, "position", keys.get("position")),
    )


def _check_array(part: str, name: str, array: np.ndarray) -> None:
    if array.dtype not in STORED:
        raise SourceUnusable(
            f"{part}: {name!r} holds {array.dtype}; stores hold {', '.join(STORED.values())}. Convert it first, for "
            f"example array.astype('float32'). Raw bits of bfloat16 are read with bits='bfloat16'."
        )
    if array.ndim != 2:
        raise SourceUnusable(f"{part}: {name!r} has shape {array.shape}; activations are [rows, width]. Reshape it.")
    if 0 in array.shape:
        raise SourceUnusable(f"{part}: {name!r} has shape {array.shape}, so there is nothing to import.")


def _same_rows(part: str, arrays: Mapping[str, np.ndarray]) -> int:
    counts = {name: len(array) for name, array in arrays.items()}
    if not counts:
        raise SourceUnusable(f"{part} holds no activations: no array [rows, width] of floating-point numbers.")
    if len(set(counts.values())) > 1:
        raise SourceUnusable(f"{part}: arrays of one store share their rows, and these do not: {counts}.")
    if len({array.dtype for array in arrays.values()}) > 1:
        kinds = {name: str(array.dtype) for name, array in arrays.items()}
        raise SourceUnusable(f"{part}: a store has one data type, and these differ: {kinds}. Import them apart.")
    return next(iter(counts.values()))


def _check_key(part: str, name: str, values: np.ndarray, num_rows: int) -> None:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise SourceUnusable(f"{part}: {name} must be whole numbers [rows]; it is {values.dtype} {values.shape}.")
    if len(values) != num_rows:
        raise SourceUnusable(f"{part}: {name} has {len(values)} entries and the activations {num_rows} rows.")


def _int32(part: str, name: str, values: np.ndarray | None) -> np.ndarray | None:
    if values is None:
        return None
    if len(values) and (int(values.max()) > np.iinfo(np.int32).max or int(values.min()) < UNKNOWN_TOKEN):
        raise SourceUnusable(f"{part}: {name} has values from {values.min()} to {values.max()}; it must be a count.")
    return np.asarray(values, dtype=np.int32)


def _documents(
    part: str, num_rows: int, keys: Mapping[str, np.ndarray], rows_per_document: int
) -> tuple[tuple[str, ...], np.ndarray]:
    if "doc" in keys and "lengths" in keys:
        raise SourceUnusable(f"{part}: documents are given twice, by `doc` and by `lengths`. Remove one of them.")
    if "doc" in keys:
        return _by_doc(part, np.asarray(keys["doc"]))
    if "lengths" in keys:
        lengths = _checked_lengths(part, np.asarray(keys["lengths"]), num_rows)
    else:
        if rows_per_document < 1:
            raise SourceUnusable(f"rows_per_document is {rows_per_document}; it must be at least 1.")
        lengths = np.full(-(-num_rows // rows_per_document), rows_per_document, dtype=np.int64)
        lengths[-1] = num_rows - rows_per_document * (len(lengths) - 1)
    ends = np.cumsum(lengths)
    names = zip((ends - lengths).tolist(), (ends - 1).tolist(), strict=True)
    return tuple(f"{part}:{first}-{last}" for first, last in names), lengths


def _checked_lengths(part: str, lengths: np.ndarray, num_rows: int) -> np.ndarray:
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (len(lengths) and int(lengths.min()) < 1):
        raise SourceUnusable(f"{part}: lengths must be whole numbers of at least 1; they are {lengths.dtype}.")
    if int(lengths.sum()) != num_rows:
        raise SourceUnusable(
            f"{part}: lengths add up to {int(lengths.sum())} and the activations have {num_rows} rows."
        )
    return lengths.astype(np.int64)


def _by_doc(part: str, doc: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Documents are the runs of equal numbers."""
    first = np.flatnonzero(np.append(True, doc[1:] != doc[:-1]))
    numbers = doc[first].tolist()
    number, runs = Counter(numbers).most_common(1)[0]
    if runs > 1:
        raise SourceUnusable(f"{part}: rows of document {number} do not stand together. Sort the rows by document.")
    return tuple(f"{part}:{number}" for number in numbers), np.diff(first, append=len(doc)).astype(np.int64)


def same_arrays(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts, if all of them offer the same arrays.

    Raises:
        SourceUnusable: No parts, or two that differ in names, widths or data type.
    """
    if not parts:
        raise SourceUnusable("There are no files to import.")
    first = _signature(parts[0])
    for part in parts:
        if (found := _signature(part)) != first:
            raise SourceUnusable(
                f"{part.name} holds {found} and {parts[0].name} holds {first}; files of one import share "
                f"their arrays. Import them apart."
            )
    return tuple(parts)


def _signature(part: Part) -> dict[str, str]:
    return {name: f"{STORED[array.dtype]} x {array.shape[1]}" for name, array in sorted(part.arrays.items())}
