"""Settings and records of generation: what is continued, how the next token is chosen, what came out.

Imports no torch; the model is in `lrh_ray.models.generate`.
"""

from dataclasses import dataclass

from lrh_ray.config import settings
from lrh_ray.errors import ConfigError


@settings
class SamplingConfig:
    """How responses are written."""

    max_new_tokens: int = 64
    """Tokens of a response at most; it ends earlier at an end-of-sequence token."""

    temperature: float = 0.0
    """Divisor of the logits; 0 takes the likeliest token every time (greedy)."""

    top_p: float = 1.0
    """Tokens are drawn among the likeliest that together have this probability; 1 leaves all. Not read when greedy."""

    seed: int = 0
    """Seed of the draws: with the document's id it decides a response. Not read when greedy."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens!r}; a response has at least 1 token.")
        if self.temperature < 0:
            raise ConfigError(f"temperature is {self.temperature!r}; it is 0 for greedy, or above.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p!r}; it must be in (0, 1].")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed!r}; it is 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What is continued; `name` seeds its draws."""

    name: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """Tokens after the prompt, without the end-of-sequence token; `ended` says that the model wrote one."""

    token_ids: tuple[int, ...]
    ended: bool
