"""Passages of latents as a result keeps them: a table with a row for each, and three arrays of their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.records import Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.sae_latents import BY_CHANCE, LEAST_ROWS, STRONGEST, Passage, ShownLatents

NAME = "latents"
LONGEST = 800
"""Characters of a passage; a row that stands for a whole document may have more."""


@dataclass(frozen=True, kw_only=True)
class SiteLatents:
    """The latents shown of one site, and their passages."""

    site: str
    shown: tuple[ShownLatents, ...]
    passages: tuple[Passage, ...]


def latents_table(store: Store, found: Sequence[SiteLatents], num: int) -> Table:
    """A row for each passage; `latents_arrays` are about the same rows."""
    texts, rows = store.texts, []
    for of_site in found:
        largest = _largest(of_site.passages)
        for one in of_site.passages:
            shown = of_site.shown[one.wanted.autoencoder]
            told: tuple[Scalar, ...] = (
                of_site.site,
                shown.name,
                int(shown.latents[one.wanted.latent]),
                float(f"{shown.density[one.wanted.latent]:.4g}"),
                float(f"{largest[one.wanted.autoencoder, one.wanted.latent]:.5g}"),
                "strongest" if one.wanted.strongest else "by chance",
                float(f"{one.code:.5g}"),
                store.document_ids[one.sequence],
                _text(texts[one.sequence], one),
            )
            rows.append(told)
    return Table(
        name=NAME,
        description=f"What latents fire on, in held-out documents. Of those that fire in {LEAST_ROWS} rows or more, "
        f"ranked by how many, the middle one of each of {num} equal parts is shown: nobody chose them. Of each: the "
        f"{STRONGEST} sequences with its largest codes, and {BY_CHANCE} drawn from all rows it fires in. A shade is "
        f"the code of a token over the largest of that latent shown.",
        columns=(
            *("site", "autoencoder", "latent", "share of rows", "largest code"),
            *("shown as", "code", "document", "text"),
        ),
        rows=tuple(rows),
    )


def latents_arrays(found: Sequence[SiteLatents]) -> Mapping[str, np.ndarray]:
    """Tokens of all passages, end to end: where each passage starts, their borders in its text, their codes."""
    passages = [one for of_site in found for one in of_site.passages]
    lengths = [len(one.codes) for one in passages]
    spans = [np.minimum(one.spans - one.spans[0, 0], LONGEST) for one in passages]
    return {
        f"{NAME}/starts": np.cumsum([0, *lengths]).astype(np.int64),
        f"{NAME}/spans": np.concatenate([np.empty((0, 2)), *spans]).astype(np.int32),
        f"{NAME}/codes": np.concatenate([np.empty(0), *(one.codes for one in passages)]).astype(np.float32),
    }


def _text(text: str, passage: Passage) -> str:
    return text[int(passage.spans[0, 0]) : int(passage.spans[:, 1].max())][:LONGEST]


def _largest(passages: Sequence[Passage]) -> Mapping[tuple[int, int], float]:
    """Of each autoencoder and latent."""
    found: dict[tuple[int, int], float] = {}
    for one in passages:
        key = one.wanted.autoencoder, one.wanted.latent
        found[key] = max(found.get(key, 0.0), one.code)
    return found
