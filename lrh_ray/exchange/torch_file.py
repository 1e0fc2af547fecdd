"""Tensors of a `torch.save` file, without unpickling it; and such a file from tensors.

    read_tensors(Path("trainer_0/ae.pt"))["encoder.weight"]

The file is a zip: `data.pkl` says which tensors there are, `data/0`, `data/1` … are their bytes. A pickle is a program
that may call anything. Here it is never run: the standard library's disassembler lists its instructions, and those few
that build tensors, dictionaries, tuples and numbers are followed on plain data. A name of a function is a word; three
words are understood, and any other makes the file `CheckpointBroken`.

What can go wrong: files of torch before 1.6 are no zips; load them with torch and save them again.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrh_ray.errors import CheckpointBroken
from lrh_ray.exchange.files import require_file

STORAGES: Mapping[str, str] = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": "<u2",
    "torch IntStorage": "<i4",
    "torch LongStorage": "<i8",
}
BFLOAT16 = "torch BFloat16Storage"
DICTIONARY = "collections OrderedDict"
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"


class _Unclear(Exception):
    """An instruction, a name or a number that a file of tensors does not have."""


_DAMAGE = (
    _Unclear,
    zipfile.BadZipFile,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    OSError,
    EOFError,
)
"""Whatever following a file that is cut, changed, encrypted or of another kind can end in."""

_MARK = object()


@dataclass(frozen=True, slots=True)
class _Word:
    """The name of a class or function; nobody looks it up."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class _Storage:
    """Numbers of one file of the zip."""

    numbers: np.ndarray


def read_tensors(place: Path) -> dict[str, np.ndarray]:
    """The dictionary of tensors that the file is; floats keep their type, but bfloat16 becomes float32.

    Raises:
        CheckpointMissing: No such file.
        CheckpointBroken: Anything but one dictionary of tensors.
    """
    require_file(place)
    try:
        with zipfile.ZipFile(place) as archive:
            found = _Machine(archive).run()
    except _DAMAGE as error:
        raise CheckpointBroken(
            f"{place} is not a file of tensors by torch.save ({type(error).__name__}: {error}). Load it where you trust"
            f" it, and save its state_dict again with torch.save."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, np.ndarray) for tensor in found.values()):
        held = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise CheckpointBroken(
            f"{place} holds more than tensors: {held}. It may be a backup made in the course of training; the file of "
            f"the same name that is written at the end is wanted."
        )
    return found


def tensors_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The bytes that `torch.save` writes of these tensors."""
    buffer = io.BytesIO()
    torch.save({name: torch.tensor(tensor) for name, tensor in tensors.items()}, buffer)
    return buffer.getvalue()


class _Machine:
    """Follows the instructions of one pickle on plain data."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        (index,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        self._archive, self._root = archive, index.removesuffix("data.pkl")
        self._program = self._bytes("data.pkl")
        if f"{self._root}byteorder" in archive.namelist() and self._bytes("byteorder") != b"little":
            raise _Unclear("it was written on a machine of another byte order")
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def _bytes(self, name: str) -> bytes:
        about = self._archive.getinfo(self._root + name)
        if about.compress_type != zipfile.ZIP_STORED:
            raise _Unclear(f"{name} is compressed")
        return self._archive.read(about)

    def run(self) -> Any:
        for instruction, argument, _ in pickletools.genops(self._program):
            if instruction.name == "STOP":
                (found,) = self._stack
                return found
            self._follow(instruction.name, argument)
        raise _Unclear("no end")

    def _follow(self, name: str, argument: Any) -> None:
        """All instructions that a file of tensors needs."""
        stack = self._stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWFALSE" | "NEWTRUE":
                stack.append({"NONE": None, "NEWFALSE": False, "NEWTRUE": True}[name])
            case "MARK":
                stack.append(_MARK)
            case "GLOBAL":
                stack.append(_Word(argument))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(self._last(int(name[-1])))
            case "TUPLE":
                stack.append(self._since_mark())
            case "SETITEM":
                self._put(self._last(2))
            case "SETITEMS":
                self._put(self._since_mark())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            case "REDUCE":
                word, arguments = self._last(2)
                stack.append(_called(word, arguments))
            case "BUILD":  # attributes of the dictionary, versions of modules, which only they read
                stack.pop()
            case _:
                raise _Unclear(f"the instruction {name}")

    def _last(self, count: int) -> tuple[Any, ...]:
        found = tuple(self._stack[-count:])
        del self._stack[-count:]
        return found

    def _since_mark(self) -> tuple[Any, ...]:
        place = max(number for number, value in enumerate(self._stack) if value is _MARK)
        found = tuple(self._stack[place + 1 :])
        del self._stack[place:]
        return found

    def _put(self, pairs: tuple[Any, ...]) -> None:
        self._stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def _storage(self, word: str, kind: _Word, key: str, device: str, count: int) -> _Storage:  # noqa: ARG002  # any device
        if word != "storage" or kind.name not in STORAGES:
            raise _Unclear(f"a storage of {kind!r}; known: {', '.join(STORAGES)}")
        numbers = np.frombuffer(self._bytes(f"data/{key}"), STORAGES[kind.name])
        if len(numbers) != count:
            raise _Unclear(f"{len(numbers)} numbers in data/{key} instead of {count}")
        wide = (numbers.astype("<u4") << 16).view("<f4") if kind.name == BFLOAT16 else numbers
        return _Storage(wide)


def _called(word: _Word, arguments: tuple[Any, ...]) -> Any:
    """What one of the three functions would give."""
    if word.name == DICTIONARY and not arguments:
        return {}
    if word.name == TENSOR:
        return _tensor(*arguments[:4])
    if word.name == PARAMETER and isinstance(arguments[0], np.ndarray):
        return arguments[0]
    raise _Unclear(f"a call of {word.name}")


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """A tensor out of its storage, after its last number was found to be inside."""
    numbers = storage.numbers
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)) or len(shape) != len(strides):
        raise _Unclear(f"a tensor of shape {shape}, strides {strides}, from {offset}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if (math.prod(shape) and last >= len(numbers)) or math.prod(shape) > len(numbers):
        raise _Unclear(f"a tensor of shape {shape} beyond the end of its {len(numbers)} numbers")
    steps = tuple(step * numbers.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()
