"""What can be wrong with a machine, checked before it costs a day: each check says what to do about it."""

import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lrh_ray.records import Plain

GIB = 1 << 30
NEEDED = {
    "ray": (2, 60),
    "numpy": (2, 2),
    "zarr": (3, 1, 6),
    "numcodecs": (0, 16, 6),
    "torch": (2, 8),
    "transformers": (5, 16),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One finding."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""

    def as_plain(self) -> dict[str, Plain]:
        return asdict(self)


def checks() -> list[Check]:
    """All checks, in the order in which a user would mend them."""
    each: tuple[Callable[[], Check], ...] = (_python, _cpus, _memory, _shared_memory, _disk, _model, _gpu, _token)
    return [each[0](), *(_version(name) for name in NEEDED), *(check() for check in each[1:])]


def print_checks(found: list[Check]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in found:
        colour = colours[check.state]
        table.add_row(f"[{colour}]{check.state}[/{colour}]", check.name, check.found, check.remedy)
    Console().print(table)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Check(
        name="python", state="ok" if good else "fail", found=version, remedy="" if good else "use Python 3.11 or newer"
    )


def _version(name: str) -> Check:
    needed = NEEDED[name]
    wanted = ".".join(map(str, needed))
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        extra = "models" if name in ("torch", "transformers") else ""
        remedy = f"pip install 'lrh-ray[{extra}]'" if extra else "pip install lrh-ray"
        return Check(name=name, state="fail", found="not installed", remedy=remedy)
    numbers = tuple(int(part) for part in found.split("+")[0].split(".") if part.isdigit())
    good = numbers >= needed
    return Check(
        name=name, state="ok" if good else "fail", found=found, remedy="" if good else f"needs {wanted} or newer"
    )


def _cpus() -> Check:
    count = len(os.sched_getaffinity(0))
    return Check(
        name="cpus", state="ok" if count >= 2 else "warn", found=str(count), remedy="" if count >= 2 else "slow"
    )


def _memory() -> Check:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    good = free >= 4
    return Check(
        name="memory",
        state="ok" if good else "warn",
        found=f"{free:.1f} GiB free",
        remedy="" if good else "the demo needs about 4 GiB",
    )


def _shared_memory() -> Check:
    path = Path("/dev") / "shm"  # where Ray keeps its object store
    free = shutil.disk_usage(path).free / GIB if path.exists() else 0.0
    good = free >= 1
    return Check(
        name="shared memory",
        state="ok" if good else "warn",
        found=f"{free:.1f} GiB free",
        remedy="" if good else "Ray falls back to disk and slows down; in a container raise --shm-size",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / GIB
    good = free >= 5
    return Check(
        name="disk",
        state="ok" if good else "warn",
        found=f"{free:.1f} GiB free here",
        remedy="" if good else "a store of 1 M rows of width 576 at 7 sites takes 8 GiB",
    )


def _model() -> Check:
    from lrh_ray.errors import LrhError
    from lrh_ray.models.checkpoints import resolve_checkpoint

    try:
        return Check(name="model smollm2", state="ok", found=str(resolve_checkpoint("smollm2").path))
    except LrhError:
        return Check(name="model smollm2", state="warn", found="not prepared", remedy="lrh model prepare smollm2")


def _gpu() -> Check:
    found = shutil.which("nvidia-smi")
    return Check(name="gpu", state="ok", found="nvidia-smi found" if found else "none; everything runs on the CPU")


def _token() -> Check:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.exists():
        return Check(name="ray token", state="ok", found="no file; the embedded Ray makes its own")
    mode = stat.S_IMODE(path.stat().st_mode)
    good = not mode & 0o077
    return Check(
        name="ray token",
        state="ok" if good else "fail",
        found=f"{path} mode {mode:04o}",
        remedy="" if good else f"chmod 600 {path}",
    )
