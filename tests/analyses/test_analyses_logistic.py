from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from analyses_examples import Example, make_example
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from lrh_ray.analyses.logistic import LogisticProblem, LossState, Proposal, in_lockstep, run_in_memory, solve
from lrh_ray.analyses.moments import absolute_penalties
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import ConfigError, NotEnoughData

RELATIVE = [1e-4, 1e-2]


def problem_of(data: Example, relative: list[float] = RELATIVE) -> LogisticProblem:
    moments = data.moments
    return LogisticProblem(moments=moments, penalties=absolute_penalties(moments, relative))


def oracle(rows: np.ndarray, y: np.ndarray, penalty: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (penalty * len(y)), solver="newton-cholesky", tol=1e-10, max_iter=500)
    return model.fit(rows, y)


def random_proposal(data: Example, seed: int, scale: float = 1.0) -> Proposal:
    rng = np.random.default_rng(seed)
    coefficients = scale * rng.normal(size=(data.rows.shape[1] + 1, 4))
    return Proposal(turn=1, probes=np.arange(4), populations=np.array([0, 1, 0, 1]), coefficients=coefficients)


# --- the state of one pass ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 150), max_size=5), seed=st.integers(0, 99))
def test_any_split_and_order_of_rows_agrees(cuts: list[int], seed: int) -> None:
    data = make_example(num_rows=150, num_features=5, seed=4)
    proposal, order = random_proposal(data, seed), np.random.default_rng(seed).permutation(150)
    edges = sorted({0, 150, *cuts})
    parts = [order[a:b] for a, b in pairwise(edges)]
    states = [LossState.of(data.rows[part], data.shift, data.members[part], proposal) for part in parts]
    whole = LossState.of(data.rows, data.shift, data.members, proposal)
    for split in (merge_tree(states), merge_tree(states[::-1])):
        np.testing.assert_allclose(split.partition, whole.partition, rtol=1e-9)
        np.testing.assert_allclose(split.gradient, whole.gradient, rtol=1e-9, atol=1e-9 * np.abs(whole.gradient).max())


@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_loss_and_gradient_equal_the_textbook_form(example: Example, scale: float) -> None:
    """Also for logits of thousands, where exp overflows."""
    proposal = random_proposal(example, 0, scale)
    state = LossState.of(example.rows, example.shift, example.members, proposal)
    x = np.c_[example.rows - example.shift, np.ones(len(example.rows))]
    for k, p in enumerate(proposal.populations):
        inside = example.members[:, p]
        t = x[inside] @ proposal.coefficients[:, k]
        expected = (np.logaddexp(0, t) - t / 2).sum()
        np.testing.assert_allclose(state.partition[k], expected, rtol=1e-12)
        np.testing.assert_allclose(state.gradient[:, k], x[inside].T @ (expit(t) - 0.5), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(state.curvature[k], (expit(t) * expit(-t)).sum(), rtol=1e-9, atol=1e-12)


def test_states_of_different_proposals_do_not_merge(example: Example) -> None:
    first = LossState.of(example.rows, example.shift, example.members, random_proposal(example, 0))
    later = replace(first, turn=2)
    with pytest.raises(ValueError, match="proposals 1 and 2"):
        first.merge(later)


# --- the fit --------------------------------------------------------------------------------------------------------


def test_coefficients_equal_newton_cholesky(example: Example) -> None:
    problem = problem_of(example)
    fit = run_in_memory(problem, [(example.rows, example.members)])
    assert fit.converged.all()
    assert (fit.certificate <= 1e-9).all()
    for k in range(10):
        rows, y = example.of_column(k // 2)
        expected = oracle(rows, y, problem.penalties[k // 2, k % 2])
        error = np.linalg.norm(fit.readout.weights[:, k] - expected.coef_[0]) / np.linalg.norm(expected.coef_[0])
        assert error < 1e-6
        assert fit.readout.intercepts[k] == pytest.approx(expected.intercept_[0], rel=1e-6, abs=1e-7)


def test_predictions_on_ill_conditioned_rows_equal_newton(harsh_example: Example) -> None:
    """The oracle is given rotated, whitened rows with the penalty rotated along: Newton on them is well-conditioned."""
    problem = problem_of(harsh_example, [1e-9])
    fit = run_in_memory(problem, [(harsh_example.rows, harsh_example.members)])
    assert fit.converged.all()
    assert fit.condition.min() > 1e6
    for c in range(5):
        rows, y = harsh_example.of_column(c)
        scores = newton_scores(rows, y, problem.penalties[c, 0])
        np.testing.assert_allclose(fit.readout.scores(rows)[:, c], scores, atol=1e-6)


def newton_scores(rows: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Exact Newton in principal coordinates, 60 steps: an oracle that does not lose digits to the conditioning."""
    centred = rows - rows.mean(axis=0)
    _, singular, vectors = np.linalg.svd(centred, full_matrices=False)
    sd = singular / np.sqrt(len(rows))
    z = np.c_[centred @ vectors.T / sd, np.ones(len(rows))]
    added = np.diag(np.r_[penalty / sd**2, 0])
    v = np.zeros(z.shape[1])
    for _ in range(60):
        p = expit(z @ v)
        gradient = z.T @ (p - y) / len(y) + added @ v
        v -= np.linalg.solve((z.T * (p * (1 - p))) @ z / len(y) + added, gradient)
    assert np.abs(gradient).max() < 1e-12
    return z @ v


def test_certificate_is_the_gradient_that_is_left(example: Example) -> None:
    """Stopped early, the raw gradient reported equals the gradient computed anew from the rows."""
    problem = problem_of(example)
    fit = run_in_memory(problem, [(example.rows, example.members)], max_passes=3)
    assert not fit.converged.any()
    assert fit.passes == 3
    for k in range(10):
        rows, y = example.of_column(k // 2)
        penalty, w = problem.penalties[k // 2, k % 2], fit.readout.weights[:, k]
        t = rows @ w + fit.readout.intercepts[k]
        gradient = np.r_[rows.T @ (expit(t) - y) / len(y) + penalty * w, (expit(t) - y).mean()]
        assert fit.raw_gradient[k] == pytest.approx(np.abs(gradient).max(), rel=1e-6)
        loss = (np.logaddexp(0, t) - y * t).mean() + penalty / 2 * w @ w
        assert fit.loss[k] == pytest.approx(loss, rel=1e-12)


def test_whitened_certificate_does_not_depend_on_units(example: Example) -> None:
    scaled = Example(**{**vars(example), "rows": example.rows * 1e3})
    fits = [run_in_memory(problem_of(d), [(d.rows, d.members)], max_passes=2) for d in (example, scaled)]
    np.testing.assert_allclose(fits[0].certificate, fits[1].certificate, rtol=1e-6)


def test_separable_rare_and_heavy_tailed_columns_converge() -> None:
    """Separable at a tiny penalty, 3 positives among 2000, and outliers on which full steps overshoot."""
    rng = np.random.default_rng(5)
    rows = rng.standard_t(df=2, size=(2000, 8))
    labels = np.c_[rows[:, 0] > 0, np.arange(2000) < 3, rows[:, 1] > np.sort(rows[:, 1])[-20]].astype(np.float64)
    members = np.ones((2000, 1), dtype=bool)
    data = Example(rows=rows, labels=labels, populations=np.zeros(3, dtype=np.int64), members=members)
    problem = problem_of(data, [1e-6, 1e-3])
    fit = run_in_memory(problem, [(rows, members)])
    assert fit.converged.all()
    rng = np.random.default_rng(6)
    for k in range(6):
        y, w, b = labels[:, k // 2], fit.readout.weights[:, k], fit.readout.intercepts[k]
        for direction in rng.normal(size=(20, 9)):
            step = 1e-3 * np.abs(np.r_[w, b]).max() * direction
            assert objective(rows, y, problem.probe_penalties[k], w + step[:-1], b + step[-1]) > fit.loss[k]


def objective(rows: np.ndarray, y: np.ndarray, penalty: float, w: np.ndarray, b: float) -> float:
    t = rows @ w + b
    return float((np.logaddexp(0, t) - y * t).mean() + penalty / 2 * w @ w)


def test_any_split_into_blocks_gives_one_answer(example: Example) -> None:
    problem = problem_of(example)
    blocks = [(example.rows[i : i + 97], example.members[i : i + 97]) for i in range(0, 700, 97)]
    split, whole = run_in_memory(problem, blocks), run_in_memory(problem, [(example.rows, example.members)])
    np.testing.assert_allclose(split.readout.weights, whole.readout.weights, rtol=1e-7, atol=1e-8)
    assert run_in_memory(problem, blocks).readout.weights.tobytes() == split.readout.weights.tobytes()


def test_converged_columns_leave_the_products_and_sites_run_in_lockstep(
    example: Example, harsh_example: Example
) -> None:
    sites = {"easy": (example, 1.0), "hard": (harsh_example, 1e-8)}
    problems = {site: problem_of(data, [penalty]) for site, (data, penalty) in sites.items()}
    together = in_lockstep({site: solve(problem) for site, problem in problems.items()})
    widths: dict[str, list[int]] = {site: [] for site in sites}
    proposals = next(together)
    try:
        while True:
            for site, proposal in proposals.items():
                widths[site].append(len(proposal.probes))
            sums = {
                site: LossState.of(sites[site][0].rows, sites[site][0].shift, sites[site][0].members, proposal)
                for site, proposal in proposals.items()
            }
            proposals = together.send(sums)
    except StopIteration as finished:
        fits = finished.value
    assert list(fits) == ["easy", "hard"]
    assert len(widths["easy"]) < len(widths["hard"])
    for site, (data, _) in sites.items():
        assert widths[site] == sorted(widths[site], reverse=True)
        assert sum(widths[site]) == fits[site].evaluations.sum()
        alone = run_in_memory(problems[site], [(data.rows, data.members)])
        assert np.array_equal(alone.readout.weights, fits[site].readout.weights)


def test_shuffled_labels_learn_nothing() -> None:
    data = make_example(num_rows=1000, num_features=10, seed=6)
    labels = np.random.default_rng(1).permuted(np.tile(data.labels[:, :1], 100), axis=0)
    train = np.arange(1000) < 500
    members = train[:, None].copy()
    null = Example(rows=data.rows, labels=labels, populations=np.zeros(100, dtype=np.int64), members=members)
    fit = run_in_memory(problem_of(null, [1e-3]), [(null.rows, members)])
    correct = ((fit.readout.scores(data.rows[~train]) > 0) == labels[~train]).mean()
    assert correct == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(500 * 100))


def test_refusals(example: Example) -> None:
    moments = example.moments
    with pytest.raises(ConfigError, match="above 0"):
        LogisticProblem(moments=moments, penalties=np.zeros((5, 1)))
    labels = example.labels.copy()
    labels[:, 1] = 1
    constant = Example(**{**vars(example), "labels": labels}).moments
    with pytest.raises(NotEnoughData, match="'capitalised' has 700 positive rows among 700"):
        LogisticProblem(moments=constant, penalties=np.ones((5, 1)), names=("number", "capitalised", "a", "b", "c"))
    with pytest.raises(ConfigError, match="tolerance=0"):
        solve(problem_of(example), tolerance=0)
