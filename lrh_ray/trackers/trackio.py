"""trackio: runs of one folder share a SQLite database, which `trackio show` shows."""

import os
from pathlib import Path

from lrh_ray.optional import optional
from lrh_ray.trackers.log import PROJECT, RunLog

FOLDER = "TRACKIO_DIR"


def write(log: RunLog, folder: Path) -> str:
    """Add a run to the folder's database; returns the command that shows it."""
    os.environ[FOLDER] = str(folder.resolve())
    trackio = optional("trackio", pip="trackio")
    run = trackio.init(project=PROJECT, name=log.name, config=dict(log.settings), embed=False)
    for step, numbers in log.by_step():
        run.log(numbers, step=step)
    run.log({f"final/{name}": value for name, value in log.finals.items()}, step=log.last_step)
    run.finish()
    return f"{FOLDER}={folder} trackio show --project {PROJECT}"
