"""Multinomial probes: sums of a pass, the minimum scikit-learn finds, the binary solver as its special case, a null."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from analyses_examples import Example, make_example
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from lrh_ray.analyses.logistic import LogisticProblem, in_lockstep
from lrh_ray.analyses.logistic import run_in_memory as run_binary
from lrh_ray.analyses.moments import Moments, absolute_penalties
from lrh_ray.analyses.multinomial import (
    MultinomialProblem,
    SoftmaxProposal,
    SoftmaxState,
    run_in_memory,
    solve,
)
from lrh_ray.analyses.multinomial.objective import Objective, rate_spectrum
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import ConfigError, NotEnoughData

CONCEPT = np.array([2, 3, 4])
DECADES = np.geomspace(1e-5, 1e-1, 5)


def one_hot(classes: np.ndarray, num: int) -> Example:
    """A concept of `num` classes on rows of every document; rows are filled in by the caller."""
    labels = (classes[:, None] == np.arange(num)).astype(np.float64)
    rows = np.zeros((len(classes), 1))
    everywhere = np.ones((len(classes), 1), dtype=bool)
    return Example(rows=rows, labels=labels, populations=np.zeros(num, dtype=np.int64), members=everywhere)


def unbalanced(seed: int, num_rows: int = 1500) -> Example:
    """Five classes of 40, 30, 20, 8 and 2 %, one feature of scale 100 with an offset of 3000, one of scale 0.01."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(num_rows, 6))
    logits = latent @ rng.normal(size=(6, 5)) + np.log([0.4, 0.3, 0.2, 0.08, 0.02])
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    rows = latent * [100, 1, 1, 1, 1, 0.01] + [3000, 0, 5, 0, 0, 0]
    return replace(one_hot(classes, 5), rows=rows)


def problem_of(data: Example, penalties: np.ndarray, columns: np.ndarray | None = None) -> MultinomialProblem:
    columns = np.arange(data.labels.shape[1]) if columns is None else columns
    return MultinomialProblem(moments=data.moments, columns=columns, penalties=penalties, name="colour")


def gradient_of(rows: np.ndarray, labels: np.ndarray, penalty: float, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Textbook gradient in weights and intercepts [D + 1, M]."""
    error = softmax(rows @ w + b, axis=1) - labels
    return np.vstack([rows.T @ error / len(rows) + penalty * w, error.mean(axis=0)])


def random_proposal(data: Example, seed: int, scale: float = 1.0) -> SoftmaxProposal:
    rng = np.random.default_rng(seed)
    coefficients = scale * rng.normal(size=(data.rows.shape[1] + 1, 2, 3))
    return SoftmaxProposal(turn=1, population=1, penalties=np.arange(2), coefficients=coefficients)


# --- the state of one pass ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 150), max_size=5), seed=st.integers(0, 99))
def test_any_split_and_order_of_rows_agrees(cuts: list[int], seed: int) -> None:
    data = make_example(num_rows=150, num_features=5, seed=4)
    proposal, order = random_proposal(data, seed + 100), np.random.default_rng(seed).permutation(150)
    parts = [order[a:b] for a, b in pairwise(sorted({0, 150, *cuts}))]
    states = [SoftmaxState.of(data.rows[part], data.shift, data.members[part], proposal) for part in parts]
    whole = SoftmaxState.of(data.rows, data.shift, data.members, proposal)
    for split in (merge_tree(states), merge_tree(states[::-1])):
        for name in ("partition", "gradient", "squares"):
            one, other = getattr(split, name), getattr(whole, name)
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_sums_equal_the_textbook_form(example: Example, scale: float) -> None:
    """Also for logits of thousands, where exp overflows."""
    proposal = random_proposal(example, 7, scale)
    state = SoftmaxState.of(example.rows, example.shift, example.members, proposal)
    inside = example.members[:, 1]
    x = np.c_[example.rows - example.shift, np.ones(len(example.rows))][inside]
    for penalty in range(2):
        t = x @ proposal.coefficients[:, penalty]
        p = softmax(t, axis=1)
        np.testing.assert_allclose(state.partition[penalty], logsumexp(t, axis=1).sum(), rtol=1e-12)
        np.testing.assert_allclose(state.gradient[:, penalty], x.T @ p, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(state.squares[penalty], p.T @ p, rtol=1e-9, atol=1e-12)


def test_states_of_different_proposals_do_not_merge(example: Example) -> None:
    first = SoftmaxState.of(example.rows, example.shift, example.members, random_proposal(example, 0))
    with pytest.raises(ValueError, match="proposals 1 and 2"):
        first.merge(replace(first, turn=2))


@pytest.mark.parametrize("rate", [[0.5, 0.5], [0.2, 0.3, 0.5], [1e-7, 0.3, 0.7 - 1e-7], [0.25] * 4])
def test_directions_diagonalise_the_covariance_of_the_classes(rate: list[float]) -> None:
    r = np.array(rate)
    values, vectors = rate_spectrum(r)
    assert (values > 0).all()
    assert np.abs(vectors.sum(axis=0)).max() < 1e-15
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(r) - 1), atol=1e-15)
    np.testing.assert_allclose(vectors * values @ vectors.T, np.diag(r) - np.outer(r, r), atol=1e-16)


@pytest.mark.parametrize("data", [make_example(300, 4, seed=11), unbalanced(12, 300)], ids=["balanced", "unbalanced"])
def test_objective_lies_between_its_tangent_and_the_majoriser(data: Example) -> None:
    """Between points near and far; at equal probabilities of two classes the bound is the Hessian itself."""
    columns = np.flatnonzero(data.populations == data.populations[-1])
    objective = Objective.of(problem_of(data, np.array([1e-3]), columns))
    start, rng = objective.start(), np.random.default_rng(13)

    def at(point: np.ndarray) -> tuple[float, np.ndarray]:
        state = SoftmaxState.of(data.rows, data.shift, data.members, objective.proposal(1, np.arange(1), point))
        evaluation = objective.evaluate(point, state)
        return float(evaluation.loss[0]), evaluation.gradient

    for size in (0.01, 1.0, 30.0):
        x, y = start.point + size * rng.normal(size=(2, *start.point.shape))
        (f_x, gradient), (f_y, _) = at(x), at(y)
        tangent = f_x + float((gradient * (y - x)).sum())
        assert tangent <= f_y <= tangent + float((start.majoriser * (y - x) ** 2).sum()) / 2
    fair = replace(one_hot(np.arange(300) % 2, 2), rows=data.rows)
    np.testing.assert_allclose(Objective.of(problem_of(fair, np.ones(1))).start().majoriser, 1, rtol=1e-12)


# --- the fit --------------------------------------------------------------------------------------------------------


def test_coefficients_equal_scikit_learn_over_four_decades() -> None:
    """Unbalanced classes, badly scaled features, five penalties in one solver."""
    data = unbalanced(1)
    fit = run_in_memory(problem_of(data, DECADES), [(data.rows, data.members)], tolerance=1e-11)
    assert fit.converged.all()
    classes = data.labels.argmax(axis=1)
    for penalty, readout in zip(DECADES.tolist(), fit.readouts, strict=True):
        peer = LogisticRegression(C=1 / (penalty * len(classes)), solver="newton-cholesky", tol=1e-12, max_iter=500)
        peer.fit(data.rows, classes)
        error = np.linalg.norm(readout.weights.T - peer.coef_, axis=1) / np.linalg.norm(peer.coef_, axis=1)
        assert error.max() < 1e-6
        centred = peer.intercept_ - peer.intercept_.mean()
        np.testing.assert_allclose(readout.intercepts, centred, rtol=1e-6, atol=1e-6 * np.abs(centred).max())
        np.testing.assert_allclose(readout.log_posteriors(data.rows), peer.predict_log_proba(data.rows), atol=1e-6)


def test_small_features_keep_their_digits_beside_large_ones() -> None:
    """Coefficient by coefficient: an error relative to the norm would hide the feature of scale 100."""
    data = unbalanced(2)
    fit = run_in_memory(problem_of(data, DECADES[:1]), [(data.rows, data.members)], tolerance=1e-11)
    w, b = newton(data.rows, data.labels, float(DECADES[0]))
    np.testing.assert_allclose(fit.readouts[0].weights, w, rtol=1e-6)
    np.testing.assert_allclose(fit.readouts[0].intercepts, b, rtol=1e-6)


def newton(rows: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method with halving on standardised rows and the penalty scaled along, in the gauge of sum 0."""
    mean, sd = rows.mean(axis=0), rows.std(axis=0)
    x, (_, M) = np.c_[(rows - mean) / sd, np.ones(len(rows))], labels.shape
    added = penalty / np.r_[sd, np.inf] ** 2
    v = np.zeros((x.shape[1], M))
    objective = lambda u: -(log_softmax(x @ u, axis=1) * labels).sum() / len(x) + (added[:, None] * u**2).sum() / 2  # noqa: E731
    for _ in range(100):
        p = softmax(x @ v, axis=1)
        gradient = x.T @ (p - labels) / len(x) + added[:, None] * v
        blocks = [
            [(x.T * (p[:, a] * ((a == b) - p[:, b]))) @ x / len(x) + (a == b) * np.diag(added) for b in range(M)]
            for a in range(M)
        ]
        step = np.linalg.lstsq(np.block(blocks), gradient.T.ravel(), rcond=1e-13)[0].reshape(M, -1).T
        length = 1.0
        while objective(v - length * step) > objective(v) + 1e-15 and length > 1e-6:
            length /= 2
        v = v - length * step
    assert np.abs(gradient).max() < 1e-14
    v -= v.mean(axis=1, keepdims=True)
    return v[:-1] / sd[:, None], v[-1] - mean @ (v[:-1] / sd[:, None])


def test_two_classes_are_the_binary_solver_at_half_the_penalty(example: Example) -> None:
    """|W|^2 is half of |w_1 - w_0|^2 when W sums to 0 over classes."""
    y = example.labels[:, 0]
    both = replace(example, labels=np.c_[1 - y, y], populations=np.zeros(2, dtype=np.int64))
    block = [(example.rows, example.members)]
    fit = run_in_memory(problem_of(both, DECADES), block, tolerance=1e-12)
    halved = LogisticProblem(moments=both.moments, penalties=np.tile(DECADES / 2, (2, 1)))
    binary = run_binary(halved, block, tolerance=1e-12)
    assert fit.converged.all()
    for penalty, readout in enumerate(fit.readouts):
        k = len(DECADES) + penalty
        difference = readout.weights[:, 1] - readout.weights[:, 0]
        np.testing.assert_allclose(difference, binary.readout.weights[:, k], rtol=1e-9, atol=1e-10)
        assert readout.intercepts[1] - readout.intercepts[0] == pytest.approx(binary.readout.intercepts[k], rel=1e-9)
        assert fit.loss[penalty] == pytest.approx(binary.loss[k], rel=1e-12)


def test_certificate_is_the_gradient_that_is_left(example: Example) -> None:
    """Stopped early, loss and raw gradient equal those computed anew from the rows of the concept's population."""
    problem = problem_of(example, np.array([1e-3, 1e-1]), CONCEPT)
    fit = run_in_memory(problem, [(example.rows, example.members)], max_passes=3)
    assert not fit.converged.any()
    assert fit.passes == 3
    inside = example.members[:, 1]
    rows, labels = example.rows[inside], example.labels[inside][:, CONCEPT]
    for k, readout in enumerate(fit.readouts):
        assert readout.columns.tolist() == CONCEPT.tolist()
        gradient = gradient_of(rows, labels, fit.penalties[k], readout.weights, readout.intercepts)
        assert fit.raw_gradient[k] == pytest.approx(np.abs(gradient).max(), rel=1e-6)
        nats = -(readout.log_posteriors(rows) * labels).sum(axis=1).mean()
        assert fit.loss[k] == pytest.approx(nats + fit.penalties[k] / 2 * (readout.weights**2).sum(), rel=1e-12)


def test_certificate_does_not_depend_on_units(example: Example) -> None:
    fits = []
    for unit in (1.0, 1e3):
        data = replace(example, rows=example.rows * unit)
        penalties = absolute_penalties(data.moments, [1e-4, 1e-2])[CONCEPT[0]]
        problem = problem_of(data, penalties, CONCEPT)
        fits.append(run_in_memory(problem, [(data.rows, data.members)], max_passes=2))
    np.testing.assert_allclose(fits[0].certificate, fits[1].certificate, rtol=1e-6)


def test_any_split_into_blocks_gives_one_answer() -> None:
    data = unbalanced(3)
    problem = problem_of(data, DECADES)
    blocks = [(data.rows[i : i + 197], data.members[i : i + 197]) for i in range(0, 1500, 197)]
    split, whole = (run_in_memory(problem, b, tolerance=1e-12) for b in (blocks, [(data.rows, data.members)]))
    for one, other in zip(split.readouts, whole.readouts, strict=True):
        scale = np.abs(other.weights).max(axis=1, keepdims=True)
        assert (np.abs(one.weights - other.weights) < 1e-9 * scale).all()
    again = run_in_memory(problem, blocks, tolerance=1e-12)
    assert again.readouts[0].weights.tobytes() == split.readouts[0].weights.tobytes()


def test_separable_rare_and_heavy_tailed_classes_converge() -> None:
    """Separable at a tiny penalty, a class of 3 rows among 2000, and outliers on which full steps overshoot."""
    rows = np.random.default_rng(5).standard_t(df=2, size=(2000, 8))
    classes = 1 + (rows[:, 0] > 0)
    classes[:3] = 0
    data = replace(one_hot(classes, 3), rows=rows)
    fit = run_in_memory(problem_of(data, np.array([1e-6, 1e-3])), [(rows, data.members)])
    assert fit.converged.all()
    for k, readout in enumerate(fit.readouts):
        gradient = gradient_of(rows, data.labels, fit.penalties[k], readout.weights, readout.intercepts)
        assert np.abs(gradient).max() < 1e-8


def test_converged_penalties_leave_and_concepts_share_a_reading(example: Example) -> None:
    other = unbalanced(4)
    problems = {"three": problem_of(example, np.array([1e-4, 10.0]), CONCEPT), "five": problem_of(other, DECADES)}
    data = {"three": example, "five": other}
    together, widths = in_lockstep({name: solve(problem) for name, problem in problems.items()}), []
    proposals = next(together)
    try:
        while True:
            widths += [len(proposals["five"].penalties)] if "five" in proposals else []
            proposals = together.send(
                {
                    name: SoftmaxState.of(data[name].rows, data[name].shift, data[name].members, proposal)
                    for name, proposal in proposals.items()
                }
            )
    except StopIteration as finished:
        fits = finished.value
    assert list(fits) == ["three", "five"]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] == 5
    assert sum(widths) == fits["five"].evaluations.sum()
    alone = run_in_memory(problems["five"], [(other.rows, other.members)])
    assert np.array_equal(alone.readouts[0].weights, fits["five"].readouts[0].weights)


@pytest.mark.parametrize(("strength", "bar"), [(0.5, 25), (1.5, 50), (4.0, 80)])
def test_passes_are_few(strength: float, bar: int) -> None:
    """A spectrum and offsets like a residual stream's, eight classes told apart in 37, 69 and 90 % of rows.

    20, 42 and 68 passes for all penalties together; in raw coordinates L-BFGS is far from the minimum after 200.
    """
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(4000, 64)) / np.arange(1, 65) ** 0.7
    rows[:, :2] += [60.0, -20.0]
    logits = strength * (rows - rows.mean(axis=0)) @ rng.normal(size=(64, 8))
    classes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    data = replace(one_hot(classes, 8), rows=rows)
    penalties = absolute_penalties(data.moments, [1e-4, 1e-3, 1e-2, 1e-1, 1.0])[0]
    fit = run_in_memory(problem_of(data, penalties), [(rows, data.members)], tolerance=1e-8)
    assert fit.converged.all()
    assert fit.passes <= bar
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = LogisticRegression(C=1 / (4000 * penalties[0]), tol=1e-8, max_iter=200).fit(rows, classes)
    gradients = [
        gradient_of(rows, data.labels, penalties[0], w, b)
        for w, b in ((fit.readouts[0].weights, fit.readouts[0].intercepts), (peer.coef_.T, peer.intercept_))
    ]
    assert np.abs(gradients[0]).max() < 1e-6
    assert np.abs(gradients[1]).max() > 1e-5


def test_shuffled_labels_do_not_beat_the_base_rate() -> None:
    """Twenty shuffles: held-out log-loss is above that of the training rates in each; true labels are far below."""
    data, rng = unbalanced(6), np.random.default_rng(60)
    train = np.arange(1500) < 750
    gains = [held_out_gain(data, train)]
    for _ in range(20):
        gains.append(held_out_gain(replace(data, labels=rng.permutation(data.labels)), train))
    assert gains[0] > 0.2
    assert max(gains[1:]) < 0


def held_out_gain(data: Example, train: np.ndarray) -> float:
    """Nats per held-out row by which the probe undercuts the training rates."""
    moments: Moments = replace(
        data, rows=data.rows[train], labels=data.labels[train], members=data.members[train]
    ).moments
    problem = MultinomialProblem(moments=moments, columns=np.arange(5), penalties=np.array([1e-3]))
    fit = run_in_memory(problem, [(data.rows[train], data.members[train])])
    learnt = (fit.readouts[0].log_posteriors(data.rows[~train]) * data.labels[~train]).sum(axis=1).mean()
    return float(learnt - (np.log(problem.rate) * data.labels[~train]).sum(axis=1).mean())


def test_refusals(example: Example) -> None:
    with pytest.raises(ConfigError, match=r"'colour' are \[0\.0\]"):
        problem_of(example, np.zeros(1), CONCEPT)
    with pytest.raises(ConfigError, match="at least one"):
        problem_of(example, np.zeros(0), CONCEPT)
    with pytest.raises(NotEnoughData, match="'colour' has 1 classes"):
        problem_of(example, np.ones(1), CONCEPT[:1])
    with pytest.raises(ValueError, match="not the classes of one population"):
        problem_of(example, np.ones(1), CONCEPT[:2])
    empty = replace(one_hot(np.arange(10) % 2, 3), rows=np.random.default_rng(9).normal(size=(10, 2)))
    with pytest.raises(NotEnoughData, match=r"\[2\] have no rows"):
        problem_of(empty, np.ones(1))
    with pytest.raises(ConfigError, match="tolerance=0"):
        solve(problem_of(example, np.ones(1), CONCEPT), tolerance=0)
