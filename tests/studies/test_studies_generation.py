"""Prompts to documents to a store: the file is complete, deterministic, resumable, and extraction reads it."""

import json
from pathlib import Path

import pytest
from studies_material import config_of

from lrh_ray.cli import main
from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError, CorpusError, StoreConflict
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.sampling import Response
from lrh_ray.models.tokens import load_tokenizer
from lrh_ray.records import Document, Span
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.generation import GenerateWorker, generate
from lrh_ray.studies.generation_config import GenerateConfig
from lrh_ray.studies.generation_documents import document_lines, prompted

PROMPT = ["The capital of France is", "Ω: one, two,"]


def settings(material, name):
    return f"""\
name: {name}
runs: {material / "runs"}
model: {{name: {material / "model"}, threads: 1}}
prompts:
  texts: {json.dumps(PROMPT)}
  sources: [{{kind: jsonl, path: corpus.jsonl}}]
  max_documents: 5
sampling: {{max_new_tokens: 6}}
pool: {{replicas: 1, cpus: 1}}
block_prompts: 3
"""


def asked(material, name, *overrides):
    return parse_config(settings(material, name), GenerateConfig, source="generate.yaml", overrides=overrides)


@pytest.fixture(scope="module")
def tokenizer(material):
    return load_tokenizer(resolve_checkpoint(str(material / "model")))


@pytest.fixture(scope="module")
def facts(material, cluster):
    return generate(asked(material, "written"), folder=material)


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def test_documents_hold_prompt_and_response(material, facts):
    lines = lines_of(facts["path"])
    assert [line["id"] for line in lines[:2]] == ["prompt-0", "prompt-1"]
    assert len(lines) == facts["documents"] == 7
    for line, text in zip(lines, PROMPT, strict=False):
        marked = {span["concept"]: line["text"][span["start"] : span["end"]] for span in line["spans"]}
        assert marked["prompt"] == text
        assert marked["prompt"] + marked["response"] == line["text"]
    assert {line["labels"].get("topic") for line in lines[2:]} == {"upper", "lower"}
    sidecar = json.loads((material / "runs" / "written" / "generated.json").read_text())
    assert sidecar["sampling"] == {"max_new_tokens": 6, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    assert sidecar["response_tokens"] == sum(line["response_tokens"] for line in lines) > 0
    assert len(sidecar["model_digest"]) == 32
    assert not list((material / "runs" / "written" / "parts").rglob("*.jsonl"))


def test_the_same_request_in_other_blocks_gives_the_same_documents(material, facts):
    other = generate(asked(material, "blocks", "block_prompts=7"), folder=material)
    assert other["digest"] == facts["digest"]


def test_a_finished_file_is_returned_and_another_request_is_refused(material, facts, monkeypatch):
    monkeypatch.setattr("lrh_ray.studies.generation.map_blocks", None)
    assert generate(asked(material, "written"), folder=material) == facts
    with pytest.raises(StoreConflict, match="differ in sampling"):
        generate(asked(material, "written", "sampling.temperature=1"), folder=material)
    with pytest.raises(StoreConflict, match="prompts"):
        generate(asked(material, "written", "prompts.texts=[Other]"), folder=material)


def test_the_verb_finds_the_same_file(material, facts, capsys):
    path = material / "written.yaml"
    path.write_text(settings(material, "written"))
    with pytest.raises(SystemExit) as stop:
        main(["generate", str(path), "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out) == facts


def test_a_stopped_run_keeps_its_parts(material, facts, monkeypatch):
    """Workers run in this process, so that the second can be stopped where it stands."""
    done = []

    def one_block(pending, task, pool, cluster, *, on_receipt):
        done.append(list(pending))
        on_receipt(GenerateWorker(task).process(pending[0], "a"))
        raise KeyboardInterrupt

    monkeypatch.setattr("lrh_ray.studies.generation.map_blocks", one_block)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            generate(asked(material, "stopped"), folder=material)
    assert done == [[0, 1, 2], [1, 2]]
    monkeypatch.undo()
    assert generate(asked(material, "stopped"), folder=material)["digest"] == facts["digest"]


def test_extraction_teacher_forces_what_was_written(material, facts):
    source = f"text.sources=[{{kind: jsonl, path: {facts['path']}}}]"
    run = config_of(material, "name=forced", source, "store.min_blocks=1")
    store = open_store(extract(run, folder=material)["store"])
    lines = {line["id"]: line for line in lines_of(facts["path"])}
    lengths = {store.document_ids[int(s)]: int(n) for s, n in zip(store.plan.source, store.plan.lengths, strict=True)}
    for name, line in lines.items():
        if line["same_tokens"]:
            assert lengths[name] == line["prompt_tokens"] + line["response_tokens"]
    assert {"prompt", "response", "topic"} <= set(store.labels().concepts)


def test_text_that_is_tokenised_otherwise_is_told(tokenizer):
    (prompt,) = prompted([Document(id="a", text="né")], tokenizer, render="raw", bos="tokenizer", window=64)
    whole = tokenizer("né!", add_special_tokens=False)["input_ids"][-1]
    half = tokenizer("é", add_special_tokens=False)["input_ids"][0]  # the first byte of a character
    responses = [Response(token_ids=(whole,), ended=True), Response(token_ids=(half,), ended=False)]
    lines = document_lines([prompt, prompt], responses, tokenizer, bos="tokenizer").splitlines()
    good, broken = (json.loads(line) for line in lines)
    assert (good["text"], good["same_tokens"]) == ("né!", True)
    assert broken["same_tokens"] is False
    (empty,) = document_lines([prompt], [Response(token_ids=(), ended=True)], tokenizer, bos="tokenizer").splitlines()
    assert [span["concept"] for span in json.loads(empty)["spans"]] == ["prompt"]


def test_a_chat_is_the_text_the_model_reads(tokenizer):
    document = Document(id="a", text=" Hello Paris", spans=(Span(concept="city", value="yes", start=7, end=12),))
    (prompt,) = prompted([document], tokenizer, render="chat", bos="always", window=64)
    assert prompt.document.text.endswith("<s>[assistant]\n")
    (span,) = prompt.document.spans
    assert prompt.document.text[span.start : span.end] == "Paris"
    assert list(prompt.token_ids) == tokenizer(prompt.document.text, add_special_tokens=False)["input_ids"]


def test_names_that_would_be_confused_are_refused(tokenizer):
    with pytest.raises(CorpusError, match="'response'"):
        prompted([Document(id="a", text="b", labels={"response": "x"})], tokenizer, render="raw", bos="never", window=9)


def test_a_generation_without_prompts_is_refused(material):
    with pytest.raises(ConfigError, match="no prompts"):
        asked(material, "none", "prompts.texts=[]", "prompts.sources=[]")


@pytest.mark.model
def test_smollm2_writes_a_file_of_documents(tmp_path, cluster):
    try:
        resolve_checkpoint("smollm2")
    except FileNotFoundError:
        pytest.skip("the model smollm2 is not prepared: `lrh model prepare smollm2`")
    text = f"name: cities\nruns: {tmp_path}\nmodel: {{name: smollm2}}\nprompts: {{texts: {json.dumps(PROMPT[:1])}}}\n"
    config = parse_config(text, GenerateConfig, source="x.yaml", overrides=["sampling.max_new_tokens=2"])
    facts = generate(config, folder=tmp_path)
    (line,) = lines_of(facts["path"])
    assert line["text"] == "The capital of France is Paris."
    assert line["same_tokens"]
    assert facts["response_tokens"] == 2
