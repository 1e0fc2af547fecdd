"""Settings of the upper bound: latents of autoencoders against supervised probes."""

from typing import Literal, TypeAlias

from lrh_ray.config import settings

CodesAs: TypeAlias = Literal["exp", "linear"]


@settings
class SaeBoundConfig:
    """How well latents match supervised probes, as published and on words held out (`lrh sae-bound CONFIG`)."""

    result: str | None = None
    """Folder of the result of `lrh sae` that has the autoencoders; null: the only one of this run."""

    sites: tuple[str, ...] = ()
    """Sites of store and result; empty for all that both have."""

    concepts: tuple[str, ...] = ("all",)
    """Of a store of labelled text: names of concepts, or `all`. A store of word pairs has all of its own."""

    rows: int = 200
    """Of a store of labelled text: rows of either class of a concept, at most."""

    codes: tuple[CodesAs, ...] = ("exp", "linear")
    """Whether exponentials of codes are correlated, as published, or the codes themselves."""

    inverse_penalty: float = 1.0
    """C of the logistic probes as scikit-learn counts it."""

    repeats: int = 20
    """Times that the words are halved for an estimate."""

    draws: int = 200
    """Draws of the null of turned signs, and of the bootstrap over groups of words."""

    seed: int = 0
    """Seed of sample, halves, signs, bootstrap and random directions."""

    def __post_init__(self) -> None:
        if not self.concepts or not self.codes or len(set(self.codes)) < len(self.codes):
            raise ValueError("concepts and codes must name at least one, each once, for example [exp, linear]")
        if not self.inverse_penalty > 0 or self.repeats < 1 or self.seed < 0:
            raise ValueError("inverse_penalty must be positive, repeats 1 or more and seed 0 or more")
        if self.rows < 20:
            raise ValueError("rows must be at least 20: half of them choose a latent, the others score it")
        if self.draws < 100:
            raise ValueError("draws must be at least 100 to give a 95 % interval")
