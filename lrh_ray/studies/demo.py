"""The tour: prepare a real model, extract, probe, test word pairs, try a world of known truth, write the report.

Every step starts from what stands already.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from lrh_ray.config import parse_config
from lrh_ray.models.checkpoints import prepare
from lrh_ray.records import Plain
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.pair_config import PairTestConfig
from lrh_ray.studies.pair_study import pair_test
from lrh_ray.studies.probing import probe
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.reporting import write_report
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.theorem_world import theorem_world
from lrh_ray.studies.world_config import WorldConfig
from lrh_ray.studies.world_kinds import NoisyWorldConfig
from lrh_ray.text.config import PairsSource, TextConfig

FULL_SOURCES = "[{kind: python-docs}, {kind: pairs}, {kind: capitals}]"
SIZES: Mapping[str, Sequence[str]] = {
    "tiny": ("name=demo-tiny", "text.max_documents=110", "store.sites=[resid.0, resid.15, resid.30]"),
    "small": (),
    "full": ("name=demo-full", f"text.sources={FULL_SOURCES}", "store.sites=['resid.*', final_norm]"),
}
PAIR_TESTS: Mapping[str, PairTestConfig] = {
    "tiny": PairTestConfig(inverse_penalties=(1e-4,), metrics=("raw",), repeats=5, draws=100),
    "small": PairTestConfig(inverse_penalties=(1e-4, 1.0), metrics=("raw", "causal"), repeats=10, draws=100),
    "full": PairTestConfig(),
}
WORLDS: Mapping[str, NoisyWorldConfig] = {
    "tiny": NoisyWorldConfig(kind="theorem", noises=(0.3, 0.03), seeds=1, steps=300),
    "small": NoisyWorldConfig(kind="theorem", noises=(0.3, 0.03), seeds=2, steps=1000),
    "full": NoisyWorldConfig(kind="theorem"),
}


def demo_config(size: str, *, runs: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of the tour at one of `SIZES`."""
    text = resources.files("lrh_ray.studies").joinpath("demo.yaml").read_text(encoding="utf-8")
    return parse_config(text, RunConfig, source="demo.yaml", overrides=[*SIZES[size], f"runs={runs}", *overrides])


def pairs_config(config: RunConfig, size: str) -> RunConfig:
    """The tour's words alone, in float32: single words stand where attention sinks do."""
    return replace(
        config,
        name=f"{config.name}-pairs",
        text=TextConfig(sources=(PairsSource(carriers="none"),)),
        model=replace(config.model, dtype="float32"),
        store=replace(config.store, sites=("final_norm",), rows="last", min_blocks=2),
        pairs=PAIR_TESTS[size],
    )


def run_demo(
    size: str, *, runs: str, address: str = EMBEDDED, overrides: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Plain]:
    """Text to report; returns where everything is and how long it took."""
    progress = progress or Silent()
    started = time.monotonic()
    config = demo_config(size, runs=runs, overrides=overrides)
    words = pairs_config(config, size)
    world = WorldConfig(name=f"{config.name}-world", runs=runs, world=WORLDS[size])
    progress.begin(f"preparing {config.model.name}")
    prepare(config.model.name)
    with connected(address):
        store = extract(config, folder=Path.cwd(), address=address, progress=progress)
        results = [probe(config, address=address, progress=progress)]
        extract(words, folder=Path.cwd(), address=address, progress=progress)
        results.append(pair_test(words, address=address, progress=progress))
        results.append(theorem_world(world, address=address, progress=progress))
    report = config.folder / "report.html"
    progress.begin("writing the report")
    write_report(results, report, title=f"What {config.model.name} represents")
    return {
        "store": store["store"],
        "root": store["root"],
        "rows": store["rows"],
        "bytes": store["bytes"],
        "sites": store["sites"],
        "results": [str(result) for result in results],
        "report": str(report),
        "seconds": round(time.monotonic() - started, 1),
    }
