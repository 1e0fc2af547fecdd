"""The verb `world`: worlds whose truth is known, and what models trained in them come to hold."""

from collections.abc import Callable
from pathlib import Path

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.options import Address, ConfigPath, Set
from lrh_ray.cli.show import answer


def world(
    config: ConfigPath,
    overrides: Set = [],  # noqa: B006  # typer reads the default
    address: Address = "embedded",
    as_json: Json = False,
) -> None:
    """Train models in worlds of known concepts and hold them against the truth. Repeat the command to resume."""
    from lrh_ray.config import load_config
    from lrh_ray.studies.agreement_world import agreement_world
    from lrh_ray.studies.bound_world import bound_world
    from lrh_ray.studies.language_world import language_world
    from lrh_ray.studies.masked_world import masked_world
    from lrh_ray.studies.phase_world import phase_world
    from lrh_ray.studies.spheres_world import spheres_world
    from lrh_ray.studies.steering_world import steering_world
    from lrh_ray.studies.theorem_world import theorem_world
    from lrh_ray.studies.world_config import WorldConfig

    asked = load_config(config, WorldConfig, overrides)
    studies: dict[str, Callable[..., Path]] = {
        "language": language_world,
        "theorem": theorem_world,
        "phase": phase_world,
        "masked": masked_world,
        "spheres": spheres_world,
        "agreement": agreement_world,
        "steering": steering_world,
        "bound": bound_world,
    }
    answer(studies[asked.world.kind], asked, address, as_json=as_json)
