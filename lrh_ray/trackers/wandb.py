"""Weights & Biases, offline: a run is a folder that `wandb sync` uploads when its owner says so.

Nothing is sent here, whatever the environment says.
"""

from pathlib import Path

from lrh_ray.optional import optional
from lrh_ray.trackers.log import PROJECT, RunLog, new_place


def write(log: RunLog, folder: Path) -> str:
    """Write a run into a folder of its own; returns the command that uploads it."""
    wandb = optional("wandb", pip="wandb")
    place = new_place(folder / log.name)
    run = wandb.init(
        project=PROJECT,
        name=log.name,
        id=log.name,
        group=log.kind,
        notes="\n".join([log.title, *log.summary]),
        config=dict(log.settings),
        dir=str(place),
        mode="offline",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
    )
    try:
        for step, numbers in log.by_step():
            run.log(numbers, step=step)
        run.summary.update({f"final/{name}": value for name, value in log.finals.items()})
    finally:
        run.finish()
    return f"wandb sync {place}/wandb/offline-run-*"
