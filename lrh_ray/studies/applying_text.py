"""Apply what a result has fitted to a file of text: its tokens go through the same model, and its rows become codes.

    facts = apply_to_text(Path("runs/demo/results/1f3a"), Path("essay.txt"), site="resid.15", name="topk")

A result keeps the configuration of its run, and so says which model its rows are of and how documents are read. With
the text in the place of the documents that is a run of its own, whose store stands beside the run's; `applying` does
the rest.

What can go wrong: a folder of another tool keeps no configuration, and is a `ConfigError`; so is a model whose weights
are no longer those that the result read. `features --text` answers for a line without any store.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lrh_ray.artifacts import RESULT_FILE, load_result
from lrh_ray.config import parse_config
from lrh_ray.digests import digest_file, digest_json
from lrh_ray.errors import ConfigError
from lrh_ray.records import Plain
from lrh_ray.runtime.cluster import EMBEDDED
from lrh_ray.store.objects import Location
from lrh_ray.store.reader import open_sealed
from lrh_ray.studies.applying import apply_fitted
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.fitted import open_fitted
from lrh_ray.studies.progress import Progress
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_saved import require_model
from lrh_ray.text.config import JsonlSource, PlainSource
from lrh_ray.text.transforms import NONE

SOURCES = {".txt": PlainSource, ".jsonl": JsonlSource}
"""By the end of a file's name."""


def apply_to_text(
    source: Path,
    text: Path,
    *,
    site: str | None = None,
    name: str | None = None,
    target: Location | None = None,
    overrides: Sequence[str] = (),
    address: str = EMBEDDED,
    progress: Progress | None = None,
) -> dict[str, Plain]:
    """Extract the text and write its codes beside it, or finish that, or find it finished; returns facts about them.

    Args:
        source: Folder of a result.
        text: A file whose name ends with one of `SOURCES`.
        site: Of the fitted object, or a transcoder's map, where the result has several.
        name: Of the fitted object, where the result has several.
        target: Where the codes stand; None: beside the rows of the text.
        overrides: Of the configuration of the result's run, for example `pool.gpus=0`.
        address: Ray cluster.
        progress: Told about blocks.

    Raises:
        ConfigError: No such file, no configuration in the result, or a model of other weights.
        Everything that `extract` and `apply_fitted` raise.
    """
    fitted = open_fitted(source, site=site, name=name)
    config = _run_of(source, text, fitted.reads, overrides)
    extract(config, folder=Path(), address=address, progress=progress)
    require_model(load_result(source), open_sealed(config.store_location))
    return apply_fitted(
        source,
        config.store_location,
        site=site,
        name=name,
        target=target,
        pool=config.pool,
        address=address,
        progress=progress,
    )


def _run_of(source: Path, text: Path, sites: tuple[str, ...], overrides: Sequence[str]) -> RunConfig:
    """The run of the result, with this text in the place of its documents and this site alone."""
    if not text.is_file():
        raise ConfigError(f"No file {str(text)!r}. Give a store, the YAML file of a run, or a text to read.")
    if source.name != RESULT_FILE and not (source / RESULT_FILE).exists():
        raise ConfigError(
            f"{str(source)!r} does not say how its model reads text. Extract the text with a configuration "
            f"(`lrh extract`), and apply to the store."
        )
    asked = json.dumps(load_result(source).asked)
    run = parse_config(asked, RunConfig, source=f"the configuration in {str(source)!r}", overrides=overrides)
    place = f"{str(run.store_location).rstrip('/')}-text-{digest_json([digest_file(text), *sites])[:8]}"
    document = SOURCES[text.suffix](path=str(text.resolve()))
    return replace(
        run,
        text=replace(run.text, sources=(document,), concepts=(), max_documents=None, min_characters=1, transform=NONE),
        store=replace(run.store, sites=sites, rows="all", pool="none", location=place, base=None),
    )
