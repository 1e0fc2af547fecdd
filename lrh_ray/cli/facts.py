"""Facts as lines for people."""

import json
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from lrh_ray.cli.show import show_facts
from lrh_ray.records import Plain


def print_facts(facts: Mapping[str, Plain]) -> None:
    """Two columns: names and values."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _words(name, value))
    Console().print(table)


def _words(name: str, value: Plain) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if name == "bytes" and isinstance(value, int):
        return f"{value:,} ({value / 1e6:,.1f} MB)"
    if isinstance(value, int):
        return f"{value:,}"
    if name == "parity" and isinstance(value, Mapping):
        return _parity(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(key, item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _parity(certificate: Mapping[str, Plain]) -> str:
    sites = certificate.get("sites")
    if not isinstance(sites, list | tuple) or not sites:
        return "none"
    worst = max((site for site in sites if isinstance(site, Mapping)), key=lambda site: float(str(site["p99"])))
    passed = "passed" if certificate.get("passed") else "FAILED"
    errors = f"p50 {worst['p50']:.2g}, p99 {worst['p99']:.2g}, max {worst['maximum']:.2g}"
    return f"{passed}; worst site {worst['site']}: {errors}"


def print_result_or_store(place: str, *, as_json: bool, tables: tuple[str, ...] = ()) -> None:
    """Show what stands at a path or URL: a result, on request with more of its tables, or else a store."""
    from lrh_ray.artifacts import load_result
    from lrh_ray.report.text import print_result, print_tables
    from lrh_ray.store.reader import open_store
    from lrh_ray.studies.extraction import store_facts

    path = Path(place)
    if path.name == "result.json" or (path / "result.json").exists():
        result = load_result(path)
        if as_json:
            file = path if path.name == "result.json" else path / "result.json"
            typer.echo(json.dumps(json.loads(file.read_bytes())))
        else:
            print_result(result, Console())
            print_tables(result, Console(), tables)
        return
    show_facts(store_facts(open_store(place)), as_json)
