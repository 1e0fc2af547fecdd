"""One function for a caller: a result into a tracker of the caller's choice.

    track(load_result("runs/demo/results/1f3a"), "tensorboard", Path("runs/tracked"))

What can go wrong: a tracker nobody knows (`UnknownName`), one whose library is not installed (`DependencyMissing`), a
run that stands in the folder already (`PathUnusable`).
"""

import importlib
from pathlib import Path
from typing import Literal, Protocol, cast, get_args, runtime_checkable

from lrh_ray.durable import disk_errors
from lrh_ray.errors import UnknownName
from lrh_ray.records import Plain, Result
from lrh_ray.trackers.log import RunLog, log_of

Tracker = Literal["mlflow", "tensorboard", "trackio", "wandb"]
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)


@runtime_checkable
class Writer(Protocol):
    """What the file of a tracker has."""

    def write(self, log: RunLog, folder: Path) -> str: ...


def track(result: Result, tracker: str, folder: Path) -> dict[str, Plain]:
    """Write a result's curves and final numbers; returns what was written, and the command that shows it.

    Raises:
        UnknownName: No such tracker.
        DependencyMissing: Its library is not installed.
        PathUnusable: The folder has this result already, or cannot be written.
    """
    if tracker not in TRACKERS:
        raise UnknownName(f"No tracker {tracker!r}. Known: {', '.join(TRACKERS)}.")
    writer = cast(Writer, importlib.import_module(f"lrh_ray.trackers.{tracker}"))
    log = log_of(result)
    with disk_errors(str(folder)):
        show = writer.write(log, folder)
    return {
        "tracker": tracker,
        "run": log.name,
        "curves": len(log.series),
        "points": sum(len(series.points) for series in log.series),
        "numbers": len(log.finals),
        "show": show,
    }
