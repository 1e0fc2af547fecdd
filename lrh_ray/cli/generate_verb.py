"""The verb `generate`: a model continues prompts."""

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.options import Address, ConfigPath, Set
from lrh_ray.cli.show import show_facts


def generate(
    config: ConfigPath,
    overrides: Set = [],  # noqa: B006  # typer reads the default
    address: Address = "embedded",
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
