"""The user guide: its configuration, its data and its program run, and its tables are complete."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from lrh_ray.config import parse_config, settings
from lrh_ray.text import TAGGERS, SourceConfig, TextConfig, read_corpus

GUIDE = (Path(__file__).parents[2] / "docs" / "text.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.jsonl").write_text(block("json"))
    return tmp_path


def test_the_configuration_of_the_guide_runs(folder):
    @settings
    class Run:
        text: TextConfig
        """What is read."""

    config = parse_config(block("yaml"), Run, source="guide").text
    assert [source.kind for source in config.sources] == ["jsonl", "python-docs"]
    corpus = read_corpus(replace(config, sources=config.sources[:1]), folder=folder)
    assert [document.id for document in corpus.documents] == ["n1", "notes/a.jsonl:2"]


def test_the_program_of_the_guide_runs(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    exec(compile(block("python"), "guide", "exec"), {})
    assert capsys.readouterr().out.startswith("2 ['topic', 'number', 'place'] ")


def test_the_tables_name_everything_there_is():
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*?) \|", GUIDE, re.MULTILINE))
    del rows["kind"]  # the head of the first table
    sources = get_args(get_args(SourceConfig)[0])
    assert {name: rows.pop(name) for name in TAGGERS} == {name: tagger.description for name, tagger in TAGGERS.items()}
    assert set(rows) == {source.kind for source in sources}
    for source in sources:
        keys = set(source.__dataclass_fields__) - {"kind"}
        row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{source.kind}`"))
        assert all(f"`{key}" in row for key in keys)
