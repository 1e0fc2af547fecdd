"""Verbs that use what was fitted: `lrh apply` to the rows of a store, `lrh features` to look latents up."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.options import Address, Set
from lrh_ray.cli.show import answer, show_facts

if TYPE_CHECKING:
    from lrh_ray.runtime.config import PoolConfig
    from lrh_ray.store.objects import Location

ResultPlace = Annotated[Path, typer.Argument(metavar="RESULT", help="Folder of a result of `lrh sae` or `lrh fit`.")]
Site = Annotated[str | None, typer.Option(help="Site or transcoder's map, where the result has several.")]
Name = Annotated[str | None, typer.Option(help="Autoencoder or kind of probe, where the result has several.")]
CONFIGURATIONS, TEXTS = (".yaml", ".yml"), (".txt", ".jsonl")
TABLES = ("examples", "tokens")


def apply(
    result: ResultPlace,
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE|CONFIG|TEXT", help="A store, the YAML file of its run, or a text (.txt, .jsonl) to extract."
        ),
    ],
    site: Site = None,
    name: Name = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Place of the derived store.")] = None,
    overrides: Set = [],  # noqa: B006  # typer reads the default
    address: Address = "embedded",
    as_json: Json = False,
) -> None:
    """Write codes or probe scores of every row as a derived store; repeat the command to resume."""
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.studies.applying import apply_fitted
    from lrh_ray.studies.applying_text import apply_to_text

    if store.endswith(TEXTS):
        verb = partial(apply_to_text, result, Path(store), overrides=overrides)
    else:
        location, pool = _place(store, overrides)
        verb = partial(apply_fitted, result, location, pool=pool)
    with watch_progress() as progress:
        facts = verb(site=site, name=name, target=output, address=address, progress=progress)
    show_facts(facts, as_json)


def _place(given: str, overrides: list[str]) -> "tuple[Location, PoolConfig | None]":
    """Where the store stands, and the pool of its run if that was given."""
    from lrh_ray.config import load_config
    from lrh_ray.errors import ConfigError
    from lrh_ray.studies.run import RunConfig

    if not given.endswith(CONFIGURATIONS):
        if overrides:
            raise ConfigError("--set changes a configuration; give the YAML file of the run in place of the store.")
        return given, None
    config = load_config(Path(given), RunConfig, overrides)
    return config.store_location, config.pool


def features(
    result: ResultPlace,
    site: Site = None,
    name: Name = None,
    latent: Annotated[int | None, typer.Option(help="One latent by its number.")] = None,
    token: Annotated[str | None, typer.Option(help="Latents of a token, for example ' king'.")] = None,
    token_id: Annotated[int | None, typer.Option(help="The same, by the token's number.")] = None,
    text: Annotated[str | None, typer.Option(help="Latents of each token of a text.")] = None,
    num: Annotated[int, typer.Option(help="Latents listed.")] = 10,
    store: Annotated[str | None, typer.Option(help="Store to read; by default the one of the result's run.")] = None,
    address: Address = "embedded",
    as_json: Json = False,
) -> None:
    """Look up features of an autoencoder by number, token or text; without any, make the catalogue of all."""
    from lrh_ray.studies.feature_study import Question
    from lrh_ray.studies.feature_study import features as search

    question = Question(site=site, name=name, num=num, latent=latent, token=token, token_id=token_id, text=text)
    answer(partial(search, result, location=store), question, address, as_json=as_json, tables=TABLES)
