"""What a model loses when an autoencoder's reconstruction takes the place of the rows it was made from.

    task = SpliceTask(checkpoint=found, model=config.model, digest=digest, rows=rows, documents=some, readers=readers)
    losses = task("resid.15")                # [autoencoders, documents, 6] sums over tokens

Of a transcoder its outputs take the place of the rows it explains, of a crosscoder those at all of its sites at once;
what they read are the rows of the store, which nothing has changed.

A reconstruction may explain most of the variance of a site and lose what the model goes on from, or the other way
round. So held-out documents go through the model as they are, with the reconstruction at every position of the site,
and with the mean row there. Sums over the next tokens, in nats: loss of each, and KL(as they are || spliced) with the
reconstruction and with the mean row. Rows that training left out (sinks) keep their values.

A document that is too long for the model is several sequences, and these are alike. An interval is therefore one over
documents: they are what is chosen, all sequences of each are read, and sums are of whole documents.

What can go wrong: a store of chosen positions has not the rows of whole documents; sites that no edit reaches
(`models.interventions`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lrh_ray.analyses.sae.reader import Reader
from lrh_ray.errors import NotEnoughData
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.interventions import Edit, EditableModel
from lrh_ray.records import TokenBatch
from lrh_ray.studies.sae_map_config import SiteMap
from lrh_ray.studies.sae_maps import side_by_side
from lrh_ray.studies.sae_passes import TRAINING, SaeRows
from lrh_ray.studies.weights import checkpoint_here

TOKENS, CLEAN, SPLICED, MEAN, DIVERGENCE, DIVERGENCE_OF_MEAN = range(6)


@dataclass(frozen=True, kw_only=True)
class SpliceTask:
    """Measures all autoencoders of a site; runs on a worker."""

    checkpoint: Checkpoint
    model: ModelConfig
    digest: str
    rows: SaeRows
    documents: tuple[tuple[int, ...], ...]
    """Sequences of each document."""
    readers: Mapping[str, tuple[Reader, ...]]
    """Of every site, or of every map by its name."""
    centres: Mapping[str, np.ndarray]
    """Mean of what is explained."""
    maps: Mapping[str, SiteMap] = field(default_factory=dict)
    """By name; a name without a map is a site."""

    def __call__(self, name: str) -> np.ndarray:
        """Sums [autoencoders, documents, 6] over next tokens.

        Their number; losses as they are, spliced, with the mean; divergences spliced, with the mean. Costs a pass of
        the model for each autoencoder, and two more, over every sequence.
        """
        here, readers = checkpoint_here(self.checkpoint, self.model, self.digest), self.readers[name]
        sums = np.zeros((len(readers), len(self.documents), 6))
        with closing(EditableModel(here, self.model)) as model:
            for number, sequences in enumerate(self.documents):
                for sequence in sequences:
                    sums[:, number] += self._sequence(model, name, sequence)
        return sums

    def _sequence(self, model: EditableModel, name: str, sequence: int) -> np.ndarray:
        ends = self.maps.get(name, SiteMap.of_site(name))
        tokens, rows, kept = self._rows(ends.reads, sequence)
        batch, positions = _batch(tokens), tuple(np.flatnonzero(kept).tolist())
        widths = [self.rows.store().plan.site(site).width for site in ends.writes]

        def spliced(values: np.ndarray) -> Tensor:
            parts = np.split(values[kept], np.cumsum(widths[:-1], dtype=int), axis=1)
            edits = [
                Edit(site=site, kind="replace", sequence=0, positions=positions, value=part)
                for site, part in zip(ends.writes, parts, strict=True)
            ]
            return _log_probabilities(model.logits(batch, edits)[0])

        clean, centre = _log_probabilities(model.logits(batch)[0]), self.centres[name].astype(np.float32)
        mean = spliced(np.broadcast_to(centre, (len(rows), len(centre))))
        found = np.empty((len(self.readers[name]), 6))
        for number, reader in enumerate(self.readers[name]):
            x = torch.from_numpy(rows)
            with torch.no_grad():
                rebuilt = reader.decode(reader.codes(x), x).numpy()
            own = spliced(rebuilt)
            losses = (_loss(each, tokens) for each in (clean, own, mean))
            found[number] = len(tokens) - 1, *losses, _divergence(clean, own), _divergence(clean, mean)
        return found

    def _rows(self, sites: tuple[str, ...], sequence: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids [T], rows [T, D] and which of them are replaced [T] of one sequence."""
        store = self.rows.store()
        block = int(store.plan.block_of_sequence[sequence])
        keys = store.keys(block)
        inside = keys.doc == sequence
        if not np.array_equal(keys.position[inside], np.arange(inside.sum())):
            raise NotEnoughData(
                "The store keeps chosen positions only, and a document's loss takes all of them; set "
                "sae.splice_documents to 0."
            )
        replaced = keys.char_end[inside] > keys.char_start[inside]
        if self.rows.sinks == "drop":
            replaced &= ~store.sink_mask(block)[inside]
        rows = side_by_side([store.block_rows(site, block)[inside].astype(np.float32) for site in sites])
        return keys.token_id[inside], rows, replaced


def _batch(token_ids: np.ndarray) -> TokenBatch:
    nothing = np.zeros(len(token_ids), np.int32)
    return TokenBatch(
        document_ids=("document",),
        token_ids=token_ids.astype(np.int32),
        positions=np.arange(len(token_ids), dtype=np.int32),
        char_start=nothing,
        char_end=nothing,
        starts=np.array([0, len(token_ids)]),
    )


def _log_probabilities(logits: np.ndarray) -> Tensor:
    return torch.log_softmax(torch.from_numpy(logits), dim=1)


def _loss(log_probabilities: Tensor, token_ids: np.ndarray) -> float:
    """Sum over the next tokens, in nats."""
    following = torch.from_numpy(token_ids[1:].astype(np.int64))
    return -float(log_probabilities[:-1].gather(1, following[:, None]).double().sum())


def _divergence(clean: Tensor, other: Tensor) -> float:
    """Sum of KL(clean || other) over the next tokens, in nats."""
    return float((clean.exp() * (clean - other)).sum(dim=1)[:-1].double().sum())


def held_out_documents(
    rows: SaeRows, document_ids: Sequence[str], lengths: np.ndarray, number: int, *, seed: int
) -> tuple[tuple[int, ...], ...]:
    """All sequences of two tokens or more of some held-out documents; `document_ids`, `lengths` are of sequences."""
    pieces: dict[str, list[int]] = defaultdict(list)
    for sequence in np.flatnonzero((rows.group != TRAINING) & (lengths > 1)).tolist():
        pieces[document_ids[sequence]].append(sequence)
    found = [tuple(own) for own in pieces.values()]
    chosen = np.random.default_rng([seed, 1]).permutation(len(found))[:number]
    return tuple(found[document] for document in sorted(chosen.tolist()))
