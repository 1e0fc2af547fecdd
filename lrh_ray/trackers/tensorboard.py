"""TensorBoard: a run is a folder of event files, `tensorboard --logdir FOLDER` shows all runs of a folder.

Written by tensorboardX, or by torch's writer where that one is installed (it needs the package tensorboard).
"""

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lrh_ray.errors import DependencyMissing
from lrh_ray.optional import optional
from lrh_ray.trackers.log import RunLog, new_place

WRITERS = ("tensorboardX", "torch.utils.tensorboard")


def write(log: RunLog, folder: Path) -> str:
    """Write a run into a folder of its own; returns the command that shows it."""
    with closing(_writer()(str(new_place(folder / log.name)))) as writer:
        writer.add_text("summary", "\n\n".join([log.title, *log.summary]))
        writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *_rows(log)]))
        for series in log.series:
            for step, value in series.points:
                writer.add_scalar(series.name, value, step)
        for name, value in log.finals.items():
            writer.add_scalar(f"final/{name}", value, log.last_step)
    return f"tensorboard --logdir {folder}"


def _rows(log: RunLog) -> list[str]:
    return [f"| {name} | {value} |".replace("\n", " ") for name, value in log.settings.items()]


def _writer() -> Any:
    for module in WRITERS:
        with suppress(DependencyMissing):
            return optional(module, pip="tensorboardX").SummaryWriter
    raise DependencyMissing("TensorBoard's files need a writer: pip install tensorboardX.")
