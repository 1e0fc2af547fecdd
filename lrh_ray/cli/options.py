"""Options that several verbs share, and the configuration that two of them name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lrh_ray.studies.run import RunConfig

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting; repeatable.")]
Address = Annotated[str, typer.Option(help="Ray cluster to run on; `embedded` starts a local one for this command.")]


def run_config(path: Path, overrides: list[str]) -> "RunConfig":
    """The run of a file, with overrides."""
    from lrh_ray.config import load_config
    from lrh_ray.studies.run import RunConfig

    return load_config(path, RunConfig, overrides)
