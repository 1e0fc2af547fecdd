"""World (c): a language of hidden concepts, a Llama that learns it, and how it comes to hold the ideal reader's belief.

    lrh world CONFIG

Five steps, each of which starts from what stands already: a world is drawn and its test documents written; a small
Llama with its first weights is made; it is trained on fresh documents (the verb `train`); every checkpoint, the
untrained one first, is extracted by the ordinary extractor; and every site of every checkpoint is held against the
exact filtered posterior. All of it lies in a folder named by the digest of the settings, so another world never meets
the leftovers of this one.

What can go wrong: the mistakes of the stages, as they name them. A training run that was killed goes on from its last
checkpoint; a store that was begun is finished.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.worlds.hidden_markov import HiddenMarkovWorld
from lrh_ray.artifacts import save_result, standing_result
from lrh_ray.collective import Share
from lrh_ray.config import as_plain
from lrh_ray.digests import digest_json
from lrh_ray.durable import write_durably
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.letters import bos_id, make_letter_llama, spell
from lrh_ray.models.pretraining import LanguageLearner, Pretraining
from lrh_ray.records import Plain, Result
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.train import train
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.reader import open_store
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.language_reading import Moment, read_language
from lrh_ray.studies.language_result import make_language_result
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.world_config import LanguageWorldConfig, WorldConfig
from lrh_ray.text.config import JsonlSource, TextConfig

DOCUMENTS_FILE = "documents.jsonl"


def markov_world(config: LanguageWorldConfig) -> HiddenMarkovWorld:
    """The language of a configuration."""
    markov = config.markov
    return HiddenMarkovWorld.random(
        np.random.default_rng([config.seed, 0]),
        values=markov.values,
        vocabulary=markov.vocabulary,
        persistence=markov.persistence,
        sharpness=markov.sharpness,
    )


def reading_tokens(config: LanguageWorldConfig) -> np.ndarray:
    """Documents on which models are read [documents, length]; training never sees them."""
    rng = np.random.default_rng([config.seed, 1])
    return markov_world(config).draw(config.documents, config.markov.length, rng)[0]


@dataclass(frozen=True, kw_only=True)
class FreshDocuments:
    """Step -> token ids [B, 1 + length] of new documents, `<s>` first; a pure function of the step."""

    config: LanguageWorldConfig
    world: HiddenMarkovWorld

    @property
    def batch(self) -> int:
        """Documents of one step."""
        return max(1, self.config.training.batch_tokens // self.config.markov.length)

    @property
    def num_steps(self) -> int:
        return max(1, self.config.training.tokens // (self.batch * self.config.markov.length))

    def __call__(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.config.seed, 2, step])
        tokens, _ = self.world.draw(self.batch, self.config.markov.length, rng)
        first = np.full((self.batch, 1), bos_id(self.config.markov.vocabulary))
        return torch.from_numpy(np.concatenate([first, tokens], axis=1))


@dataclass(frozen=True, kw_only=True)
class LanguageTask:
    """Opens a learner of the language on a worker."""

    config: LanguageWorldConfig
    checkpoint: Path

    def open(self, share: Share, device: str | torch.device = "cpu") -> LanguageLearner:
        batches = FreshDocuments(config=self.config, world=markov_world(self.config))
        recipe = Pretraining(steps=batches.num_steps, rate=self.config.training.rate)
        return LanguageLearner(self.checkpoint, batches, recipe, share, device)


def moments_of(num_steps: int, num: int) -> tuple[int, ...]:
    """Steps at which the model is kept: 0, then `num` of them evenly spaced in their logarithm, the last included."""
    spaced = np.geomspace(max(1.0, num_steps / 2.0 ** (2 * (num - 1))), num_steps, num)
    return tuple(sorted({0, *(round(step) for step in spaced.tolist())}))


def language_world(config: WorldConfig, *, address: str = EMBEDDED, progress: Progress | None = None) -> Path:
    """Make the world, train, extract, read; returns the folder of the result, at once if it was answered before."""
    progress, started = progress or Silent(), time.monotonic()
    question = _question(config)
    if standing := standing_result(question, config.results_path):
        return standing
    place = config.folder / _digest(config)[:12]
    _write_documents(place / DOCUMENTS_FILE, reading_tokens(config.language))
    with connected(address):
        checkpoints = _train(config, place, progress)
        moments = []
        for step, checkpoint in checkpoints.items():
            run = _extraction(config, place, step, checkpoint)
            progress.say(f"reading the model after {step} steps")
            extract(run, folder=place, address=address, progress=progress)
            moments.append(Moment(step=step, location=run.store_location, checkpoint=checkpoint))
        progress.begin(f"holding {len(moments)} models against the exact posterior")
        reading = read_language(
            config.language, markov_world(config.language), reading_tokens(config.language), moments
        )
    stores = {f"step {moment.step}": open_store(moment.location) for moment in moments}
    seconds = round(time.monotonic() - started, 1)
    return save_result(make_language_result(question, stores, reading, seconds), config.results_path)


def _question(config: WorldConfig) -> Result:
    resolved: dict[str, Plain] = {
        **as_plain(config.language),
        "workers": config.workers.workers,
        "interval": "95 %, jackknife over groups of documents",
    }
    return Result(
        kind="world",
        title=f"A language of hidden concepts: {config.name}",
        summary=(),
        asked=as_plain(config),
        resolved=resolved,
        inputs={"world": _digest(config)},
        measures=(),
    )


def _digest(config: WorldConfig) -> str:
    """Of everything that a checkpoint depends on."""
    return digest_json({"world": as_plain(config.language), "workers": config.workers.workers})


def _write_documents(path: Path, tokens: np.ndarray) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": f"t{index:06d}", "text": spell(row)}) for index, row in enumerate(tokens)]
    write_durably(path, ("\n".join(lines) + "\n").encode("ascii"))


def _train(config: WorldConfig, place: Path, progress: Progress) -> Mapping[int, Path]:
    """Every checkpoint by its number of steps."""
    world, model = config.language, config.language.model
    first = make_letter_llama(
        place / "model",
        letters=world.markov.vocabulary,
        window=world.markov.length + 1,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        seed=world.seed,
    )
    batches = FreshDocuments(config=world, world=markov_world(world))
    done = [0]

    def on_step(step: int, _metrics: Mapping[str, float]) -> None:
        progress.advance((step - done[0]) * batches.batch * world.markov.length)
        done[0] = step

    progress.begin("training a small Llama", batches.num_steps * batches.batch * world.markov.length, "tokens")
    return train(
        LanguageTask(config=world, checkpoint=first.resolve()),
        config.workers,
        steps=batches.num_steps,
        save_at=moments_of(batches.num_steps, world.training.checkpoints),
        folder=place,
        name="training",
        on_step=on_step,
    )


def _extraction(config: WorldConfig, place: Path, step: int, checkpoint: Path) -> RunConfig:
    """The ordinary run that reads one checkpoint."""
    return RunConfig(
        name=f"step-{step}",
        runs=str(place),
        text=TextConfig(sources=(JsonlSource(path=DOCUMENTS_FILE),)),
        model=ModelConfig(name=str(checkpoint), batch_tokens=8192),
        store=StoreConfig(sites=config.language.sites, min_blocks=2),
        pool=config.pool,
    )
