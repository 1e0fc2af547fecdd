"""MLflow: runs of one folder share a SQLite database, which `mlflow ui` shows."""

from pathlib import Path
from time import time

from lrh_ray.errors import PathUnusable
from lrh_ray.optional import optional
from lrh_ray.trackers.log import PROJECT, RunLog

BATCH = 500
"""Numbers of one call; the service refuses more than 1000."""

LONGEST = 500
"""Characters of a setting."""

DIGEST_TAG = "lrh_ray.digest"


def write(log: RunLog, folder: Path) -> str:
    """Add a run to the folder's database; returns the command that shows it."""
    optional("mlflow", pip="mlflow")
    tracking, entities = (optional(f"mlflow.{part}", pip="mlflow") for part in ("tracking", "entities"))
    folder.mkdir(parents=True, exist_ok=True)
    place = f"sqlite:///{folder.resolve()}/mlflow.db"
    client = tracking.MlflowClient(tracking_uri=place)
    found = client.get_experiment_by_name(PROJECT)
    artifacts = (folder / "artifacts").resolve().as_uri()
    experiment = found.experiment_id if found else client.create_experiment(PROJECT, artifact_location=artifacts)
    if client.search_runs([experiment], filter_string=f"tags.`{DIGEST_TAG}` = '{log.digest}'"):
        raise PathUnusable(f"{place} has the run {log.name!r} already. Give another folder.")
    tags = {DIGEST_TAG: log.digest, "mlflow.note.content": "\n\n".join([log.title, *log.summary])}
    run = client.create_run(experiment, run_name=log.name, tags=tags).info.run_id
    now = int(time() * 1000)
    points = [(series.name, value, step) for series in log.series for step, value in series.points]
    points += [(f"final/{name}", value, log.last_step) for name, value in log.finals.items()]
    metrics = [entities.Metric(name, value, now, step) for name, value, step in points]
    params = [entities.Param(name, value[:LONGEST]) for name, value in log.settings.items()]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[first : first + BATCH])
    for first in range(0, len(params), 100):
        client.log_batch(run, params=params[first : first + 100])
    client.set_terminated(run)
    return f"mlflow ui --backend-store-uri {place}"
