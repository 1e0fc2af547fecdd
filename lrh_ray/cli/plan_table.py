"""The plan for people: what, where, how long, what limits it, whether it fits; one glance each."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from lrh_ray.records import Plain

if TYPE_CHECKING:
    from lrh_ray.studies.planning_records import Estimate
    from lrh_ray.studies.sae_planning import TrainingPlan

SITES_SHOWN = 8


def show_plan(store: str, facts: Mapping[str, Plain], estimate: "Estimate", *, as_json: bool) -> None:
    """One JSON object on stdout (the facts, and `store` and `estimate` beside them), or a table."""
    if as_json:
        typer.echo(json.dumps({**facts, "store": store, "estimate": estimate.as_plain()}, default=str))
        return
    _print(_lines(store, facts, estimate))


def show_training_plan(plan: "TrainingPlan", *, as_json: bool) -> None:
    """What training autoencoders takes: one JSON object on stdout, or a table."""
    if as_json:
        typer.echo(json.dumps(plan.as_plain()))
        return
    memory = plan.memory
    parts = {
        "process": memory.process,
        "weights": memory.weights,
        "moments": memory.moments,
        "dense codes": memory.codes,
        "tiles of codes": memory.tiles,
        "rows to shuffle": memory.windows,
    }
    lines = {
        "trains": f"{plan.autoencoders} autoencoders, {plan.steps:,} steps: {plan.epochs:.2g} times {plan.rows:,} rows",
        "workers": _sharing(plan),
        "memory": _total(memory.total, None, parts) + " per worker",
        "checkpoint": _bytes(plan.checkpoint_bytes),
        "a step": f"{_count(plan.flops_per_step)}FLOP",
    }
    if plan.seconds is not None:
        lines["takes"] = (
            f"{_time(plan.seconds)} at {_count(plan.flops_per_second or 0)}FLOP/s; reading and measuring apart"
        )
    _print(lines)


def _sharing(plan: "TrainingPlan") -> str:
    if plan.workers == 1:
        return "1"
    moved = "; ".join(
        f"{parts} would send {_bytes(size)}" for parts, size in plan.bytes_moved.items() if parts != plan.parts
    )
    chosen = f"{plan.workers}; latents in {plan.parts} parts: each sends {_bytes(plan.bytes_moved[plan.parts])} a step"
    return f"{chosen} ({moved})" if moved else chosen


def _print(lines: Mapping[str, str]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in lines.items():
        table.add_row(name, words)
    Console().print(table, highlight=False)


def _lines(store: str, facts: Mapping[str, Plain], estimate: "Estimate") -> dict[str, str]:
    lines = {
        "model": f"{facts['model']} ({facts['family']}), {_count(estimate.parameters)} parameters; "
        f"{_count(estimate.parameters_run)} are loaded, {estimate.depth} blocks run",
        "text": f"{facts['tokens']:,} tokens in {facts['documents']:,} documents",
        "sites": _sites(facts),
        "writes": f"{_bytes(facts['bytes'])} in {facts['files']:,} files: {facts['blocks']:,} blocks of "
        f"{facts['rows_per_block']:,} rows, {facts['dtype']}, {_bytes(estimate.row_bytes)} a token",
        "to": store,
        "on": f"{estimate.device} with {estimate.engine}: {_replicas(estimate)}",
        "takes": _duration(estimate),
        "limited by": _limit(estimate),
        **_memory(estimate),
    }
    if estimate.disk_limit is not None:
        lines["disk"] = f"{_bytes(facts['bytes'])} of {_bytes(estimate.disk_limit)} free: fits"
    if estimate.assumed:
        lines["assumed"] = "; ".join(estimate.assumed)
    if "plan" in facts:
        lines["plan"] = str(facts["plan"])
    return lines


def _sites(facts: Mapping[str, Plain]) -> str:
    names = list(map(str, facts["sites"])) if isinstance(facts["sites"], list) else []
    if len(names) <= SITES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: SITES_SHOWN - 2])} … {names[-1]} ({len(names)})"


def _replicas(estimate: "Estimate") -> str:
    number = f"{estimate.replicas} replica{'s' if estimate.replicas > 1 else ''}"
    return number if estimate.tensor_parallel == 1 else f"{number} over {estimate.tensor_parallel} GPUs each"


def _duration(estimate: "Estimate") -> str:
    took = estimate.duration
    return (
        f"{_time(took.total)} at {_count(estimate.speed.tokens_per_second)} tokens/s "
        f"(start {_time(took.start)}, blocks {_time(took.blocks)}, parity certificate {_time(took.certificate)})"
    )


def _limit(estimate: "Estimate") -> str:
    speed, rates = estimate.speed, []
    for name, rate in (("model", speed.model), ("link", speed.link), ("sink", speed.sink)):
        if rate != float("inf"):
            rates.append(f"{name} {_count(rate)} tokens/s = {_bytes(rate * estimate.row_bytes)}/s")
    return f"the {speed.bottleneck} ({'; '.join(rates)}); R_max {speed.r_max:.2f}"


def _memory(estimate: "Estimate") -> dict[str, str]:
    host = estimate.host_memory
    lines = {}
    if estimate.device_memory is not None:
        device = estimate.device_memory
        parts = {
            "weights": device.weights,
            "activations": device.activations,
            "capture": device.capture,
            "KV cache": device.kv_cache,
        }
        lines["GPU memory"] = _total(device.total, estimate.device_limit, parts)
    parts = {
        "process": host.process,
        "weights": host.weights,
        "activations": host.activations,
        "ring": host.ring,
        "store buffers": host.buffers,
    }
    lines["host memory"] = _total(host.total, estimate.host_limit, parts) + " per worker"
    return lines


def _total(total: int, limit: int | None, parts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
    fits = "" if limit is None else f" of {_bytes(limit)}: fits"
    return f"{_bytes(total)}{fits} ({shown})"


def _bytes(size: object) -> str:
    return f"{_count(float(str(size)))}B"


def _count(value: float) -> str:
    """1234567 -> `1.23 M`; bytes and counts in powers of 1000."""
    for letter, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {letter}"
    return f"{value:.3g} "


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
