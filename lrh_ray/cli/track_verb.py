"""`lrh track`: results in a tracker of experiments."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.show import show_facts


def track(
    results: Annotated[list[Path], typer.Argument(help="Results, or run folders for all their results.")],
    to: Annotated[str, typer.Option("--to", metavar="TRACKER", help="tensorboard, wandb, trackio or mlflow.")],
    folder: Annotated[Path, typer.Option(help="Folder that the tracker's files go to.")] = Path("tracked"),
    as_json: Json = False,
) -> None:
    """Write curves and final numbers of results with a tracker's own library, into local files; send nothing."""
    from lrh_ray.studies.reporting import write_tracks

    written = write_tracks(results, to, folder)
    if as_json:
        typer.echo(json.dumps({"tracked": written}))
        return
    for facts in written:
        show_facts(facts, False)
