"""The page about controls says what is true: its settings load, its code runs."""

import re
from pathlib import Path

import pytest
import yaml

from lrh_ray.config import parse_config
from lrh_ray.models.tiny import make_tiny
from lrh_ray.studies.generation_config import GenerateConfig
from lrh_ray.studies.run import RunConfig

PAGE = (Path(__file__).parents[1] / "docs" / "controls.md").read_text()
RUN = {
    "name": "x",
    "text": {"sources": [{"kind": "python-docs"}]},
    "model": {"name": "smollm2"},
    "store": {"sites": ["resid.0"]},
}


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL))
def test_settings_of_the_page_load(block):
    part = yaml.safe_load(block)
    kind, whole = (GenerateConfig, part) if "prompts" in part else (RunConfig, {**RUN, **part})
    assert parse_config(yaml.safe_dump(whole), kind, source="controls.md")


def test_code_of_the_page_runs(tmp_path, monkeypatch):
    make_tiny("llama", tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code.replace('"smollm2"', '"./tiny"'), "controls.md", "exec"), names)
    assert names["logits"].shape == (3, 258)
