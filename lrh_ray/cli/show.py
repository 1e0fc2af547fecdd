"""Facts for a program or for a person; loads nothing until there is something to show."""

import json
from collections.abc import Mapping
from typing import Any

import typer


def show_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object on stdout, or two columns."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from lrh_ray.cli.facts import print_facts

    print_facts(facts)
