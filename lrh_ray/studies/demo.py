"""The tour: prepare a real model, extract, probe, write the report. Every step starts from what stands already."""

import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from lrh_ray.config import parse_config
from lrh_ray.models.checkpoints import prepare
from lrh_ray.records import Plain
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.probing import probe
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.reporting import write_report
from lrh_ray.studies.run import RunConfig

FULL_SOURCES = "[{kind: python-docs}, {kind: pairs}, {kind: capitals}]"
SIZES: Mapping[str, Sequence[str]] = {
    "tiny": ("name=demo-tiny", "text.max_documents=110", "store.sites=[resid.0, resid.15, resid.30]"),
    "small": (),
    "full": ("name=demo-full", f"text.sources={FULL_SOURCES}", "store.sites=['resid.*', final_norm]"),
}


def demo_config(size: str, *, runs: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of the tour at one of `SIZES`."""
    text = resources.files("lrh_ray.studies").joinpath("demo.yaml").read_text(encoding="utf-8")
    return parse_config(text, RunConfig, source="demo.yaml", overrides=[*SIZES[size], f"runs={runs}", *overrides])


def run_demo(
    size: str, *, runs: str, address: str = EMBEDDED, overrides: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Plain]:
    """Text to report; returns where everything is and how long it took."""
    progress = progress or Silent()
    started = time.monotonic()
    config = demo_config(size, runs=runs, overrides=overrides)
    progress.begin(f"preparing {config.model.name}")
    prepare(config.model.name)
    with connected(address):
        store = extract(config, folder=Path.cwd(), address=address, progress=progress)
        result = probe(config, address=address, progress=progress)
    report = config.folder / "report.html"
    progress.begin("writing the report")
    write_report([result], report, title=f"What {config.model.name} represents")
    return {
        "store": store["store"],
        "root": store["root"],
        "rows": store["rows"],
        "bytes": store["bytes"],
        "sites": store["sites"],
        "result": str(result),
        "report": str(report),
        "seconds": round(time.monotonic() - started, 1),
    }
