"""`lrh plan`: what a run will write, how long it takes, what limits it and whether it fits, before a weight is read.

Two ways in. With a checkpoint and its text the plan is the one that `lrh extract` will seal. With a number of tokens
(`--tokens`) nothing but a config.json is needed: a known architecture, a hub id, a folder. Two kinds of place: GPUs by
type and number, from data sheets and assumptions that are listed with the answer; or this machine, measured for a few
seconds with a block of the very model and the store's own writer.

    facts, estimate = plan_by_numbers(config, tokens=10**9, target=Target(gpu="h200", gpus=8))
    estimate.speed.bottleneck, estimate.duration.total

What can go wrong: what cannot fit is refused, `TooLarge` for memory and `StoreFull` for this machine's disk, with what
would make it fit. An estimate for GPUs is as good as the assumed utilisation; a measured one as the quiet around it.
"""

from pathlib import Path

from lrh_ray.errors import ConfigError
from lrh_ray.models.meta_facts import describe_model
from lrh_ray.records import Plain
from lrh_ray.studies.extraction import Planned, plan_facts, plan_run
from lrh_ray.studies.planning_estimate import estimate
from lrh_ray.studies.planning_layout import layout_of_plan, layout_of_tokens
from lrh_ray.studies.planning_machine import own_memory
from lrh_ray.studies.planning_records import Estimate, Target
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.weights import find_description

MEAN_DOCUMENT = 1024
"""Tokens of a document on average, if nobody says."""


def plan(
    config: RunConfig,
    *,
    folder: Path,
    numbers: tuple[int, int] | None = None,
    target: Target,
    progress: Progress | None = None,
) -> tuple[dict[str, Plain], Estimate]:
    """What `lrh plan` tells: facts about the store, and the estimate.

    `numbers` are tokens and their mean number per document, for a plan without text; `folder` is where relative paths
    of the text start.
    """
    progress = progress or Silent()
    process = own_memory()
    if numbers is not None:
        tokens, mean = numbers
        return plan_by_numbers(config, tokens=tokens, mean=mean, target=target, process=process)
    planned = plan_run(config, folder=folder, progress=progress)
    progress.begin("estimating")
    return plan_with_text(config, planned, target=target, process=process)


def plan_with_text(
    config: RunConfig, planned: Planned, *, target: Target, process: int
) -> tuple[dict[str, Plain], Estimate]:
    """The estimate for a plan that exists. `process` is what Python held in memory before the text was read."""
    described = describe_model(planned.checkpoint, config.model, config.store.sites)
    layout = layout_of_plan(planned.plan, planned.context)
    return plan_facts(planned), estimate(config, described, layout, target, process)


def plan_by_numbers(
    config: RunConfig, *, tokens: int, mean: int = MEAN_DOCUMENT, target: Target, process: int = 0
) -> tuple[dict[str, Plain], Estimate]:
    """The estimate for `tokens` tokens in documents of `mean` tokens; no text and no weights are needed.

    Raises:
        ConfigError: A run that keeps chosen rows only: how many they are stands in the text.
        TooLarge, StoreFull: What cannot fit.
    """
    if config.store.rows != "all" or config.store.pool != "none":
        raise ConfigError(
            f"store.rows is {config.store.rows!r} and store.pool {config.store.pool!r}; how many rows that gives "
            "stands in the text. Plan with the text (without --tokens), or plan all rows (--set store.rows=all --set "
            "store.pool=none)."
        )
    described = describe_model(find_description(config.model.name), config.model, config.store.sites)
    layout = layout_of_tokens(tokens, mean=mean, described=described, store=config.store)
    facts: dict[str, Plain] = {
        "model": described.name,
        "family": described.tree.model_type,
        "documents": layout.documents,
        "tokens": layout.tokens,
        "sites": [site.name for site in layout.sites],
        "dtype": layout.dtype,
        "blocks": layout.blocks,
        "rows_per_block": layout.rows_per_block,
        "chunk_rows": layout.chunk_rows,
        "bytes": layout.num_bytes,
        "files": layout.objects,
    }
    return facts, estimate(config, described, layout, target, process)
