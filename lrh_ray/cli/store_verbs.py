"""Verbs that look after a store: verify, gc, status. They need no model, except the deepest check."""

import json
import sys
import time
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrh_ray.cli.data_verbs import Json, StorePlace
from lrh_ray.cli.show import show_facts

if TYPE_CHECKING:
    from lrh_ray.store.findings import Repaired, Verdict
    from lrh_ray.store.objects import Location
    from lrh_ray.studies.reextraction import Reextraction

SHOWN = 20
DAMAGED = 2
MODEL_LEVEL = 3


class Depth(IntEnum):
    """How deep `verify` looks."""

    COMPLETE = 0
    INDEX = 1
    BYTES = 2
    MODEL = 3


def verify(
    store: StorePlace,
    level: Annotated[
        int,
        typer.Option(
            min=0,
            max=3,
            help="0: everything is there with its size; 1: and the index of each shard; 2: and every byte; 3: level 0, "
            "and --sample blocks computed again with the model of --config.",
        ),
    ] = 2,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Take the damage out, and name the command that then mends exactly that."),
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Level 3: YAML file of the run that made the store.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Level 3: how many random blocks are computed again.")] = 4,
    seed: Annotated[int, typer.Option(help="Level 3: chooses the blocks.")] = 0,
    address: Annotated[str, typer.Option(help="Level 3: Ray cluster to run on.")] = "embedded",
    as_json: Json = False,
) -> None:
    """Hold a store against its own checksums, or against its model.

    Exit codes: 0 nothing is damaged, or all damage was taken out (then it says what to run next); 2 damage is left.
    Blocks not yet written in an unfinished store, and litter, are told and are no damage.
    """
    from lrh_ray.store.repair import repair as repair_store

    deep = _reextract(store, config, sample, seed, address) if level == MODEL_LEVEL else None
    verdict = deep.verdict if deep is not None else _verify(_place(store), Depth(level))
    repaired = repair_store(_place(store), verdict) if repair and not verdict.ok else None
    facts: dict[str, Any] = dict(verdict.as_plain() if deep is None else deep.as_plain())
    if repaired is not None:
        facts["repair"] = repaired.as_plain()
    damaged = not verdict.ok and (repaired is None or bool(repaired.left))
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        _tell(verdict, repaired)
    if damaged and not as_json:
        _refuse(verdict, repaired)
    raise typer.Exit(DAMAGED if damaged else 0)


def _place(store: str) -> "Location":
    return store if "://" in store else Path(store)


def _verify(place: "Location", depth: Depth) -> "Verdict":
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.store.status import store_size
    from lrh_ray.store.verify import verify as verify_store

    with watch_progress() as progress:
        progress.begin(f"checking at level {depth.value}", store_size(place) if depth == Depth.BYTES else 0, "bytes")
        level: Any = depth.value
        return verify_store(place, level, on_progress=progress.advance if depth == Depth.BYTES else None)


def _reextract(store: str, config: Path | None, sample: int, seed: int, address: str) -> "Reextraction":
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.config import load_config
    from lrh_ray.errors import ConfigError
    from lrh_ray.studies.reextraction import reextract
    from lrh_ray.studies.run import RunConfig

    if config is None:
        raise ConfigError("Level 3 computes blocks again and needs the run: add --config CONFIG.")
    run = load_config(config, RunConfig, [])
    with watch_progress() as progress:
        return reextract(run, _place(store), sample=sample, seed=seed, address=address, progress=progress)


def _tell(verdict: "Verdict", repaired: "Repaired | None") -> None:
    """What was looked at, in lines for people; damage itself goes into the error."""
    show_facts(
        {
            "store": verdict.location,
            "level": verdict.level,
            "damage": len(verdict.findings),
            "blocks": verdict.num_blocks,
            "objects": verdict.num_objects,
            "bytes": verdict.num_bytes,
            "pending_blocks": len(verdict.pending),
            "litter": len(verdict.litter),
            "seconds": round(verdict.seconds, 2),
        },
        as_json=False,
    )
    if repaired is not None:
        for finding in verdict.findings[:SHOWN]:
            typer.echo(finding.describe())
        typer.echo(f"dropped blocks: {', '.join(map(str, repaired.dropped)) or 'none'}")
        typer.echo(f"next: {repaired.next_step}")


def _refuse(verdict: "Verdict", repaired: "Repaired | None") -> None:
    """One typed error with the located list and the way out."""
    from lrh_ray.errors import StoreCorrupt

    left = verdict.findings if repaired is None else repaired.left
    shown = "\n  ".join(finding.describe() for finding in left[:SHOWN])
    more = f"\n  and {len(left) - SHOWN} more (--json lists all)" if len(left) > SHOWN else ""
    remedy = (
        "`lrh verify STORE --repair` takes the damage out, and names the command that computes what is then missing."
        if repaired is None
        else repaired.next_step
    )
    raise StoreCorrupt(f"{verdict.location!r} is damaged in {len(left)} places:\n  {shown}{more}\n{remedy}")


def gc(
    store: StorePlace,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this nothing changes.")] = False,
    grace: Annotated[float, typer.Option(help="Seconds after which a temporary file counts as dead.")] = 3600.0,
    as_json: Json = False,
) -> None:
    """Find what dead attempts left behind, and remove it with --delete; running writers are left alone."""
    from lrh_ray.store.garbage import collect_garbage
    from lrh_ray.store.verify import find_store

    garbage = collect_garbage(find_store(_place(store)), delete=delete, grace_seconds=grace)
    if as_json:
        typer.echo(json.dumps(garbage.as_plain()))
        return
    for item in garbage.items[:SHOWN]:
        typer.echo(f"{item.kind:10} {item.num_bytes:>14,}  {item.key}")
    if len(garbage.items) > SHOWN:
        typer.echo(f"and {len(garbage.items) - SHOWN} more (--json lists all)")
    done = "removed" if delete else "would go; add --delete to remove"
    typer.echo(f"{len(garbage.items)} objects, {garbage.num_bytes:,} bytes: {done}" if garbage.items else "nothing")


def status(
    store: StorePlace,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until the store is sealed.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Where a store stands, from the store alone."""
    from lrh_ray.store.status import store_status

    place = _place(store)
    if watch:
        _watch(place, every, as_json)
    else:
        show_facts(store_status(place).as_plain(), as_json)


def _watch(place: "Location", every: float, as_json: bool) -> None:
    """One line per look: over itself on a terminal, one below the other elsewhere."""
    from lrh_ray.store.status import store_status

    live = sys.stdout.isatty() and not as_json
    while True:
        found = store_status(place)
        line = json.dumps(found.as_plain()) if as_json else found.line()
        typer.echo(f"\r\x1b[K{line}" if live else line, nl=not live)
        sys.stdout.flush()
        if found.sealed:
            break
        time.sleep(every)
    if live:
        typer.echo("")
