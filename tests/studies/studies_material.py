"""The configuration of a run on the material that the tests of the studies share."""

from pathlib import Path

from lrh_ray.config import parse_config
from lrh_ray.studies.run import RunConfig


def config_of(material: Path, *overrides: str) -> RunConfig:
    text = (material / "run.yaml").read_text()
    return parse_config(text, RunConfig, source="run.yaml", overrides=overrides)
