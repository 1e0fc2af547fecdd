"""The verbs."""

import json
from enum import StrEnum
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from lrh_ray.cli.data_verbs import Json, StorePlace, import_store, label_app, push
from lrh_ray.cli.export_verb import export_sae
from lrh_ray.cli.feature_verbs import apply, features
from lrh_ray.cli.generate_verb import generate
from lrh_ray.cli.options import Address, ConfigPath, Set, run_config
from lrh_ray.cli.sae_verbs import sae_bound, sae_evaluate
from lrh_ray.cli.show import answer, show_facts
from lrh_ray.cli.store_verbs import gc, status, verify
from lrh_ray.cli.track_verb import track
from lrh_ray.cli.world_verb import world

app = typer.Typer(
    name="lrh",
    help="Find out what large language models represent.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
model_app = typer.Typer(help="Models that need no hub.", no_args_is_help=True)
config_app = typer.Typer(help="Configurations.", no_args_is_help=True)
store_app = typer.Typer(help="Stores.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(config_app, name="config")
app.add_typer(store_app, name="store")
app.add_typer(label_app, name="label")
app.command("import")(import_store)
app.command()(generate)
app.command()(world)
app.command("export-sae")(export_sae)
app.command()(apply)
app.command()(features)
app.command()(track)
app.command("sae-bound")(sae_bound)
app.command("sae-evaluate")(sae_evaluate)
app.command()(push)
app.command()(status)
app.command()(verify)
app.command()(gc)


def _tell_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"lrh-ray {metadata.version('lrh-ray')}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `lrh` itself, before any verb."""


class Size(StrEnum):
    """How much of the demo runs."""

    TINY = "tiny"
    SMALL = "small"
    FULL = "full"


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: versions, memory, disk, model cache, token."""
    from lrh_ray.cli.doctor import checks, print_checks

    found = checks()
    if as_json:
        typer.echo(json.dumps({"checks": [check.as_plain() for check in found]}))
    else:
        print_checks(found)
    raise typer.Exit(2 if any(check.state == "fail" for check in found) else 0)


@model_app.command("prepare")
def model_prepare(
    name: Annotated[str, typer.Argument(help="Name of a prepared model, for example smollm2.")] = "smollm2",
    force: Annotated[bool, typer.Option("--force", help="Build it again.")] = False,
    as_json: Json = False,
) -> None:
    """Build a model from an installed package into the cache folder."""
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.models.checkpoints import prepare

    with watch_progress() as progress:
        progress.begin(f"preparing {name}")
        folder = prepare(name, force=force)
    show_facts({"model": name, "folder": str(folder)}, as_json)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a run's configuration."""
    from lrh_ray.config import config_schema as schema_of
    from lrh_ray.studies.run import RunConfig

    typer.echo(json.dumps(schema_of(RunConfig), indent=2))


@app.command()
def plan(
    config: ConfigPath,
    overrides: Set = [],  # noqa: B006  # typer reads the default
    tokens: Annotated[
        float | None, typer.Option(help="Plan for this many tokens (1e9) from config.json alone: no text, no weights.")
    ] = None,
    document_tokens: Annotated[int, typer.Option(help="With --tokens: mean length of a document.")] = 1024,
    gpu: Annotated[
        str | None, typer.Option(help="GPU type to plan for: l4, a100-80, h100, h200. None: this machine, measured.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="With --gpu: how many, over all nodes.")] = 1,
    sink_gbs: Annotated[float | None, typer.Option(help="GB/s the store's place takes in all.")] = None,
    mfu: Annotated[float | None, typer.Option(help="Share of the GPUs' peak that a forward pass reaches.")] = None,
    as_json: Json = False,
) -> None:
    """Tell what would be written, how long it takes, what limits it and whether it fits; write nothing."""
    from lrh_ray.cli.plan_table import show_plan
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.studies.planning import plan
    from lrh_ray.studies.planning_records import Target

    target = Target(gpu=gpu, gpus=gpus, sink_gbs=sink_gbs, utilisation=mfu)
    run = run_config(config, overrides)
    numbers = None if tokens is None else (int(tokens), document_tokens)
    with watch_progress() as progress:
        facts, estimate = plan(run, folder=config.parent, numbers=numbers, target=target, progress=progress)
    show_plan(str(run.store_location), facts, estimate, as_json=as_json)


@app.command()
def extract(
    config: ConfigPath,
    overrides: Set = [],  # noqa: B006
    address: Address = "embedded",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Seal without the blocks that fail on every attempt; name them.")
    ] = False,
    twin: Annotated[bool, typer.Option("--twin", help="Write the control store instead: random weights.")] = False,
    as_json: Json = False,
) -> None:
    """Write the run's store; repeat the command to resume."""
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.studies.extraction import extract
    from lrh_ray.studies.twins import extract_twin

    run, write = run_config(config, overrides), extract_twin if twin else extract
    with watch_progress() as progress:
        facts = write(run, folder=config.parent, address=address, allow_missing=allow_missing, progress=progress)
    show_facts(facts, as_json)


@app.command()
def show(
    path: Annotated[str, typer.Argument(help="A store, a run folder or a result.")], as_json: Json = False
) -> None:
    """Show a store or a result."""
    from lrh_ray.cli.facts import print_result_or_store

    print_result_or_store(path, as_json=as_json)


@app.command()
def fit(config: ConfigPath, overrides: Set = [], address: Address = "embedded", as_json: Json = False) -> None:  # noqa: B006
    """Probe all concepts at all sites of the run's store."""
    from lrh_ray.studies.probing import probe

    answer(probe, run_config(config, overrides), address, as_json=as_json)


@app.command()
def pairs(config: ConfigPath, overrides: Set = [], address: Address = "embedded", as_json: Json = False) -> None:  # noqa: B006
    """Test whether probe weights point where word pairs differ: as published, and on words held out."""
    from lrh_ray.studies.pair_study import pair_test

    answer(pair_test, run_config(config, overrides), address, as_json=as_json)


@app.command()
def geometry(config: ConfigPath, overrides: Set = [], address: Address = "embedded", as_json: Json = False) -> None:  # noqa: B006
    """Measure how many directions rows use, what training took away, and what each token adds to its context."""
    from lrh_ray.studies.geometry_study import family_geometry
    from lrh_ray.studies.geometry_study import geometry as measure

    run = run_config(config, overrides)
    study = partial(family_geometry, folder=config.parent) if run.geometry.family else measure
    answer(study, run, address, as_json=as_json)


@app.command()
def intrinsic(config: ConfigPath, overrides: Set = [], address: Address = "embedded", as_json: Json = False) -> None:  # noqa: B006
    """Find the few dimensions of each site that carry a concept, and how many bits of it they hold."""
    from lrh_ray.studies.intrinsic_study import intrinsic

    answer(intrinsic, run_config(config, overrides), address, as_json=as_json)


@app.command()
def sae(
    config: ConfigPath,
    overrides: Set = [],  # noqa: B006
    address: Address = "embedded",
    plan: Annotated[
        bool, typer.Option("--plan", help="Tell what training takes and how workers share it; train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train sparse autoencoders of each site, and measure them on documents held out."""
    run = run_config(config, overrides)
    if plan:
        from lrh_ray.cli.plan_table import show_training_plan
        from lrh_ray.studies.sae_planning import plan_training

        here = address == "embedded" and not run.sae.workers.gpus
        show_training_plan(plan_training(run, timed=here), as_json=as_json)
        return
    from lrh_ray.studies.sae_study import autoencoders

    answer(autoencoders, run, address, as_json=as_json)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Results, or run folders for all their results.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "What the model represents",
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page about results."""
    from lrh_ray.studies.reporting import write_report

    size = write_report(results, output, title=title)
    show_facts({"report": str(output), "bytes": size}, as_json)


@app.command()
def demo(
    size: Annotated[Size, typer.Option(help="tiny: a check; small: the tour; full: everything.")] = Size.SMALL,
    runs: Annotated[str, typer.Option(help="Folder for the run.")] = "runs",
    address: Address = "embedded",
    overrides: Set = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """The whole way from text to report with a real 135 M-parameter Llama."""
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.studies.demo import run_demo

    with watch_progress() as progress:
        facts = run_demo(size.value, runs=runs, address=address, overrides=overrides, progress=progress)
    show_facts(facts, as_json)


@store_app.command("view-dtype")
def store_view_dtype(
    store: StorePlace,
    name: Annotated[str, typer.Option("--as", help="uint16 or bfloat16.")],
    as_json: Json = False,
) -> None:
    """Name the element type of a bfloat16 store for other tools; edits metadata only."""
    from lrh_ray.errors import ConfigError
    from lrh_ray.store.reader import open_store
    from lrh_ray.store.views import view_dtype

    if name not in ("uint16", "bfloat16"):
        raise ConfigError(f"--as {name!r}: allowed are uint16 and bfloat16.")
    chosen: Any = name
    sites = view_dtype(open_store(store).location, chosen)
    show_facts({"store": str(store), "data_type": name, "changed": list(sites)}, as_json)
