"""SAELens' cached activations as a source: a folder of Arrow files, as its CacheActivationsRunner leaves it.

The runner saves a Hugging Face data set with one row per example: a column per hook (`blocks.5.hook_resid_post`, say)
of shape [context, width], and `token_ids` [context]; early versions leave folders `shard_0`, `shard_1`, ... without
token ids. Each example becomes one pseudo-document named by its number. Arrow files are mapped and record batches used
in place, so nothing is copied before a block is written; pyarrow is enough, the library `datasets` is not needed.

A cache that was made with `shuffle` mixes rows of different texts inside an example: its token ids still belong to
their rows, its positions are only places in the example. The provenance says so if the runner's own settings are there.

What can go wrong: not such a folder, or examples of different lengths (`SourceUnusable`).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lrh_ray.errors import SourceUnusable
from lrh_ray.store.foreign_source import STORED, ForeignSource, Part, make_part, same_arrays

STATE = "state.json"
SETTINGS = "cache_activations_runner_cfg.json"
TOLD = ("model_name", "hook_name", "dataset_path", "context_size", "dtype", "shuffle", "prepend_bos")
TOKENS = "token_ids"


def is_cache(folder: Path) -> bool:
    return (folder / STATE).is_file() or (folder / "shard_0" / STATE).is_file()


def open_cache(folder: Path) -> ForeignSource:
    """Parts with one site per hook; a part is one record batch.

    Raises:
        SourceUnusable: Damaged files, examples of different lengths, or columns no store holds.
    """
    files = _data_files(folder)
    parts: list[Part] = []
    examples = 0
    for batch in (batch for path in files.values() for batch in _batches(path)):
        parts.append(_part(batch, examples))
        examples += batch.num_rows
    return ForeignSource(kind="saelens", parts=same_arrays(parts), files=files, facts=_settings(folder))


def _data_files(folder: Path) -> dict[str, Path]:
    """Arrow files in order: as `state.json` lists them, shard after shard."""
    shards = sorted(folder.glob("shard_*/"), key=lambda path: (len(path.name), path.name))
    found: dict[str, Path] = {}
    for place in [folder] if (folder / STATE).is_file() else shards:
        for name in _listed(place):
            found[(place / name).relative_to(folder).as_posix()] = place / name
    return found


def _listed(folder: Path) -> list[str]:
    try:
        names = [entry["filename"] for entry in json.loads((folder / STATE).read_bytes())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceUnusable(
            f"{folder / STATE} does not list data files ({error}). Save the data set again."
        ) from error
    if outside := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise SourceUnusable(f"{folder / STATE} names {outside[0]!r}, which is not a file of its folder.")
    return names


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from pa.ipc.open_stream(pa.memory_map(str(path)))
    except (pa.ArrowException, OSError) as error:
        raise SourceUnusable(f"{path.name} is no intact Arrow file ({error}). Copy it again.") from error


def _part(batch: pa.RecordBatch, first: int) -> Part:
    names = ["example " + str(first + number) for number in range(batch.num_rows)]
    columns = {name: _plain(batch.column(name)) for name in batch.schema.names}
    arrays = {name: _rows(name, column) for name, column in columns.items() if _is_activations(column.type)}
    if not arrays:
        raise SourceUnusable(f"No column holds activations [context, width]; there are {', '.join(columns)}.")
    keys = {"token_id": _values(TOKENS, columns[TOKENS])} if TOKENS in columns else {}
    num_rows = len(next(iter(arrays.values())))
    context, rest = divmod(num_rows, batch.num_rows)
    part = make_part(f"examples {first}..{first + batch.num_rows - 1}", arrays, keys, max(1, context))
    if rest or len(part.documents) != batch.num_rows:
        raise SourceUnusable(f"{part.name}: {num_rows} rows in {batch.num_rows} examples; their lengths must be equal.")
    return Part(name=part.name, arrays=arrays, documents=tuple(names), lengths=part.lengths, token_id=part.token_id)


def _plain(column: pa.Array) -> pa.Array:
    """Without the extension type that the library datasets registers, when it happens to be imported."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_activations(kind: pa.DataType) -> bool:
    return _is_list(kind) and _is_list(kind.value_type) and bool(pa.types.is_floating(kind.value_type.value_type))


def _rows(name: str, column: pa.Array) -> np.ndarray:
    """[examples, context, width] as [rows, width], in place."""
    rows = column.flatten()
    values = _values(name, rows)
    if values.dtype not in STORED:
        return values.reshape(1, -1)  # refused by make_part, which names the data type
    width, rest = divmod(len(values), max(1, len(rows)))
    widths = {len(row) for row in (rows[0], rows[-1])} if len(rows) else {0}
    if rest or widths != {width}:
        raise SourceUnusable(
            f"Column {name!r}: rows have different widths. Save it with a fixed shape [context, width]."
        )
    return values.reshape(-1, width)


def _values(name: str, column: pa.Array) -> np.ndarray:
    flat = column.flatten()
    if column.null_count or flat.null_count or _is_list(flat.type):
        raise SourceUnusable(f"Column {name!r} has empty cells or another rank than expected.")
    return np.asarray(flat.to_numpy(zero_copy_only=True))


def _settings(folder: Path) -> dict[str, Any]:
    """The runner's own words about the rows; names only, never its credentials."""
    try:
        found = json.loads((folder / SETTINGS).read_bytes())
        return {name: found[name] for name in TOLD if isinstance(found.get(name), str | int | float | bool)}
    except (OSError, ValueError, AttributeError):
        return {}
