"""Settings of the evaluation of trained autoencoders."""

from typing import Literal, TypeAlias

from lrh_ray.config import settings

TestName: TypeAlias = Literal["sparse_probing", "perturbation", "absorption", "description_length"]


@settings
class SaeEvaluationConfig:
    """What trained autoencoders are good for, beyond variance explained (`lrh sae-evaluate CONFIG`)."""

    result: str | None = None
    """Folder of the result of `lrh sae` that has the autoencoders; null: the only one of this run."""

    sites: tuple[str, ...] = ()
    """Sites of store and result; empty for all that both have."""

    tests: tuple[TestName, ...] = ("sparse_probing", "perturbation", "absorption", "description_length")
    """Concepts from few latents; concepts taken out with their latents; letters that other latents take over; bits a
    row. The first two ask for a store with labels, the third for one with words that are one token."""

    concepts: tuple[str, ...] = ("all",)
    """Of the first two tests: names of concepts of the store's labels, or `all`."""

    rows: int = 1000
    """Of the first two tests: rows of either class of a concept, in the training and in the held-out documents each; in
    the validation documents half as many."""

    sizes: tuple[int, ...] = (1, 2, 5, 10, 20)
    """Numbers of latents that are read, ascending; the last is also how many are taken out."""

    words: int = 4000
    """Of absorption: different words, at most."""

    draws: int = 400
    """Bootstrap draws over held-out documents or words."""

    seed: int = 0
    """Seed of split, samples, bootstrap, random latents and random directions."""

    def __post_init__(self) -> None:
        if not self.tests or len(set(self.tests)) < len(self.tests):
            raise ValueError("tests must name at least one, each once, for example [sparse_probing, perturbation]")
        if not self.concepts:
            raise ValueError("concepts must name at least one, or all: [all]")
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)) or self.sizes[0] < 1:
            raise ValueError("sizes must ascend from 1 or more, each once, for example [1, 2, 5]")
        if self.rows < 20 or self.words < 100 or self.seed < 0:
            raise ValueError("rows must be 20 or more, words 100 or more, seed 0 or more")
        if self.draws < 100:
            raise ValueError("draws must be at least 100 to give a 95 % interval")
