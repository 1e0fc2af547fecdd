"""Drivers of the solvers: for blocks in memory, and for several sites that share one reading of the corpus.

fits = in_lockstep({"resid.3": solve(problem_3), "resid.7": solve(problem_7)})
proposals = next(fits)                       # site -> Proposal, only for sites that have not finished
while True:
    sums = one pass: site -> merge_tree(LossState.of(rows of the site, ...) for every block)
    proposals = fits.send(sums)              # ends with StopIteration whose value is site -> LogisticFit
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from lrh_ray.analyses.logistic.loss import LossState, Proposal
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.logistic.solver import LogisticFit, solve
from lrh_ray.analyses.state import merge_tree

K = TypeVar("K")
P = TypeVar("P")
S = TypeVar("S")
F = TypeVar("F")

Block: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Rows [N, D] and members [N, P]; N differs from block to block, so no named shape holds for all."""


def in_lockstep(
    solvers: Mapping[K, Generator[P, S, F]],
) -> Generator[Mapping[K, P], Mapping[K, S], Mapping[K, F]]:
    """Advance several solvers, of several sites say, together: each turn yields the proposals of those at work."""
    fits: dict[K, F] = {}
    sums: Mapping[K, S | None] = dict.fromkeys(solvers)
    while True:
        proposals: dict[K, P] = {}
        for site, state in sums.items():
            try:
                proposals[site] = next(solvers[site]) if state is None else solvers[site].send(state)
            except StopIteration as finished:
                fits[site] = finished.value
        if not proposals:
            return {site: fits[site] for site in solvers}
        sums = yield proposals


def run_solver(solver: Generator[P, S, F], evaluate: Callable[[P], S]) -> F:
    """Run one solver to its end; `evaluate` makes a pass, proposal -> merged sums."""
    try:
        proposal = next(solver)
        while True:
            proposal = solver.send(evaluate(proposal))
    except StopIteration as finished:
        fit: F = finished.value
        return fit


def run_in_memory(
    problem: LogisticProblem,
    blocks: Sequence[Block],
    tolerance: float = 1e-9,
    max_passes: int = 200,
) -> LogisticFit:
    """Fit from blocks of (rows [N, D], members [N, P]) in memory, the same blocks the moments were made of."""
    shift = problem.moments.shift

    def one_pass(proposal: Proposal) -> LossState:
        return merge_tree(LossState.of(rows, shift, members, proposal) for rows, members in blocks)

    return run_solver(solve(problem, tolerance, max_passes), one_pass)
