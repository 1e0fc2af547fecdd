"""`.safetensors` files as a source: every two-dimensional floating-point tensor is a site, mapped from disk.

Tensors named `token_id`, `position`, `doc`, `lengths` are keys (see `foreign_npy`). Several files are parts with the
same tensors, in the order of their names. The header is first checked by the safetensors library, which also proves
that the tensors lie inside the file; rows are then mapped, because its NumPy side knows no bfloat16.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from lrh_ray.errors import SourceUnusable
from lrh_ray.store.foreign_source import KEYS, ForeignSource, make_part, same_arrays

DTYPES: dict[str, Any] = {
    "BF16": ml_dtypes.bfloat16,
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "U8": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
}


def open_safetensors(files: Sequence[Path], *, rows_per_document: int) -> ForeignSource:
    """Parts with one site per tensor.

    Raises:
        SourceUnusable: A damaged file, tensors no store holds, or keys that do not fit.
    """
    parts = []
    for path in files:
        tensors = map_tensors(path)
        arrays = {name: array for name, array in tensors.items() if name not in KEYS}
        keys = {name: array for name, array in tensors.items() if name in KEYS}
        parts.append(make_part(path.name, arrays, keys, rows_per_document))
    return ForeignSource(
        kind="safetensors", parts=same_arrays(parts), files={path.name: path for path in files}, facts={}
    )


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file as a mapped, read-only array.

    Raises:
        SourceUnusable: Not a safetensors file, a damaged one, or a data type NumPy has no name for.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(file.keys())
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceUnusable(f"{path.name} is no intact safetensors file ({error}). Copy it again.") from error
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    return {name: _tensor(path, data, start, name, header[name]) for name in names}


def _tensor(path: Path, data: np.ndarray, start: int, name: str, facts: dict[str, Any]) -> np.ndarray:
    if facts["dtype"] not in DTYPES:
        raise SourceUnusable(f"{path.name}: {name!r} holds {facts['dtype']}, which is not imported. Convert it first.")
    first, last = facts["data_offsets"]
    return np.asarray(data[start + first : start + last].view(DTYPES[facts["dtype"]]).reshape(facts["shape"]))
