"""Facts and answers for a program or for a person; loads nothing until there is something to show."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer


def show_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object on stdout, or two columns."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from lrh_ray.cli.facts import print_facts

    print_facts(facts)


def answer(
    study: Callable[..., Path], config: object, address: str, *, as_json: bool, tables: tuple[str, ...] = ()
) -> None:
    """Run a study of a configuration, and show its result, with these of its tables, or print where it stands."""
    from lrh_ray.cli.progress import watch_progress

    with watch_progress() as progress:
        path = study(config, address=address, progress=progress)
    if as_json:
        typer.echo(json.dumps({"result": str(path)}))
    else:
        from lrh_ray.cli.facts import print_result_or_store

        print_result_or_store(str(path), as_json=False, tables=tables)
        typer.echo(f"\n{path}")
