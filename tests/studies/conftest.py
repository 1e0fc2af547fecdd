"""A tiny model and a small corpus with labels, shared by the tests of the studies."""

import json
from pathlib import Path

import numpy as np
import pytest

from lrh_ray.models.tiny import make_tiny
from lrh_ray.runtime.cluster import connected

WORDS = [
    "the",
    "model",
    "reads",
    "a",
    "line",
    "of",
    "text",
    "and",
    "(as",
    "ever)",
    "counts",
    "12",
    "or",
    "345",
    "words,",
    "then",
    "it",
    "stops",
]


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Path:
    """A folder with a tiny Llama, a corpus of labelled documents, and a run's configuration."""
    folder = tmp_path_factory.mktemp("material")
    make_tiny("llama", folder / "model")
    rng = np.random.default_rng(0)
    with (folder / "corpus.jsonl").open("w") as file:
        for i in range(120):
            topic = ("upper", "lower")[i % 2]
            text = " ".join(rng.choice(WORDS, size=rng.integers(6, 20)))
            text = text.upper() if topic == "upper" else text
            file.write(json.dumps({"id": f"d{i}", "text": text, "labels": {"topic": topic}}) + "\n")
    (folder / "run.yaml").write_text(
        f"""\
name: run
runs: {folder / "runs"}
text:
  sources: [{{kind: jsonl, path: corpus.jsonl}}]
  concepts: [in_parentheses, number]
model: {{name: {folder / "model"}}}
store: {{sites: [resid.0, resid.2, final_norm], min_blocks: 14}}
pool: {{replicas: 1, cpus: 1}}
probe: {{draws: 200}}
"""
    )
    return folder


@pytest.fixture(scope="session")
def cluster():
    with connected() as running:
        yield running
