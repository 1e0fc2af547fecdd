"""Results on disk: a folder per question, published whole or not at all.

A result must survive a crash, a full disk and two jobs that answer the same question at once, and a stranger must be
able to read it in ten years. So its address is the digest of the question (`kind`, `resolved`, `inputs`, format
version), its numbers are strict JSON, and its arrays are safetensors. Both files are written and synced in a hidden
folder, arrays first, and one rename makes the folder visible: the file system refuses to rename onto a folder that
holds something, which is put-if-absent for the whole result. (Two linked files would leave a gap: the arrays of a
killed run beside the numbers of its successor.)

    path = save_result(result, Path("runs/demo/results"))
    again = load_result(path)

JSON has no name for NaN and infinity: such a number is stored as null, and `not_finite` names its place and what it
was, so that the round trip stays exact. In `resolved` they are refused, because a question must have one digest.

What can go wrong: a full disk is a `StoreFull` and leaves nothing visible; a missing result is a `ResultMissing`;
files that contradict their digests are a `StoreCorrupt`. Byte order and memory layout of arrays are not kept (they
come back native and C-contiguous), and sequences inside `asked`, `resolved` and `provenance` come back as lists.
The format, field by field: `docs/results.md`.
"""

import errno
import json
import math
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from lrh_ray.digests import digest_bytes, digest_json
from lrh_ray.durable import disk_errors, make_folder, sync_folder, write_durably
from lrh_ray.errors import ConfigError, ResultMissing, StoreCorrupt
from lrh_ray.records import Measure, Result, Table

FORMAT = "lrh_ray.result"
FORMAT_VERSION = 1
RESULT_FILE = "result.json"
ARRAYS_FILE = "arrays.safetensors"
ARRAY_KINDS = "bool, int8-64, uint8-64, float16-64"

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY}
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def result_digest(result: Result) -> str:
    """Digest of the question: kind, resolved configuration, inputs and format version; the answer does not count."""
    question = {"kind": result.kind, "resolved": _plain(result.resolved), "inputs": _plain(result.inputs)}
    try:
        return digest_json({**question, "format": FORMAT, "version": FORMAT_VERSION})
    except ValueError as error:
        raise ConfigError(
            f"The resolved configuration of {result.title!r} has no digest ({error}). Only finite numbers and valid "
            f"text are allowed there; correct the setting that became something else."
        ) from error


def standing_result(question: Result, folder: Path) -> Path | None:
    """The folder of the answer to a question among the results in `folder`; None if it was not answered yet."""
    standing = folder / result_digest(question)
    return standing if (standing / "result.json").exists() else None


def save_result(result: Result, folder: Path) -> Path:
    """Publish a result as `folder/<digest>` and return that path; a standing answer to the question is kept.

    Raises `StoreFull` when the disk refuses the bytes, `ConfigError` when the question or an array cannot be stored,
    and `StoreCorrupt` when the place is taken by something that is not a result. In every case nothing became visible.
    """
    digest = result_digest(result)
    place = folder / digest
    if (place / RESULT_FILE).is_file():
        return place
    arrays = save_arrays({name: _storable(name, array) for name, array in result.arrays.items()})
    document = _document(result, digest, digest_bytes(arrays))
    staging = folder / f".{digest}.{uuid.uuid4().hex}"
    with disk_errors(f"the result {str(place)!r}"):
        try:
            make_folder(staging)
            write_durably(staging / ARRAYS_FILE, arrays)
            write_durably(staging / RESULT_FILE, document)
            sync_folder(staging)
            _publish(staging, place)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return place


def load_result(path: str | Path) -> Result:
    """Read a result from its folder or its `result.json`; digests are verified before anything is believed."""
    given = Path(path)
    place = given.parent if given.name == RESULT_FILE else given
    tree = _read_document(place)
    data = _read_bytes(place / ARRAYS_FILE)
    if digest_bytes(data) != tree["arrays_digest"]:
        raise _corrupt(place, f"{ARRAYS_FILE} does not match the digest in {RESULT_FILE}")
    try:
        result = _result(tree["result"], load_arrays(data))
    except (KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _corrupt(place, f"its fields are not those of format version {FORMAT_VERSION} ({error!r})") from error
    if result_digest(result) != tree["digest"]:
        raise _corrupt(place, "its question does not match its digest")
    return result


def find_results(folder: Path) -> tuple[Path, ...]:
    """The published results directly under `folder`, in the order of their digests; none if the folder is missing."""
    found = (path.parent for path in folder.glob(f"*/{RESULT_FILE}"))
    return tuple(sorted(place for place in found if not place.name.startswith(".")))


def _document(result: Result, digest: str, arrays_digest: str) -> bytes:
    not_finite: dict[str, str] = {}
    names = [field.name for field in fields(Result) if field.name != "arrays"]
    body = {name: _strict(_plain(getattr(result, name)), f"/{name}", not_finite) for name in names}
    tree = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "digest": digest,
        "arrays_digest": arrays_digest,
        "content_digest": _content_digest(body, not_finite),
        "not_finite": not_finite,
        "result": body,
    }
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode("ascii")


def _content_digest(body: object, not_finite: object) -> str:
    """Digest of what the file says; ASCII escapes, so that any text a document can hold has one."""
    text = json.dumps([body, not_finite], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return digest_bytes(text.encode("ascii"))


def _read_document(place: Path) -> dict[str, Any]:
    raw = _read_bytes(place / RESULT_FILE)
    try:
        tree = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _corrupt(place, f"{RESULT_FILE} is not strict JSON ({error})") from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise ResultMissing(f"{place / RESULT_FILE} is not a result of this package; give the folder of a result.")
    if tree.get("version") != FORMAT_VERSION:
        raise ResultMissing(
            f"{place} holds a result of format version {tree.get('version')!r}; this release reads version "
            f"{FORMAT_VERSION}. Install the release that wrote it, or compute the result again."
        )
    try:
        intact = _content_digest(tree["result"], tree["not_finite"]) == tree["content_digest"]
        if intact:
            _restore(tree["result"], tree["not_finite"])
        keys_stand = {"digest", "arrays_digest"} <= tree.keys()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise _corrupt(place, f"{RESULT_FILE} lacks fields ({error!r})") from error
    if not (intact and keys_stand):
        raise _corrupt(place, f"{RESULT_FILE} does not match its own content digest")
    return tree


def _result(body: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Result:
    measures = tuple(Measure(**{**measure, "flags": tuple(measure["flags"])}) for measure in body["measures"])
    tables = tuple(
        Table(**{**table, "columns": tuple(table["columns"]), "rows": tuple(map(tuple, table["rows"]))})
        for table in body["tables"]
    )
    rebuilt = {"summary": tuple(body["summary"]), "measures": measures, "tables": tables, "arrays": dict(arrays)}
    return Result(**{**body, **rebuilt})


def _plain(value: object) -> Any:
    """Records, mappings and sequences as JSON's dictionaries and lists; NumPy numbers as Python's."""
    if isinstance(value, Measure | Table):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(f"A result cannot hold {value!r} ({type(value).__name__}); use text, numbers, lists, mappings.")


def _strict(value: Any, place: str, not_finite: dict[str, str]) -> Any:
    """`value` with null for each number JSON cannot say; `not_finite` learns its JSON pointer and what it was."""
    if isinstance(value, dict):
        return {key: _strict(item, f"{place}/{_escaped(key)}", not_finite) for key, item in value.items()}
    if isinstance(value, list):
        return [_strict(item, f"{place}/{index}", not_finite) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        not_finite[place] = str(value)
        return None
    return value


def _restore(body: Any, not_finite: Mapping[str, str]) -> None:
    for pointer, name in not_finite.items():
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        branch = body
        for part in parents:
            branch = branch[int(part) if isinstance(branch, list) else part]
        branch[int(last) if isinstance(branch, list) else last] = _NOT_FINITE[name]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    """Native byte order and C layout: safetensors stores the buffer as it lies, whatever the strides say."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8 or name == "__metadata__":
        raise ConfigError(
            f"The array {name!r} of dtype {array.dtype} cannot be stored; allowed: {ARRAY_KINDS}, under any name but "
            f"'__metadata__'. Convert it before it enters the result."
        )
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _publish(staging: Path, place: Path) -> None:
    try:
        staging.rename(place)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        if not (place / RESULT_FILE).is_file():
            raise StoreCorrupt(
                f"{place} is taken by something without a {RESULT_FILE}. Move it away and repeat the command."
            ) from error
        return
    sync_folder(place.parent)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        known = [place.name for place in find_results(path.parent.parent)]
        nearby = f"Results there: {', '.join(known)}." if known else "Run the analysis that makes it."
        raise ResultMissing(f"No result at {str(path.parent)!r}: {path.name} is missing. {nearby}") from error


def _corrupt(place: Path, reason: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The result at {str(place)!r} cannot be trusted: {reason}. Move the folder away and run the analysis again."
    )
