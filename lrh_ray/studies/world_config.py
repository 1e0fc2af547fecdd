"""Settings of the worlds: small languages whose truth is known, and the models trained on them.

name: language
world: {kind: language, markov: {values: [2, 2, 2], vocabulary: 32}, training: {tokens: 2000000}}
"""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lrh_ray.config import settings
from lrh_ray.errors import ConfigError
from lrh_ray.runtime.config import PoolConfig, TrainConfig
from lrh_ray.studies.run import RUN_NAME
from lrh_ray.studies.world_kinds import SeededConfig


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
class WorldConfig:
    """One world, from its seed to a report."""

    name: str
    """Name of the run and of its folder: letters, digits, dot, dash, underscore."""

    world: Annotated[LanguageWorldConfig | SeededConfig, Field(discriminator="kind")]
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
    def folder(self) -> Path:
        return Path(self.runs) / self.name

    @property
    def results_path(self) -> Path:
        return self.folder / "results"
