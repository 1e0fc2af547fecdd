import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from lrh_ray.config import as_yaml, config_schema, parse_config, settings
from lrh_ray.errors import ConfigError
from lrh_ray.text import JsonlSource, PythonDocsSource, SourceConfig, TextConfig

SOURCES = get_args(get_args(SourceConfig)[0])


@settings
class Run:
    text: TextConfig
    """What is read."""


def parse(text: str) -> TextConfig:
    return parse_config(text, Run, source="run.yaml").text


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_a_module_of_its_name(source):
    module = import_module(f"lrh_ray.text.{source.kind.replace('-', '_')}")
    assert callable(module.read)
    assert all(isinstance(text, str) for text in module.DESCRIPTIONS.values())


def test_a_configuration_survives_yaml():
    config = TextConfig(sources=(JsonlSource(path="a.jsonl"), PythonDocsSource()), concepts=("number",))
    assert parse_config(as_yaml(config), TextConfig, source="again.yaml") == config


def test_settings_are_few_and_each_is_described():
    schema = config_schema(TextConfig)
    for definition in [schema, *schema["$defs"].values()]:
        assert len(definition["properties"]) < 10
        assert all(field.get("description") for field in definition["properties"].values())


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("text:\n  sources:\n    - kind: jsonl\n      pth: a\n", r"run.yaml:[34]: unknown key 'pth'"),
        (
            "text:\n  sources:\n    - kind: plain\n      path: a\n      splt: file\n",
            r"run.yaml:[35]: unknown key 'splt'",
        ),
        ("text:\n  sources:\n    - kind: json\n      path: a\n", "run.yaml:3: .*'json'.*jsonl"),
        ("text:\n  sources:\n    - kind: jsonl\n", "run.yaml:3: .*path"),
        ("text:\n  sources: []\n", "run.yaml:1: text: sources is empty; .*python-docs"),
        ("text:\n  sources: [{kind: pairs}]\n  max_documents: 0\n", "run.yaml:1: text: max_documents is 0; "),
        ("text:\n  sources: [{kind: pairs}]\n  min_characters: 0\n", "run.yaml:1: text: min_characters is 0; "),
        ("text:\n  sources: [{kind: pairs}]\n  concepts: [nmber]\n", "run.yaml:1: .*'nmber'; did you mean 'number'?"),
        ("text:\n  sources: [{kind: hub, name: a, limit: 0}]\n", "run.yaml:2: .*limit is 0; "),
        ("text:\n  sources: [{kind: pairs, groups: [nmber]}]\n", "run.yaml:2: .*'number'"),
        ("text:\n  sources: [{kind: pairs}]\n  malfomed: skip\n", "run.yaml:3: .*did you mean 'malformed'?"),
    ],
)
def test_a_mistake_names_file_line_and_remedy(yaml, message):
    with pytest.raises(ConfigError, match=message):
        parse(yaml)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["text.max_documents=0", "text.sources=[{kind: pairs}]"], "^--set: text: max_documents is 0; "),
        (["text.sources=pairs"], r"^--set text.sources: this is a list; write \[one, other\] \(given: 'pairs'\)$"),
        (["text.sources=[{kind: hub, name: a, limit: 0}]"], "^--set text.sources: text.sources.0: limit is 0; "),
        (
            ["text.sources=[{kind: pairs}, {kind: hub, name: a, limit: eight}]"],
            "^--set text.sources: text.sources.1.limit: .*integer.*'eight'",
        ),
        (["text.sources=[{kind: pairs, kind: hub}]"], "^--set text.sources: the key 'kind' appears twice"),
        (["text=3"], r"^--set text: these are settings; write \{key: value\}"),
    ],
)
def test_a_mistake_on_the_command_line_names_the_setting_at_fault(overrides, message):
    """And no other that happened to be given first."""
    with pytest.raises(ConfigError, match=message):
        parse_config("", Run, source="run.yaml", overrides=overrides)


def test_importing_the_stage_is_light():
    code = "import lrh_ray.text, sys; print(*{'pyarrow', 'datasets', 'torch', 'ray', 'zarr'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert loaded.stdout.split() == []
