"""From direction tests to measures, tables and sentences of the pair test's `Result`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrh_ray.analyses.pair_cosines import WithinCosines
from lrh_ray.analyses.pair_test import MIN_GROUPS, PairTable
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.context_study import context_measures, context_sentences, context_tables
from lrh_ray.studies.direction_study import COMPARED, Directions, UnembeddingAnswer, UnembeddingTests
from lrh_ray.studies.result_parts import site_keys

LEVEL = 0.05
FEW = f"not judged: fewer than {MIN_GROUPS} groups of words without a word in common"


def with_directions(result: Result, found: Directions, store: Store, table: PairTable) -> Result:
    """The result of the pair test, with what its words say about directions."""
    tests = found.unembedding.tests
    measures = [*_cosine_measures(found, store, table)]
    tables: list[Table] = []
    arrays: dict[str, np.ndarray] = {}
    if tests is not None:
        measures = [*_unembedding_measures(tests), *context_measures(tests.contexts, tests.pairs.table), *measures]
        tables = [
            _concepts_table(found.unembedding, tests, table),
            _inner_products_table(tests),
            *(_map_table(f"{name} inner product", tests.maps[name].cosines, tests.pairs.table) for name in COMPARED),
            *context_tables(tests.contexts, tests.pairs.table),
        ]
        arrays = dict(_arrays(tests))
    return replace(
        result,
        summary=(*result.summary, *_summary(found, table)),
        measures=(*result.measures, *measures),
        tables=(*result.tables, *tables),
        arrays={**result.arrays, **arrays},
    )


def _unembedding_measures(tests: UnembeddingTests) -> Iterator[Measure]:
    """Every concept of single-token pairs, in both inner products: projections, cosines, agreement with rows."""
    names = tests.pairs.table.concepts
    for inner in COMPARED:
        loo = tests.left_out[inner]
        keys = {"site": "unembedding", "metric": inner}
        for k, name in enumerate(names):
            controls = _null(loo.null[:, k], loo.p_values[k]) | {"auc": float(loo.auc[k])}
            yield _measure("direction_shift", loo.shift, loo.low, loo.high, k, "sd", keys | {"concept": name}, controls)
        yield from _within_measures(tests.within[inner], names, keys)
        if inner in tests.aligned:
            test, same = tests.aligned[inner].test, np.diagonal(tests.aligned[inner].same_words)
            for k, name in enumerate(names):
                controls = _null(test.null[:, k], test.p_values[k]) | {"same_words": float(same[k])}
                keys_k = {"site": "final_norm", "metric": inner, "concept": name}
                yield _measure("alignment", test.diagonal, test.low, test.high, k, "cosine", keys_k, controls)


def _cosine_measures(found: Directions, store: Store, table: PairTable) -> Iterator[Measure]:
    untrained = {(a.place.site, a.place.metric): a.within for a in found.cosines if a.place.source == "untrained"}
    for answer in found.cosines:
        if answer.place.source == "model":
            site, metric = answer.place.site, answer.place.metric
            keys = site_keys(store, site) | {"metric": metric}
            yield from _within_measures(answer.within, table.concepts, keys, untrained.get((site, metric)))


def _within_measures(
    within: WithinCosines,
    names: Sequence[str],
    keys: Mapping[str, str | int | float],
    untrained: WithinCosines | None = None,
) -> Iterator[Measure]:
    for k, name in enumerate(names):
        controls = _null(within.null[:, k], within.p_values[k]) | {"shuffled_partners": float(within.shuffled[k])}
        if untrained is not None:
            controls["untrained"] = float(untrained.cosine[k])
        named = {**keys, "concept": name}
        yield _measure("within_cosine", within.cosine, within.low, within.high, k, "cosine", named, controls)


def _null(draws: np.ndarray, p_value: float) -> dict[str, float]:
    if not np.isfinite(draws).all():
        return {}
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"null_low": float(low), "null_high": float(high), "p": float(p_value)}


def _measure(
    name: str,
    values: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    k: int,
    unit: str,
    keys: Mapping[str, str | int | float],
    controls: Mapping[str, float],
) -> Measure:
    """Concept number k of arrays over concepts; NaN is "not judged"."""
    judged = bool(np.isfinite(values[k]))
    return Measure(
        name=name,
        value=float(values[k]),
        unit=unit,
        keys=keys,
        low=float(lows[k]) if judged else None,
        high=float(highs[k]) if judged else None,
        controls={control: value for control, value in controls.items() if np.isfinite(value)},
        flags=() if judged else (FEW,),
    )


def _concepts_table(answer: UnembeddingAnswer, tests: UnembeddingTests, table: PairTable) -> Table:
    """One row for each concept of the store, single tokens or not."""
    place = {name: k for k, name in enumerate(tests.pairs.table.concepts)}
    loo, plain, within = tests.left_out["causal"], tests.left_out["euclidean"], tests.within["causal"]
    columns = (loo.shift, loo.low, loo.high, loo.auc, loo.p_values, plain.shift, within.cosine, within.shuffled)
    rows: list[tuple[Scalar, ...]] = []
    for name in table.concepts:
        numbers = [float(column[place[name]]) if name in place else float("nan") for column in columns]
        num_pairs = len(table.pairs_of(table.concepts.index(name)))
        rows.append((name, num_pairs, answer.single[name], *(round(x, 3) if np.isfinite(x) else None for x in numbers)))
    return Table(
        name="directions in the unembedding",
        description="Each pair's difference, projected on the mean difference of its concept's other pairs (causal "
        "inner product). `shift`: how far the mean lies from that of random tokens, in their standard deviations, with "
        "its interval; `auc`: how often a pair projects further than random tokens; p: words swapped, adjusted for all "
        "concepts. `cosine` is that of two pairs' differences, `shuffled` the same with second words shuffled.",
        columns=(
            *("concept", "pairs", "single tokens", "shift", "low", "high", "auc", "p"),
            *("shift, euclidean", "cosine", "shuffled"),
        ),
        rows=tuple(rows),
    )


def _inner_products_table(tests: UnembeddingTests) -> Table:
    off = ~np.eye(len(tests.pairs.table.concepts), dtype=bool)
    squares = float(np.abs(tests.vocabulary.squares[off]).mean()) if off.any() else None
    rows: list[tuple[Scalar, ...]] = [
        (name, *(round(x, 3) for x in (heat.off, heat.off_low, heat.off_high)), squares if name == "causal" else None)
        for name, heat in tests.maps.items()
    ]
    return Table(
        name="inner products",
        description="Mean |cosine| of the directions of two concepts, with its interval over groups of words. `random` "
        "has the eigenvalues of the causal inner product and random eigenvectors. `squares`: mean |correlation| over "
        "the vocabulary of squared scores, 0 if the scores of two concepts were independent and not merely "
        "uncorrelated.",
        columns=("inner product", "mean |cosine|", "low", "high", "squares"),
        rows=tuple(rows),
    )


def _map_table(name: str, cosines: np.ndarray, table: PairTable) -> Table:
    rows = tuple(
        (concept, *(round(value, 2) if np.isfinite(value) else None for value in row))
        for concept, row in zip(table.concepts, cosines.tolist(), strict=True)
    )
    return Table(
        name=name,
        description=f"|cosine| of the directions of concepts in the unembedding, {name}.",
        columns=("direction", *table.concepts),
        rows=rows,
    )


def _arrays(tests: UnembeddingTests) -> Iterator[tuple[str, np.ndarray]]:
    for name in COMPARED:
        yield f"unembedding/{name}/projections", tests.left_out[name].projections
        yield f"unembedding/{name}/null", tests.left_out[name].null
    for inner, heat in tests.maps.items():
        yield f"unembedding/{inner}/map", heat.cosines
        yield f"unembedding/{inner}/map_low", heat.low
        yield f"unembedding/{inner}/map_high", heat.high
    for inner, aligned in tests.aligned.items():
        yield f"unembedding/{inner}/alignment", aligned.test.cosines
        yield f"unembedding/{inner}/alignment_same_words", aligned.same_words


def _summary(found: Directions, table: PairTable) -> Iterator[str]:
    answer = found.unembedding
    single = sum(answer.single.values())
    if answer.tests is None:
        yield f"Directions in the unembedding were not tested ({single} pairs of single tokens): {answer.reason}"
        return
    tests = answer.tests
    loo, plain = tests.left_out["causal"], tests.left_out["euclidean"]
    judged = int(np.isfinite(loo.shift).sum())
    passed = (loo.p_values <= LEVEL) & (loo.low > 0)
    yield (
        f"Unembedding: {single} of {table.num_pairs} pairs are two single tokens, and {judged} concepts have enough of "
        f"them. In {int(passed.sum())} of these the pairs share a direction beyond swapped words (causal inner "
        f"product): left-out pairs project {np.nanmean(loo.shift):.1f} standard deviations further than random tokens "
        f"on average ({np.nanmean(plain.shift):.1f} in the Euclidean one)."
    )
    heat = {name: one.off for name, one in tests.maps.items()}
    if judged > 1:
        yield (
            f"Directions of two concepts have a mean |cosine| of {heat['causal']:.2f} in the causal inner product, "
            f"{heat['euclidean']:.2f} in the Euclidean one, and {heat['random']:.2f} in a random one."
        )
    within = tests.within["causal"]
    yield (
        f"Differences of two pairs of one concept have a mean cosine of {np.nanmean(within.cosine):.2f} in the "
        f"unembedding (causal), and {np.nanmean(within.shuffled):.2f} if second words are shuffled within the concept: "
        f"what stays is a difference of two kinds of words, and no relation within each pair."
    )
    if "causal" in tests.aligned:
        test, same = tests.aligned["causal"].test, np.diagonal(tests.aligned["causal"].same_words)
        aligned = int(((test.p_values <= LEVEL) & (test.low > 0)).sum())
        yield (
            f"Mean differences of rows agree with those of the unembedding from other words in {aligned} of {judged} "
            f"concepts: cosine {np.nanmean(test.diagonal):.2f} on average, {same[np.isfinite(loo.shift)].mean():.2f} "
            f"from the same words. A row here is of a context that holds the word, not of one that leads to it."
        )
    yield from context_sentences(tests.contexts, tests.pairs.table)
