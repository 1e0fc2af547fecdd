"""Facts about the machine and the software, without which no figure means anything."""

import importlib.metadata as metadata
import os
import platform
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "lrh-ray",
    "numpy",
    "zarr",
    "zarrs",
    "numcodecs",
    "tensorstore",
    "safetensors",
    "pyarrow",
    "datasets",
    "crc32c",
    "blake3",
    "ml_dtypes",
)


def machine_facts() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def file_system(folder: Path) -> str:
    """Type of the file system on which a folder stands."""
    folder = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype) if mounts else "unknown"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
