"""Control tasks: one class per token type everywhere, and a difference that tells reading from remembering."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.controls import shuffle_labels
from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.intervals import DocumentBootstrap, percentile_interval
from lrh_ray.analyses.metrics import accuracy
from lrh_ray.analyses.moments import LabelledMoments
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.analyses.selectivity import control_labels, judge_selectivity, selectivity, type_uniforms
from lrh_ray.errors import ConfigError, NotEnoughData

TYPES, S, PER = 200, 100, 30
DOCUMENTS = np.repeat(np.arange(S), PER)
N = len(DOCUMENTS)
TRAIN = DOCUMENTS < S // 2
EVERYWHERE = np.ones((N, 1), dtype=bool)


def tokens(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, TYPES, size=N).astype(np.int32)


def judged(rows: np.ndarray, labels: np.ndarray) -> HeldOut:
    """Ridge on half of the documents, scores of the other half."""
    columns = labels.shape[1]
    populations = np.zeros(columns, dtype=np.int64)
    moments = LabelledMoments.of(rows, np.zeros(rows.shape[1]), labels, TRAIN[:, None], populations).finalize()
    return HeldOut(
        scores=fit_ridge(moments, np.full((columns, 1), 1e-4)).scores(rows[~TRAIN]),
        columns=np.arange(columns),
        labels=labels[~TRAIN],
        populations=populations,
        members=EVERYWHERE[~TRAIN],
        documents=DOCUMENTS[~TRAIN] - S // 2,
        num_documents=S // 2,
    )


# --- labels ---------------------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, N), max_size=5), seed=st.integers(0, 10_000), m=st.integers(1, 5))
def test_a_type_has_one_class_whatever_block_it_is_in(cuts: list[int], seed: int, m: int) -> None:
    rng = np.random.default_rng(seed + 1)
    ids, member = tokens(seed), rng.random(N) < 0.8
    labels = np.eye(m)[rng.integers(0, m, N)] if m > 1 else rng.integers(0, 2, (N, 1)).astype(np.float64)
    rates = np.array([0.3]) if m == 1 else rng.dirichlet(np.ones(m))
    rates = rates / rates.sum() if m > 1 else rates
    whole = control_labels(labels, member, ids, rates, seed)
    blocks = [slice(a, b) for a, b in pairwise(sorted({0, N, *cuts}))]
    split = [control_labels(labels[b], member[b], ids[b], rates, seed) for b in blocks]
    assert np.array_equal(np.concatenate(split), whole)
    assert np.array_equal(whole[~member], labels[~member]), "as shuffled labels, others keep theirs"
    if m > 1:
        assert (whole.sum(axis=1) == 1).all()
    seen = np.unique(np.c_[ids, whole][member], axis=0)
    assert len(seen) == len(np.unique(ids[member])), "one class per type"


def test_classes_come_at_their_rates_and_depend_on_the_seed() -> None:
    ids = np.arange(50_000, dtype=np.int32)
    rates, member = np.array([0.6, 0.25, 0.0, 0.15]), np.ones(50_000, dtype=bool)
    one, other = (control_labels(np.zeros((50_000, 4)), member, ids, rates, seed) for seed in (1, 2))
    for labels in (one, other):
        np.testing.assert_allclose(labels.mean(axis=0), rates, atol=4 * 0.5 / np.sqrt(50_000))
        assert labels[:, 2].sum() == 0
    agreement = (one.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert agreement == pytest.approx((rates**2).sum(), abs=4 * 0.5 / np.sqrt(50_000)), "two seeds are independent"
    binary = control_labels(np.zeros((50_000, 1)), member, ids, np.array([0.1]), 3)
    assert binary.mean() == pytest.approx(0.1, abs=4 * 0.3 / np.sqrt(50_000))


def test_the_class_of_a_type_does_not_depend_on_which_types_are_there() -> None:
    few, many = np.array([7, 3], dtype=np.int32), np.arange(100_000, dtype=np.int32)
    assert np.array_equal(type_uniforms(few, 5), type_uniforms(many, 5)[[7, 3]])
    assert type_uniforms(few[:0], 5).shape == (0,)


# --- selectivity ----------------------------------------------------------------------------------------------------


def contextual(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A property of the context in 6 features beside 20 that say something of the token; ids, rows, labels."""
    rng, ids = np.random.default_rng(seed), tokens(seed + 50)
    context = rng.normal(size=(N, 6))
    rows = np.c_[context, rng.normal(size=(TYPES, 20))[ids]]
    return ids, rows, (context[:, :1] + 0.1 * rng.normal(size=(N, 1)) > 0).astype(np.float64)


def test_a_property_of_the_context_is_selective_and_a_word_list_is_not() -> None:
    ids, rows, label = contextual(1)
    everyone, rate = EVERYWHERE[:, 0], np.array([0.5])
    control = control_labels(label, everyone, ids, rate, seed=11)
    word_list = control_labels(label, everyone, ids, rate, seed=12)  # a property of the token type
    one_hot = np.eye(TYPES)[ids]
    bootstrap = DocumentBootstrap(draws=400, seed=13)
    read = judge_selectivity(judged(rows, label), judged(rows, control), 0.5, bootstrap)
    assert read.accuracy[0] > 0.9
    assert read.interval.low[0] > 0.2
    looked_up = judge_selectivity(judged(one_hot, word_list), judged(one_hot, control), 0.5, bootstrap)
    assert looked_up.accuracy[0] > 0.99
    assert looked_up.control_accuracy[0] > 0.99, "a probe on token identity remembers any labels of types"
    assert looked_up.selectivity[0] == pytest.approx(0, abs=0.01)


def test_controls_that_cannot_be_learnt_are_another_question() -> None:
    """Shuffled labels give chance where control labels give memory."""
    ids, _, label = contextual(2)
    everyone = EVERYWHERE[:, 0]
    one_hot = np.eye(TYPES)[ids]
    control = judged(one_hot, control_labels(label, everyone, ids, np.array([0.5]), seed=21))
    chance = judged(one_hot, shuffle_labels(label, everyone, DOCUMENTS, "token", np.random.default_rng(22)))
    assert accuracy(control, 0.5, control.ones)[0, 0] > 0.99
    assert accuracy(chance, 0.5, chance.ones)[0, 0] == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(N / 2))


def test_selectivity_is_the_difference_under_the_same_documents() -> None:
    ids, rows, label = contextual(3)
    task = judged(rows, label)
    control = judged(rows, control_labels(label, EVERYWHERE[:, 0], ids, np.array([0.5]), seed=31))
    weights = np.random.default_rng(32).integers(0, 3, size=(5, S // 2)).astype(np.float64)
    for b, w in enumerate(weights):
        of_row = w[task.documents]
        right = [((part.scores > 0.5) == (part.labels > 0.5))[:, 0] for part in (task, control)]
        expected = (of_row * right[0]).sum() / of_row.sum() - (of_row * right[1]).sum() / of_row.sum()
        assert selectivity(task, control, 0.5, weights)[b, 0] == pytest.approx(expected)


def test_pairing_narrows_the_interval_where_documents_are_hard_for_both() -> None:
    """Some documents are noise throughout: both probes fail on the same ones, and the difference does not vary."""
    rng = np.random.default_rng(41)
    hard = rng.random(S // 2) < 0.4
    wrong = [(rng.random(N // 2) < np.where(hard[DOCUMENTS[: N // 2]], 0.5, 0.02)) for _ in range(2)]
    base = judged(*contextual(4)[1:])
    labels = np.ones((N // 2, 1))
    task, control = (replace(base, labels=labels, scores=np.where(w, 0.0, 1.0)[:, None]) for w in wrong)
    paired = judge_selectivity(task, control, 0.5, DocumentBootstrap(draws=1000, seed=42)).interval
    apart = [
        DocumentBootstrap(draws=1000, seed=seed).apply(lambda w, p=part: accuracy(p, 0.5, w), S // 2).draws
        for seed, part in ((43, task), (44, control))
    ]
    unpaired = percentile_interval(apart[0] - apart[1])
    assert paired.high[0] - paired.low[0] < 0.5 * (unpaired.high[0] - unpaired.low[0])
    assert paired.low[0] < 0 < paired.high[0]


def test_refusals() -> None:
    ids, rows, label = contextual(5)
    for rates in ([1.2], [0.3, 0.3], [], [-0.1, 1.1]):
        with pytest.raises(ConfigError, match="Class rates"):
            control_labels(np.zeros((N, len(rates))), EVERYWHERE[:, 0], ids, np.array(rates), seed=0)
    task = judged(rows, label)
    other = replace(task, documents=task.documents[::-1].copy())
    with pytest.raises(ValueError, match="not pairs"):
        selectivity(task, other, 0.5, task.ones)
    alone = replace(task, documents=0 * task.documents, num_documents=1)
    with pytest.raises(NotEnoughData, match="1 held-out documents"):
        judge_selectivity(alone, alone, 0.5, DocumentBootstrap(draws=10, seed=0))
