"""The verb `world`: a language whose truth is known, and what a model trained on it comes to hold."""

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.options import Address, ConfigPath, Set
from lrh_ray.cli.show import answer


def world(
    config: ConfigPath,
    overrides: Set = [],  # noqa: B006  # typer reads the default
    address: Address = "embedded",
    as_json: Json = False,
) -> None:
    """Train a model in a world of known concepts and hold it against the truth. Repeat the command to resume."""
    from lrh_ray.config import load_config
    from lrh_ray.studies.language_world import language_world
    from lrh_ray.studies.phase_world import phase_world
    from lrh_ray.studies.theorem_world import theorem_world
    from lrh_ray.studies.world_config import WorldConfig

    asked = load_config(config, WorldConfig, overrides)
    studies = {"language": language_world, "theorem": theorem_world, "phase": phase_world}
    answer(studies[asked.world.kind], asked, address, as_json=as_json)
