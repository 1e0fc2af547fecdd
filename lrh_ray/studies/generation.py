"""Generation: prompts go in, a file of documents comes out, which `text.sources` reads like any other.

What a model does shows in what it writes. A pool of replicas continues blocks of prompts; each block's documents are
one object, written once; at the end they are joined in the order of the prompts. An extraction from this file then
teacher-forces the model along its own words.

    facts = generate(config, folder=Path("."))      # runs/cities/generated.jsonl, and generated.json about it

`generated.json` holds the sampling settings and the digests of the model and of the request. Running it again resumes:
blocks that stand are left alone, and a finished file is returned as it is.

What can go wrong: a folder with the file of another request is a `StoreConflict`. Greedy text of two machines can
differ where two tokens are equally likely up to rounding; the file that stands is the one that counts.
"""

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import cast

from lrh_ray.config import as_plain
from lrh_ray.digests import digest_bytes, digest_json
from lrh_ray.errors import ConfigError, StoreConflict
from lrh_ray.models.checkpoints import Checkpoint, checkpoint_digest, tokenizer_digest
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sampling import Prompt, SamplingConfig
from lrh_ray.records import Document, Plain, Receipt
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.map import map_blocks
from lrh_ray.store.objects import Location, Objects, absolute, open_objects
from lrh_ray.studies.generation_config import GenerateConfig
from lrh_ray.studies.generation_documents import Bos, Prompted, bos_of, document_lines, prompted
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.weights import find_checkpoint
from lrh_ray.text.config import TextConfig

DOCUMENTS, FACTS = "generated.jsonl", "generated.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateTask:
    """How a worker is opened: from which model, for which prompts, and under which keys its parts go."""

    location: Location
    parts: str
    checkpoint: Checkpoint
    model: ModelConfig
    sampling: SamplingConfig
    bos: Bos
    blocks: tuple[tuple[Prompted, ...], ...]

    def open(self) -> "GenerateWorker":
        return GenerateWorker(self)

    def describe(self, block: int) -> str:
        prompts = self.blocks[block]
        return f"block {block} (prompts {prompts[0].document.id!r} to {prompts[-1].document.id!r})"

    def key(self, block: int) -> str:
        """Where a block's documents stand until all are joined."""
        return f"{self.parts}/{block:06d}.jsonl"


class GenerateWorker:
    """One model that writes the documents of the blocks it is given."""

    def __init__(self, task: GenerateTask) -> None:
        from lrh_ray.models.generate import open_generator
        from lrh_ray.models.tokens import load_tokenizer

        self._task = task
        self._generator = open_generator(task.checkpoint, task.model)
        self._tokenizer = load_tokenizer(task.checkpoint)

    def process(self, block: int, attempt: str) -> Receipt:
        """Continue the prompts of one block and put their documents, unless another attempt has."""
        started, task, prompts = time.monotonic(), self._task, self._task.blocks[block]
        named = [Prompt(name=one.document.id, token_ids=one.token_ids) for one in prompts]
        responses = self._generator.continue_prompts(named, task.sampling)
        data = document_lines(prompts, responses, self._tokenizer, bos=task.bos).encode()
        tag = open_objects(task.location).put(task.key(block), data)
        return Receipt(
            block=block,
            attempt=attempt,
            rows=len(prompts),
            num_bytes=len(data),
            seconds=time.monotonic() - started,
            worker=socket.gethostname(),
            committed=tag is not None,
        )


def generate(
    config: GenerateConfig, *, folder: Path, address: str = EMBEDDED, progress: Progress | None = None
) -> dict[str, Plain]:
    """Write the documents of `config`, or finish them, or find them finished; returns facts about them.

    Relative paths of prompts start at `folder`, the folder of the configuration.

    Raises:
        StoreConflict: The folder holds the documents of another request.
        DocumentTooLong: A prompt and its response do not fit the model's window.
        BlockFailed: A block failed on every attempt.
    """
    progress, objects = progress or Silent(), open_objects(config.folder)
    progress.begin("reading prompts")
    checkpoint = find_checkpoint(config.model, progress)
    prompts = _prompts(config, checkpoint, folder)
    request = _request(config, checkpoint, prompts)
    if (standing := _standing(objects, request)) is not None:
        return _told(config, standing)
    size = config.block_prompts
    task = GenerateTask(
        location=absolute(config.folder),
        parts=f"parts/{request['request']}",
        checkpoint=checkpoint,
        model=config.model,
        sampling=config.sampling,
        bos=bos_of(config.prompts.render, config.prompts.bos),
        blocks=tuple(prompts[first : first + size] for first in range(0, len(prompts), size)),
    )
    _write_parts(task, objects, config, address, progress)
    return _told(config, _join(task, objects, request))


def _prompts(config: GenerateConfig, checkpoint: Checkpoint, folder: Path) -> tuple[Prompted, ...]:
    from lrh_ray.models.facts import model_facts
    from lrh_ray.models.tokens import load_tokenizer

    asked, window = config.prompts, model_facts(checkpoint, config.model, ["resid.0"]).window
    documents = _documents(config, folder)
    return prompted(documents, load_tokenizer(checkpoint), render=asked.render, bos=asked.bos, window=window)


def _documents(config: GenerateConfig, folder: Path) -> Sequence[Document]:
    from lrh_ray.text.corpus import read_corpus

    asked = config.prompts
    own = tuple(Document(id=f"prompt-{index}", text=text) for index, text in enumerate(asked.texts))
    if not asked.sources:
        return own
    read = read_corpus(TextConfig(sources=asked.sources, max_documents=asked.max_documents), folder=folder).documents
    twice = {document.id for document in read} & {document.id for document in own}
    if twice:
        raise ConfigError(
            f"The id {min(twice)!r} of a source is that of a prompt under texts; rename it in the source."
        )
    return (*own, *read)


def _request(config: GenerateConfig, checkpoint: Checkpoint, prompts: Sequence[Prompted]) -> dict[str, Plain]:
    """Everything that makes the responses these and no others, with its digest under `request`."""
    asked: dict[str, Plain] = {
        "model": checkpoint.name,
        "model_digest": checkpoint_digest(checkpoint),
        "tokenizer": tokenizer_digest(checkpoint),
        "engine": config.model.engine,
        "dtype": config.model.dtype,
        "sampling": as_plain(config.sampling),
        "render": config.prompts.render,
        "bos": config.prompts.bos,
        "prompts": digest_json([[one.document.id, one.document.text, list(one.token_ids)] for one in prompts]),
        "labels": digest_json([[dict(one.document.labels), len(one.document.spans)] for one in prompts]),
    }
    return {"request": digest_json([asked, config.block_prompts]), **asked}


def _standing(objects: Objects, request: dict[str, Plain]) -> dict[str, Plain] | None:
    """Facts of the finished file, if one stands.

    Raises:
        StoreConflict: It answers another request.
    """
    found = objects.get(FACTS)
    if found is None:
        return None
    standing = cast(dict[str, Plain], json.loads(found.data))
    different = sorted(key for key, value in request.items() if standing.get(key) != value and key != "request")
    if standing["request"] != request["request"]:
        raise StoreConflict(
            f"{objects.location!r} holds documents of another request; they differ in "
            f"{', '.join(different) or 'block_prompts'}. Choose another `name`, or move that folder aside."
        )
    return standing


def _write_parts(
    task: GenerateTask, objects: Objects, config: GenerateConfig, address: str, progress: Progress
) -> None:
    pending = [block for block in range(len(task.blocks)) if objects.get(task.key(block), 0, 1) is None]
    total, left = sum(map(len, task.blocks)), sum(len(task.blocks[block]) for block in pending)
    progress.begin("generating", total, "prompts", total - left)
    if pending:
        with connected(address) as cluster:
            map_blocks(pending, task, config.pool, cluster, on_receipt=lambda one: progress.advance(one.rows))


def _join(task: GenerateTask, objects: Objects, request: dict[str, Plain]) -> dict[str, Plain]:
    """Publish the file and the facts about it, then drop the parts."""
    keys = [task.key(block) for block in range(len(task.blocks))]
    data = b"".join(part.data for part in map(objects.get, keys) if part is not None)
    lines = [json.loads(line) for line in data.split(b"\n") if line]
    facts: dict[str, Plain] = {
        **request,
        "documents": len(lines),
        "prompt_tokens": sum(line["prompt_tokens"] for line in lines),
        "response_tokens": sum(line["response_tokens"] for line in lines),
        "ended": sum(line["ended"] for line in lines),
        "same_tokens": sum(line["same_tokens"] for line in lines),
        "digest": digest_bytes(data),
        "extract_with": {"render": "raw", "bos": task.bos},
        "created_by": f"lrh-ray {metadata.version('lrh-ray')}",
    }
    _publish(objects, data)
    objects.put(FACTS, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())
    for key in keys:
        objects.delete(key)
    return facts


def _publish(objects: Objects, data: bytes) -> None:
    if objects.put(DOCUMENTS, data) is not None:
        return
    standing = objects.get(DOCUMENTS)
    if standing is None or standing.data != data:
        raise StoreConflict(
            f"{objects.location!r} holds a {DOCUMENTS} of another request. Choose another `name`, or move it aside."
        )


def _told(config: GenerateConfig, facts: dict[str, Plain]) -> dict[str, Plain]:
    """What the command prints: where the file is, and the facts beside it."""
    return {"path": str(config.folder / DOCUMENTS), **facts}
