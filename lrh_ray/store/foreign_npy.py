"""`.npy` files as a source: one array [rows, width], mapped; keys in files beside it.

    acts.npy              [rows, width] float32 or float16 (or uint16 bits of bfloat16, with bits="bfloat16")
    acts.token_id.npy     [rows] integers; optional, as are:
    acts.position.npy     [rows]
    acts.doc.npy          [rows] document numbers, equal numbers together; or
    acts.lengths.npy      [documents] rows of each document, in order

Several such files in a folder are parts of one site, in the order of their names. Pickled arrays are never loaded.
"""

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from lrh_ray.errors import SourceUnusable
from lrh_ray.store.foreign_source import KEYS, ForeignSource, Part, make_part, same_arrays

SITE = "acts"


def open_npy(files: Sequence[Path], *, rows_per_document: int, bits: str | None) -> ForeignSource:
    """Parts of one site, named by the file if there is one.

    Raises:
        SourceUnusable: A file that is no plain array of activations, or keys that do not fit.
    """
    mains = [path for path in files if not _is_key(path)]
    site = mains[0].stem if len(mains) == 1 else SITE
    used, parts = {}, []
    for path in mains:
        beside = {key: path.with_suffix(f".{key}.npy") for key in KEYS}
        found = {key: side for key, side in beside.items() if side.is_file()}
        used.update({file.name: file for file in (path, *found.values())})
        parts.append(_part(path, site, found, rows_per_document, bits))
    return ForeignSource(kind="npy", parts=same_arrays(parts), files=used, facts={})


def _is_key(path: Path) -> bool:
    return path.suffixes[-2:-1] != [] and path.suffixes[-2][1:] in KEYS


def _part(path: Path, site: str, sides: dict[str, Path], rows_per_document: int, bits: str | None) -> Part:
    keys = {key: map_npy(side) for key, side in sides.items()}
    return make_part(path.name, {site: as_floats(map_npy(path), bits)}, keys, rows_per_document)


def map_npy(path: Path) -> np.ndarray:
    """The array of a file, mapped read-only.

    Raises:
        SourceUnusable: No `.npy` file, a damaged one, or one that holds pickled objects.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise SourceUnusable(
            f"{path.name} is no plain .npy array ({error}). Arrays of Python objects are not read; save numbers."
        ) from error


def as_floats(array: np.ndarray, bits: str | None) -> np.ndarray:
    """The array itself, or the bfloat16 its 16-bit integers stand for; little-endian either way."""
    if bits == "bfloat16" and array.dtype.itemsize == 2 and array.dtype.kind in "uV":
        return array.view(ml_dtypes.bfloat16)
    return array
