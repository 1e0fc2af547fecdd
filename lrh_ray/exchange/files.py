"""Files of an autoencoder: read with one clear error for whatever is not as the format says, written whole or not.

    weights = Weights.of_safetensors(folder / "sae_weights.safetensors")
    d, m = weights.matrix("W_enc")
    found = weights.take({"W_enc": (d, m), "b_enc": (m,)})         # float32; nothing missing, nothing unknown

A tensor nobody asked for is an error as well: a skip connection or a gate that is left out changes every code. Whatever
type a file has, numbers come as float32.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from lrh_ray.durable import disk_errors, make_folder, sync_folder, write_durably
from lrh_ray.errors import CheckpointBroken, CheckpointMissing, PathUnusable


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Weights:
    """Tensors of one file, by name."""

    place: Path
    found: Mapping[str, np.ndarray]

    @classmethod
    def of_safetensors(cls, place: Path) -> "Weights":
        """All tensors of a safetensors file; bfloat16 becomes float32 exactly."""
        require_file(place)
        try:
            with safe_open(place, framework="pt") as file:
                found = {name: _array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise CheckpointBroken(f"{place} cannot be read as safetensors ({error}). Fetch it again.") from error
        return cls(place=place, found=found)

    @classmethod
    def of_npz(cls, place: Path) -> "Weights":
        """All arrays of an npz file; pickled objects in it are refused."""
        require_file(place)
        try:
            with place.open("rb") as raw, np.load(raw) as file:
                found = {name: file[name] for name in file.files}
        except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise CheckpointBroken(f"{place} cannot be read as npz ({error}). Fetch it again.") from error
        return cls(place=place, found=found)

    def without(self, names: Iterable[str]) -> "Weights":
        """The same without some that say nothing."""
        dropped = set(names)
        return Weights(place=self.place, found={n: a for n, a in self.found.items() if n not in dropped})

    def matrix(self, name: str) -> tuple[int, int]:
        """Shape of a matrix."""
        self._require(name)
        shape = self.found[name].shape
        if len(shape) != 2 or 0 in shape:
            raise CheckpointBroken(f"{name} in {self.place} has the shape {list(shape)}; a matrix is wanted.")
        return shape

    def scalar(self, name: str) -> float:
        """The number in a tensor of one."""
        self._require(name)
        if self.found[name].size != 1:
            raise CheckpointBroken(
                f"{name} in {self.place} has the shape {list(self.found[name].shape)}; one number is wanted."
            )
        return float(self.found[name].item())

    def take(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Exactly these tensors, float32 and contiguous.

        Raises:
            CheckpointBroken: One is missing, has another shape, or there is one more.
        """
        for name, shape in shapes.items():
            self._require(name)
            if self.found[name].shape != shape:
                raise CheckpointBroken(
                    f"{name} in {self.place} has the shape {list(self.found[name].shape)}; {list(shape)} is wanted."
                )
        if unknown := sorted(set(self.found) - set(shapes)):
            raise CheckpointBroken(
                f"{self.place} has tensors that this architecture has not: {', '.join(unknown)}. Leaving them out "
                f"would change its codes. It has {', '.join(shapes)}."
            )
        return {name: np.ascontiguousarray(self.found[name], np.float32) for name in shapes}

    def _require(self, name: str) -> None:
        if name not in self.found:
            raise CheckpointBroken(f"{self.place} has no tensor {name!r}. It has: {', '.join(sorted(self.found))}.")


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def require_file(place: Path) -> None:
    """A file that is there.

    Raises:
        CheckpointMissing: It is not; what stands in the folder is named.
    """
    if not place.is_file():
        there = ", ".join(sorted(path.name for path in place.parent.iterdir())) if place.parent.is_dir() else "nothing"
        raise CheckpointMissing(f"No file {place}. The folder has: {there or 'nothing'}.")


def read_settings(place: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointMissing: No such file.
        CheckpointBroken: Something else.
    """
    require_file(place)
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointBroken(f"{place} is not JSON ({error}). Fetch it again.") from error
    if not isinstance(found, dict):
        raise CheckpointBroken(f"{place} holds {type(found).__name__}; an object of settings is wanted.")
    return found


def whole_number(settings: Mapping[str, Any], name: str, place: Path) -> int:
    """A setting that counts something."""
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointBroken(f"{name} is {value!r} in {place}; a whole number from 1 is wanted.")
    return value


def text(value: object) -> str | None:
    """A name, or nothing."""
    return value if isinstance(value, str) else None


def as_json(settings: Mapping[str, Any]) -> bytes:
    """Bytes of a settings file."""
    return (json.dumps(settings, indent=2, allow_nan=False) + "\n").encode("utf-8")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write into a new or empty folder.

    Raises:
        PathUnusable: It has something already, or cannot be written.
        StoreFull: The disk is full.
    """
    with disk_errors(f"the autoencoder {str(folder)!r}"):
        make_folder(folder)
        if there := sorted(path.name for path in folder.iterdir()):
            raise PathUnusable(f"{folder} is not empty: {', '.join(there[:5])}. Name a new folder.")
        for name, data in files.items():
            write_durably(folder / name, data)
        sync_folder(folder)
