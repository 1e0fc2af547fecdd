"""The configuration of one generation: prompts, model, sampling. One YAML file is one file of documents.

    name: cities
    model: {name: smollm2}
    prompts:
      texts: ["The capital of France is", "The capital of Peru is"]
    sampling: {max_new_tokens: 8}

What can go wrong: no prompts at all is a `ConfigError`.
"""

from dataclasses import field
from pathlib import Path
from typing import Literal

from lrh_ray.config import settings
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.sampling import SamplingConfig
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.studies.run import RUN_NAME
from lrh_ray.text.config import SourceConfig


@settings
class PromptConfig:
    """What the model continues."""

    texts: tuple[str, ...] = ()
    """A few prompts, named prompt-0, prompt-1 and so on."""

    sources: tuple[SourceConfig, ...] = ()
    """Where more prompts come from: every document is one; its id, labels and spans are kept."""

    render: Literal["raw", "chat"] = "raw"
    """Text as it is, or wrapped by the model's chat template as a message of the user that waits for an answer."""

    bos: Literal["tokenizer", "always", "never"] = "tokenizer"
    """Beginning-of-sequence token: as the tokenizer does by itself, always, or never. Not read with `render: chat`."""

    max_documents: int | None = None
    """Prompts to keep of the sources, spread evenly; null keeps all."""

    def __post_init__(self) -> None:
        if not self.texts and not self.sources:
            raise ValueError("there are no prompts; name some under texts, or sources of them.")
        if any(not text.strip() for text in self.texts):
            raise ValueError("a prompt under texts is empty.")


@settings
class GenerateConfig:
    """One generation, from prompts to a file of documents."""

    name: str
    """Name of the generation and of its folder: letters, digits, dot, dash, underscore."""

    model: ModelConfig
    """The checkpoint and how it is run."""

    prompts: PromptConfig
    """What is continued."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How responses are written."""

    runs: str = "runs"
    """Folder that holds the generation's folder, relative to where the command is started."""

    pool: PoolConfig = field(default_factory=PoolConfig)
    """Model replicas."""

    block_prompts: int = 64
    """Prompts of one unit of work; what a killed run has to do again at most, per replica."""

    def __post_init__(self) -> None:
        if not RUN_NAME.fullmatch(self.name):
            raise ValueError(f"the name {self.name!r} must be letters, digits, '.', '-', '_', at most 100")
        if self.block_prompts < 1:
            raise ValueError(f"block_prompts is {self.block_prompts!r}; it is at least 1.")

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name
