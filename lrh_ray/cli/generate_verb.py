"""The verb `generate`: a model continues prompts."""

from pathlib import Path
from typing import Annotated

import typer

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.show import show_facts


def generate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file: name, model, prompts, sampling.")],
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting; repeatable.")
    ] = [],  # noqa: B006  # typer reads the default
    address: Annotated[str, typer.Option(help="Ray cluster; `embedded` starts a local one.")] = "embedded",
    as_json: Json = False,
) -> None:
    """Let the model continue prompts; write documents that extraction reads. Repeat the command to resume."""
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.config import load_config
    from lrh_ray.studies.generation import generate as write
    from lrh_ray.studies.generation_config import GenerateConfig

    asked = load_config(config, GenerateConfig, overrides)
    with watch_progress() as progress:
        facts = write(asked, folder=config.parent, address=address, progress=progress)
    show_facts(facts, as_json)
