"""Codelength: portions double, sums over blocks and portions are the direct computation, shuffled labels cost all."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from lrh_ray.analyses.codelength import Codelength, CodeState, codelength, gaussian
from lrh_ray.analyses.lda import fit_lda
from lrh_ray.analyses.logistic import LogisticProblem
from lrh_ray.analyses.logistic import run_in_memory as run_logistic
from lrh_ray.analyses.moments import LabelledMoments, Moments, absolute_penalties
from lrh_ray.analyses.portions import Fit, PortionMoments, Portions, fit_known, prefix
from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import ConfigError, NotEnoughData

S, PER, D = 128, 12, 6
DOCUMENTS = np.repeat(np.arange(S), PER)
N = len(DOCUMENTS)
POPULATIONS = np.array([0, 0, 1, 0])
PORTIONS = Portions.draw(S, seed=77, num_portions=6)
of_row = PORTIONS.of_document[DOCUMENTS]


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and members. Columns: two clouds, noisy, skewed on 60 % of the rows, shuffled clouds."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, D)) * np.linspace(0.3, 3, D) + np.linspace(-5, 5, D)
    signal, noise = (rows - rows.mean(axis=0)) / rows.std(axis=0), rng.logistic(size=(N, 2))
    cloud = rng.random(N) < 0.5
    rows[:, 0] += 3 * cloud  # ten standard deviations
    labels = np.c_[cloud, signal[:, 1] + noise[:, 0] > 0, signal[:, 2] + noise[:, 1] > 2, rng.permutation(cloud)]
    members = np.c_[np.ones(N, dtype=bool), rng.random(N) < 0.6]
    return rows, labels.astype(np.float64), members


def moments_of(rows: np.ndarray, labels: np.ndarray, members: np.ndarray, part: np.ndarray) -> PortionMoments:
    shift = rows[:50].mean(axis=0)
    return PortionMoments.of(rows[part], shift, labels[part], members[part], POPULATIONS, of_row[part], 6)


def code_of(
    rows: np.ndarray, labels: np.ndarray, members: np.ndarray, readouts: tuple[LinearReadout, ...]
) -> CodeState:
    return CodeState.of(rows, labels, members, POPULATIONS, of_row, readouts)


def length_of(data: tuple[np.ndarray, np.ndarray, np.ndarray], fit: Fit) -> Codelength:
    state = moments_of(*data, np.arange(N))
    return codelength(state, code_of(*data, state.readouts(fit)))


def lda(moments: Moments) -> LinearReadout:
    return fit_lda(moments, shrinkage=0.05)


def ridge(moments: Moments) -> LinearReadout:
    return gaussian(fit_ridge(moments, absolute_penalties(moments, [1e-3, 1e-1, 10.0])), moments)


# --- portions -------------------------------------------------------------------------------------------------------


@given(num_documents=st.integers(2, 3000), seed=st.integers(0, 99), data=st.data())
def test_prefixes_double_and_cover_every_document_once(num_documents: int, seed: int, data: st.DataObject) -> None:
    most = int(np.log2(num_documents)) + 1
    num_portions = data.draw(st.integers(2, most))
    portions = Portions.draw(num_documents, seed, num_portions)
    sizes = np.bincount(portions.of_document, minlength=num_portions)
    assert sizes.sum() == num_documents
    assert len(sizes) == num_portions
    assert (sizes > 0).all()
    ends = sizes.cumsum()
    for before, after in pairwise(ends.tolist()):
        assert 2 * before - 1 <= after <= 2 * before
    with pytest.raises(ConfigError, match="portions that double"):
        Portions.draw(num_documents, seed, most + 1)


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, N), max_size=5), seed=st.integers(0, 99))
def test_any_split_and_order_of_rows_agrees(cuts: list[int], seed: int) -> None:
    data, order = world(), np.random.default_rng(seed + 500).permutation(N)
    parts = [order[a:b] for a, b in pairwise(sorted({0, N, *cuts}))]
    whole, split = moments_of(*data, np.arange(N)), merge_tree(moments_of(*data, part) for part in parts)
    readouts = whole.readouts(lda)
    codes = merge_tree(
        CodeState.of(*(array[part] for array in data), POPULATIONS, of_row[part], readouts) for part in parts
    )
    expected = codelength(whole, code_of(*data, readouts))
    actual = codelength(split, codes)
    for name in ("bits", "base_rate_bits", "uniform_bits"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=1e-9)
    for one, other in zip(split.readouts(lda), readouts, strict=True):
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-9, atol=1e-9)


# --- codes ----------------------------------------------------------------------------------------------------------


def test_sum_over_portions_is_the_direct_computation() -> None:
    """Each portion under scikit-learn's LDA of all rows before it, row by row."""
    rows, labels, members = data = world(1)
    length = length_of(data, lambda moments: fit_lda(moments, shrinkage=0.0))
    for c in range(4):
        inside = members[:, POPULATIONS[c]]
        total = float((of_row[inside] == 0).sum())
        for s in range(1, 6):
            before, now = inside & (of_row < s), inside & (of_row == s)
            peer = LinearDiscriminantAnalysis(solver="lsqr").fit(rows[before], labels[before, c])
            p = peer.predict_proba(rows[now])[np.arange(now.sum()), labels[now, c].astype(int)]
            assert length.bits[s, c] == pytest.approx(-np.log2(p).sum(), rel=1e-8)
            total -= np.log2(p).sum()
        assert length.online[c] == pytest.approx(total, rel=1e-9)
        assert length.uniform[c] == inside.sum()
        assert length.compression[c] == pytest.approx(inside.sum() / total, rel=1e-9)


def test_base_rate_code_is_the_one_computed_label_by_label() -> None:
    _, labels, members = data = world(2)
    length = length_of(data, lda)
    for c in range(4):
        inside = members[:, POPULATIONS[c]]
        for s in range(1, 6):
            before, now = labels[inside & (of_row < s), c], labels[inside & (of_row == s), c]
            share = (before.sum() + 0.5) / (len(before) + 1)
            expected = -np.log2(np.where(now > 0.5, share, 1 - share)).sum()
            assert length.base_rate_bits[s, c] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fit", [lda, ridge], ids=["lda", "ridge"])
def test_separable_labels_are_short_and_shuffled_ones_cost_the_base_rate(fit: Fit) -> None:
    length = length_of(world(3), fit)
    per_column = len(length.columns) // 4
    of = lambda values: values.reshape(4, per_column).min(axis=1)  # noqa: E731  # the best penalty of each column
    online, base = of(length.online), of(length.base_rate)
    assert online[0] < 0.1 * base[0], "separable"
    assert online[1] < 0.95 * base[1], "noisy"
    # a probe of D weights pays about D / 2 log2 of the doublings, some 30 bits here, to learn that there is nothing
    assert 0 < online[3] - base[3] < 0.05 * base[3], "shuffled"
    assert base[3] == pytest.approx(N, rel=0.02), "and a balanced label has no code shorter than one bit a row"


def test_mixture_never_loses_more_than_the_names_of_its_members() -> None:
    length = length_of(world(4), ridge)
    assert len(length.columns) == 12
    both = np.c_[length.online.reshape(4, 3), length.base_rate.reshape(4, 3)[:, :1]]
    best = both.min(axis=1)
    assert (length.mixture <= best + 2).all()
    assert (length.mixture >= best - 1e-9).all()
    sequential = [sequential_mixture(length, c) for c in range(4)]
    np.testing.assert_allclose(length.mixture, sequential, rtol=1e-9)


def sequential_mixture(length: Codelength, c: int) -> float:
    """Portion by portion: each is predicted by its probes, weighted with how well they did so far."""
    of_portion = np.c_[length.bits[:, 3 * c : 3 * c + 3], length.base_rate_bits[:, 3 * c]]
    weights, total = np.full(4, 0.25), 0.0
    for bits in of_portion:
        # 2^-bits underflows for long portions, so the shortest is taken out first
        likelihood = weights * 2.0 ** -(bits - bits.min())
        total += bits.min() - np.log2(likelihood.sum())
        weights = likelihood / likelihood.sum()
    return float(total)


def test_logistic_probes_of_prefixes_code_as_well() -> None:
    """The option with passes of its own: each probe is fitted on the rows of its prefix."""
    rows, labels, members = data = world(5)
    state, shift = moments_of(*data, np.arange(N)), rows[:50].mean(axis=0)

    def logistic(s: int, moments: Moments) -> LinearReadout:
        before = prefix(members, of_row, s)
        direct = LabelledMoments.of(rows, shift, labels, before, POPULATIONS).finalize()
        np.testing.assert_allclose(direct.covariance, moments.covariance, rtol=1e-9, atol=1e-12)
        problem = LogisticProblem(moments=moments, penalties=absolute_penalties(moments, [1e-3]))
        return run_logistic(problem, [(rows, before)]).readout

    readouts = tuple(
        fit_known(moments, lambda known, s=s: logistic(s, known)) for s, moments in enumerate(state.prefixes(), start=1)
    )
    length = codelength(state, code_of(*data, readouts))
    assert length.online[0] < 0.1 * length.base_rate[0]
    assert length.online[1] < 0.95 * length.base_rate[1]
    assert length.base_rate[3] < length.online[3] < 1.05 * length.base_rate[3]


def test_columns_of_one_class_so_far_cost_a_bit_a_row() -> None:
    rows, labels, members = world(6)
    labels[:, 2] = (of_row == 3) * labels[:, 2]  # first seen in portion 3
    length = length_of((rows, labels, members), lda)
    np.testing.assert_allclose(length.bits[:4, 2], length.uniform_bits[:4, 2], rtol=1e-12)
    assert abs(length.bits[4, 2] - length.uniform_bits[4, 2]) > 1
    alone = length_of((rows, world(6)[1], members), lda)
    np.testing.assert_allclose(length.bits[:, [0, 1, 3]], alone.bits[:, [0, 1, 3]], rtol=1e-12)


def test_ridge_as_a_gaussian_is_lda_without_penalty() -> None:
    """Least squares on 0/1 labels has the direction of Fisher's discriminant."""
    rows, labels, members = world(7)
    moments = LabelledMoments.of(rows, rows[:50].mean(axis=0), labels, members, POPULATIONS).finalize()
    one, other = gaussian(fit_ridge(moments, np.zeros((4, 1))), moments), fit_lda(moments, shrinkage=0.0)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(one.intercepts, other.intercepts, rtol=1e-8)


def test_refusals() -> None:
    data = world(8)
    state = moments_of(*data, np.arange(N))
    with pytest.raises(ConfigError, match="gaussian"):
        code_of(*data, state.readouts(lambda moments: fit_ridge(moments, np.ones((4, 1)))))
    empty = moments_of(*data, np.flatnonzero(of_row > 0))
    with pytest.raises(NotEnoughData, match="0 rows"):
        empty.prefixes()
