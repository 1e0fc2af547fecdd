"""From sums to answers about features: measures with their intervals and nulls, and reading lines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.sae.contrast import TokenContrast
from lrh_ray.analyses.sae.examples import NOTHING, TopExamples
from lrh_ray.analyses.sae.firing import Firing
from lrh_ray.errors import NotEnoughData
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.contexts import contexts
from lrh_ray.studies.feature_passes import Catalogue
from lrh_ray.studies.feature_text import TextCodes
from lrh_ray.studies.result_parts import provenance, site_keys, store_table, with_interval

DENSEST, LINES = 20, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The latents of one autoencoder, over one store."""

    store: Store
    site: str
    """Or the name of a map."""
    name: str
    catalogue: Catalogue

    def keys(self, latent: int) -> dict[str, str | int | float]:
        place = site_keys(self.store, self.site) if self.site in self.store.sites else {"site": self.site}
        return {**place, "autoencoder": self.name, "concept": f"latent {latent}"}


def make_catalogue_result(question: Result, found: Found, seconds: float) -> Result:
    """All latents: arrays of sums and of the rows with the largest codes, from which other questions are answered."""
    firing, examples = found.catalogue.firing, found.catalogue.examples
    fired = firing.fired.sum(axis=0)
    densest = np.argsort(-fired, kind="stable")[:DENSEST].tolist()
    return replace(
        question,
        summary=(
            f"{int((fired > 0).sum())} of {len(fired)} latents fire in {int(firing.rows.sum()):,} rows that stand for "
            f"text; half of those that fire do so in less than one row of {_one_in(fired, firing)}.",
        ),
        measures=tuple(_density(found, latent) for latent in densest if fired[latent]),
        tables=(store_table(found.store),),
        arrays={
            "fired": firing.fired,
            "total": firing.total,
            "rows": firing.rows,
            "examples/value": examples.value,
            "examples/row": examples.row,
            "examples/sequence": examples.sequence,
        },
        provenance=provenance(found.store, round(seconds, 1)),
    )


def _one_in(fired: np.ndarray, firing: Firing) -> int:
    return int(firing.rows.sum() / max(1.0, float(np.median(fired[fired > 0]) if fired.any() else 1)))


def catalogue_of(result: Result) -> Catalogue:
    """The state that a catalogue's result was made from."""
    arrays = result.arrays
    firing = Firing(fired=arrays["fired"], total=arrays["total"], rows=arrays["rows"])
    found = {name: arrays[f"examples/{name}"] for name in ("value", "row", "sequence")}
    return Catalogue(firing=firing, examples=TopExamples(**found))


def make_latent_result(question: Result, found: Found, latent: int) -> Result:
    """One latent: how often it fires, how strongly, and where most."""
    density, mean = _density(found, latent), found.catalogue.firing.mean[latent]
    largest = found.catalogue.examples.value[latent, 0]
    return replace(
        question,
        summary=(
            f"Latent {latent} fires in {with_interval(density)} of the rows that stand for text, with {mean:.4g} on "
            f"average and {largest:.4g} at most. Lines below are its largest codes, one of each text: the tail of what "
            f"it fires on.",
        ),
        measures=(density,),
        tables=(_examples(found, [latent], found.catalogue.examples.row.shape[1]),),
        provenance=provenance(found.store, 0.0),
    )


def make_token_result(
    question: Result, found: Found, contrast: TokenContrast, token: int, num: int, seconds: float
) -> Result:
    """The latents with the highest scores on a token, each beside what shuffled rows of the same texts reach."""
    scores, null = contrast.scores(), contrast.null_high()
    best = np.argsort(-scores, kind="stable")[:num].tolist()
    clear = int((scores > null).sum())
    own, whole = contrast.rows.sum(axis=1)
    measures = tuple(_score(found, contrast, latent, scores, null) for latent in best)
    return replace(
        question,
        summary=(
            f"{own:,} of {whole:,} rows have the token. {clear} of {len(scores)} latents fire on it more than any "
            f"latent does on as many rows of the same texts, shuffled (95 % of {len(contrast.drawn)} draws stay "
            f"below a score of {null:.3g}).",
            *(_in_words(measure) for measure in measures[:clear][:3]),
        ),
        measures=measures,
        tables=(_examples(found, best, LINES, token=token), store_table(found.store)),
        arrays={"scores": scores, "adjusted": contrast.adjusted(scores), "null": contrast.null_scores().max(axis=1)},
        provenance=provenance(found.store, round(seconds, 1)),
    )


def make_text_result(question: Result, found: Found, text: TextCodes, tokens: Sequence[str], num: int) -> Result:
    """The largest codes of each token, beside how often and how strongly those latents fire elsewhere."""
    density = found.catalogue.firing.fired.sum(axis=0) / max(1, int(found.catalogue.firing.rows.sum()))
    largest = found.catalogue.examples.value[:, 0]
    rows: list[tuple[Scalar, ...]] = []
    for position, (token, row) in enumerate(zip(tokens, _rows(text), strict=True)):
        for latent, value in sorted(row, key=lambda pair: (-pair[1], pair[0]))[:num]:
            share = float(value / largest[latent]) if largest[latent] > 0 else None
            rows.append((position, token, latent, value, share, float(density[latent]), float(text.norms[position])))
    return replace(
        question,
        summary=(
            "Codes of each token, largest first. Read a code beside the largest that its latent has in the store, and "
            "a latent beside the share of rows in which it fires: one that fires everywhere says little here.",
        ),
        tables=(
            Table(
                name="tokens",
                description="Codes of each token of the text; share: of the latent's largest code in the store; "
                "density: rows of the store in which it fires; norm of the token's row.",
                columns=("position", "token", "latent", "code", "share", "density", "norm"),
                rows=tuple(rows),
            ),
        ),
        provenance=provenance(found.store, 0.0),
    )


def _rows(text: TextCodes) -> Iterator[list[tuple[int, float]]]:
    codes = text.codes
    for value, index, count in zip(codes.value, codes.index, codes.count.tolist(), strict=True):
        yield list(zip(index[:count].tolist(), value[:count].astype(float).tolist(), strict=True))


def _density(found: Found, latent: int) -> Measure:
    density = found.catalogue.firing.density(latent)
    return Measure(
        name="density",
        value=density.value,
        unit="of rows",
        keys=found.keys(latent),
        low=density.low,
        high=density.high,
        controls={"mean_code": float(found.catalogue.firing.mean[latent])},
    )


def _score(found: Found, contrast: TokenContrast, latent: int, scores: np.ndarray, null: float) -> Measure:
    own, elsewhere = contrast.means()[:, latent]
    fired, every = contrast.fired[:, latent]
    interval, flags = _interval(contrast, latent)
    return Measure(
        name="score",
        value=float(scores[latent]),
        unit="sd",
        keys=found.keys(latent),
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        flags=flags,
        controls={
            "null_low": float(np.quantile(contrast.null_scores().min(axis=1), 0.05, method="lower")),
            "null_high": null,
            "p_adjusted": float(contrast.adjusted(scores[[latent]])[0]),
            "mean_on_token": float(own),
            "mean_elsewhere": float(elsewhere),
            "recall": float(fired / contrast.rows[0].sum()),
            "precision": float(fired / every) if every else 0.0,
        },
    )


def _interval(contrast: TokenContrast, latent: int) -> tuple[Estimate | None, tuple[str, ...]]:
    try:
        return contrast.interval(latent), ()
    except NotEnoughData as error:
        return None, (f"no interval: {error}",)


def _in_words(measure: Measure) -> str:
    controls = measure.controls
    return (
        f"{str(measure.keys['concept']).capitalize()}: score {with_interval(measure)}; it fires on "
        f"{controls['recall']:.1%} of the token's rows, and {controls['precision']:.1%} of its rows have the token."
    )


def _examples(found: Found, latents: Sequence[int], num: int, *, token: int | None = None) -> Table:
    """Reading lines of latents; with a token, whether it is the one at the line's row."""
    best = found.catalogue.examples
    lines = [(n, q) for n in latents for q in range(num) if best.row[n, q] != NOTHING]
    rows = np.array([best.row[place] for place in lines], dtype=np.int64)
    shown: list[tuple[Scalar, ...]] = []
    tokens = _token_ids(found.store, rows)
    for (latent, q), own, (before, word, after) in zip(lines, tokens, contexts(found.store, rows), strict=True):
        label = "" if token is None else "yes" if own == token else "no"
        shown.append((f"latent {latent}", found.site, float(best.value[latent, q]), label, before, word, after))
    return Table(
        name="examples",
        description="Rows with the largest codes of each latent, one of each text; the label says whether the row has "
        "the token.",
        columns=("concept", "site", "score", "label", "before", "token", "after"),
        rows=tuple(shown),
    )


def _token_ids(store: Store, rows: np.ndarray) -> list[int]:
    order = np.argsort(rows, kind="stable")
    found = np.empty(len(rows), np.int64)
    (found[order],) = store.row_arrays(("token_id",), rows[order])
    return [int(one) for one in found]
