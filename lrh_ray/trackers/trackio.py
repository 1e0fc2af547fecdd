"""trackio: runs of one folder share a SQLite database, which `trackio show` shows.

The library takes its folder, and servers to send to, from the environment at import, and tells what it does on standard
output. So it works in a process of its own, which has the folder, no server, and its standard output on our standard
error.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from lrh_ray.errors import PathUnusable
from lrh_ray.optional import optional
from lrh_ray.trackers.log import PROJECT, RunLog, Series

FOLDER = "TRACKIO_DIR"
STANDS_ALREADY = 3


def write(log: RunLog, folder: Path) -> str:
    """Add a run to the folder's database; returns the command that shows it."""
    optional("trackio", pip="trackio")
    folder.mkdir(parents=True, exist_ok=True)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")}
    done = subprocess.run(  # noqa: S603  # ourselves
        [sys.executable, "-m", __name__],
        input=json.dumps(asdict(log)),
        text=True,
        stdout=sys.stderr.fileno(),
        env={**ours, FOLDER: str(folder.resolve())},
        check=False,
    )
    if done.returncode == STANDS_ALREADY:
        raise PathUnusable(f"{folder} has the run {log.name!r} already. Give another folder.")
    done.check_returncode()
    return f"{FOLDER}={folder} trackio show --project {PROJECT}"


def add_run(log: RunLog) -> int:
    """Add the run to the database of the process's folder; returns the exit code."""
    trackio = optional("trackio", pip="trackio")
    known = []
    with suppress(ValueError):  # a folder without the project has no runs of it
        known = [run.name for run in trackio.Api().runs(PROJECT)]
    if log.name in known:
        return STANDS_ALREADY
    own = {"name": log.name, "group": log.kind, "config": dict(log.settings)}
    run = trackio.init(PROJECT, **own, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    for step, numbers in log.by_step():
        run.log(numbers, step=step)
    run.log({f"final/{name}": value for name, value in log.finals.items()}, step=log.last_step)
    run.finish()
    return 0


if __name__ == "__main__":
    told = json.load(sys.stdin)
    series = tuple(Series(name=one["name"], points=tuple(map(tuple, one["points"]))) for one in told["series"])
    sys.exit(add_run(RunLog(**{**told, "summary": tuple(told["summary"]), "series": series})))
