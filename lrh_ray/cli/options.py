"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting; repeatable.")]
Address = Annotated[str, typer.Option(help="Ray cluster to run on; `embedded` starts a local one for this command.")]
