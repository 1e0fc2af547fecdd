"""The verbs that put trained autoencoders to use."""

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.options import Address, ConfigPath, Set, run_config
from lrh_ray.cli.show import answer


def sae_bound(config: ConfigPath, overrides: Set = [], address: Address = "embedded", as_json: Json = False) -> None:  # noqa: B006
    """Hold latents of trained autoencoders against supervised probes: as published, and on words held out."""
    from lrh_ray.studies.sae_bound_study import autoencoder_bound

    answer(autoencoder_bound, run_config(config, overrides), address, as_json=as_json)


def sae_evaluate(config: ConfigPath, overrides: Set = [], address: Address = "embedded", as_json: Json = False) -> None:  # noqa: B006
    """Ask of trained autoencoders whether concepts are in few latents, and how many bits a row takes."""
    from lrh_ray.studies.sae_evaluation_study import evaluate_autoencoders

    answer(evaluate_autoencoders, run_config(config, overrides), address, as_json=as_json)
