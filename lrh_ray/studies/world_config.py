"""Settings of the worlds: small languages whose truth is known, and the models trained on them.

name: language
world: {kind: language, markov: {values: [2, 2, 2], vocabulary: 32}, training: {tokens: 2000000}}
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lrh_ray.config import as_plain, settings
from lrh_ray.errors import ConfigError
from lrh_ray.records import Result
from lrh_ray.runtime.config import PoolConfig, TrainConfig
from lrh_ray.studies.run import RUN_NAME


@settings
class MarkovConfig:
    """The language: hidden concepts, each a Markov chain, that emit one token a moment."""

    values: tuple[int, ...] = (2, 2, 2)
    """Number of values of each concept; their product is the number of configurations."""

    vocabulary: int = 32
    """Tokens, at most 64; each is one letter of the documents."""

    persistence: float = 0.9
    """How probably a concept keeps its value from one token to the next."""

    sharpness: float = 1.0
    """How much a token tells of the concepts: standard deviation of the scores of its softmax."""

    length: int = 64
    """Tokens of a document, the beginning-of-sequence token not counted."""

    def __post_init__(self) -> None:
        if not 2 <= self.vocabulary <= 64:
            raise ValueError("vocabulary must lie between 2 and 64: a token is a letter")
        if not 0 <= self.persistence < 1 or self.sharpness < 0:
            raise ValueError("persistence must lie in [0, 1) and sharpness be 0 or more")
        if self.length < 8:
            raise ValueError("length must be at least 8 tokens")
        if not self.values or min(self.values) < 2:
            raise ValueError("values must name at least one concept, each of at least 2 values, for example [2, 2, 2]")


@settings
class LetterModelConfig:
    """The Llama that is trained."""

    layers: int = 4
    """Blocks."""

    hidden: int = 128
    """Width of the residual stream."""

    heads: int = 4
    """Attention heads; they divide the width."""

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.heads) < 1 or self.hidden % (2 * self.heads):
            raise ValueError("layers, hidden and heads must be positive, and hidden an even multiple of heads")


@settings
class TrainingConfig:
    """How the model learns."""

    tokens: int = 2_000_000
    """Tokens seen in all, none twice."""

    batch_tokens: int = 4096
    """Tokens of one step, over all workers."""

    rate: float = 3e-3
    """Largest learning rate."""

    checkpoints: int = 5
    """Moments of training at which the model is read, even in the logarithm of the steps, besides the untrained one."""

    def __post_init__(self) -> None:
        if min(self.tokens, self.batch_tokens, self.checkpoints) < 1 or self.rate <= 0:
            raise ValueError("tokens, batch_tokens and checkpoints must be 1 or more, and rate positive")
        if self.tokens < self.batch_tokens:
            raise ValueError("tokens must be at least batch_tokens: one step")


@settings
class LanguageWorldConfig:
    """World (c): a hidden-Markov language, a Llama trained on it, and its belief at every site and moment."""

    kind: Literal["language"] = "language"
    """What this world is."""

    markov: MarkovConfig = field(default_factory=MarkovConfig)
    """The language."""

    model: LetterModelConfig = field(default_factory=LetterModelConfig)
    """The model."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """How it learns."""

    documents: int = 400
    """Fresh documents on which it is read."""

    sites: tuple[str, ...] = ("embed", "resid.*", "attn_out.*", "mlp_out.*", "final_norm")
    """Where it is read."""

    seed: int = 0
    """Seed of language, model, and documents."""

    def __post_init__(self) -> None:
        if self.documents < 32:
            raise ValueError("documents must be at least 32: the interval needs groups of them")
        if not self.sites or self.seed < 0:
            raise ValueError("sites must name at least one, and seed be 0 or more")


@settings
class TheoremWorldConfig:
    """World (b): a few concepts, a context, a next token, and small models that learn to predict it."""

    kind: Literal["theorem"] = "theorem"
    """What this world is."""

    noises: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """How often the next token tells nothing of the concepts: the theorem is the limit 0."""

    seeds: int = 5
    """Worlds and models of each noise."""

    steps: int = 2500
    """Steps of training of each model."""

    def __post_init__(self) -> None:
        if not self.noises or not all(0 < noise < 1 for noise in self.noises):
            raise ValueError("noises must lie between 0 and 1, for example [0.3, 0.03]")
        if min(self.seeds, self.steps) < 1:
            raise ValueError("seeds and steps must be 1 or more")


@settings
class PhaseWorldConfig:
    """Worlds over a plane: how sharply the context tells the concepts, and how noisily the next token does."""

    kind: Literal["phase"] = "phase"
    """What this world is."""

    worlds: Literal["telling", "separate"] = "telling"
    """Concepts in a chain that every token may tell, or independent ones, each with tokens of its own."""

    sharpness: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Factor of the scores of context tokens."""

    noises: tuple[float, ...] = (0.5, 0.3, 0.1, 0.03, 0.01, 0.003)
    """How often the next token tells nothing."""

    values: tuple[int, ...] = (2, 2, 2)
    """Number of values of each concept."""

    seeds: int = 5
    """Worlds at each point."""

    def __post_init__(self) -> None:
        if not self.sharpness or min(self.sharpness) <= 0 or len(set(self.sharpness)) < len(self.sharpness):
            raise ValueError("sharpness must be different numbers above 0, for example [0.5, 1, 2]")
        if not self.noises or not all(0 < noise < 1 for noise in self.noises):
            raise ValueError("noises must lie between 0 and 1, for example [0.3, 0.03]")
        if not self.values or min(self.values) < 2 or self.seeds < 1:
            raise ValueError("values must name concepts of at least 2 values, for example [2, 2, 2]; seeds 1 or more")


@settings
class WorldConfig:
    """One world, from its seed to a report."""

    name: str
    """Name of the run and of its folder: letters, digits, dot, dash, underscore."""

    world: Annotated[LanguageWorldConfig | TheoremWorldConfig | PhaseWorldConfig, Field(discriminator="kind")]
    """Which world."""

    runs: str = "runs"
    """Folder that holds the run's folder, relative to where the command is started."""

    workers: TrainConfig = field(default_factory=TrainConfig)
    """Training workers."""

    pool: PoolConfig = field(default_factory=PoolConfig)
    """Model replicas of the extraction."""

    def __post_init__(self) -> None:
        if not RUN_NAME.fullmatch(self.name):
            raise ValueError(f"the name {self.name!r} must be letters, digits, '.', '-', '_', at most 100")

    @property
    def language(self) -> LanguageWorldConfig:
        """The world, where it is a language."""
        if isinstance(self.world, LanguageWorldConfig):
            return self.world
        raise ConfigError(f"world.kind is {self.world.kind!r}; this study wants a language.")

    @property
    def theorem(self) -> TheoremWorldConfig:
        """The world, where it is one of the theorem."""
        if isinstance(self.world, TheoremWorldConfig):
            return self.world
        raise ConfigError(f"world.kind is {self.world.kind!r}; this study wants a theorem.")

    @property
    def phase(self) -> PhaseWorldConfig:
        """The world, where it is a plane of them."""
        if isinstance(self.world, PhaseWorldConfig):
            return self.world
        raise ConfigError(f"world.kind is {self.world.kind!r}; this study wants a phase.")

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name

    @property
    def results_path(self) -> Path:
        return self.folder / "results"


def world_question(config: WorldConfig, title: str) -> Result:
    """The result of a study over seeds without its answer: what was asked."""
    return Result(
        kind="world",
        title=title,
        summary=(),
        asked=as_plain(config),
        resolved={**as_plain(config.world), "interval": "95 %, Student's t over seeds"},
        inputs={},
        measures=(),
    )
