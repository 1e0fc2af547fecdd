"""Drivers of the solver: for blocks in memory, and for several sites that share one reading of the corpus.

fits = in_lockstep({"resid.3": solve(problem_3), "resid.7": solve(problem_7)})
proposals = next(fits)                       # site -> Proposal, only for sites that have not finished
while True:
    sums = one pass: site -> merge_tree(LossState.of(rows of the site, ...) for every block)
    proposals = fits.send(sums)              # ends with StopIteration whose value is site -> LogisticFit
"""

from collections.abc import Generator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from lrh_ray.analyses.logistic.loss import LossState, Proposal
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.logistic.solver import LogisticFit, solve
from lrh_ray.analyses.state import merge_tree

Solver: TypeAlias = Generator[Proposal, LossState, LogisticFit]
Proposals: TypeAlias = Mapping[str, Proposal]
Block: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Rows [N, D] and members [N, P]; N differs from block to block, so no named shape holds for all."""


def in_lockstep(
    solvers: Mapping[str, Solver],
) -> Generator[Proposals, Mapping[str, LossState], Mapping[str, LogisticFit]]:
    """Advance the solvers of several sites together: each turn yields the proposals of those still at work."""
    fits: dict[str, LogisticFit] = {}
    proposals: dict[str, Proposal] = {}
    sums: Mapping[str, LossState | None] = dict.fromkeys(solvers)
    while True:
        proposals = {}
        for site, state in sums.items():
            try:
                proposals[site] = next(solvers[site]) if state is None else solvers[site].send(state)
            except StopIteration as finished:
                fits[site] = finished.value
        if not proposals:
            return {site: fits[site] for site in solvers}
        sums = yield proposals


def run_in_memory(
    problem: LogisticProblem,
    blocks: Sequence[Block],
    tolerance: float = 1e-9,
    max_passes: int = 200,
) -> LogisticFit:
    """Fit from blocks of (rows [N, D], members [N, P]) in memory, the same blocks the moments were made of."""
    solver = solve(problem, tolerance, max_passes)
    shift = problem.moments.shift
    try:
        proposal = next(solver)
        while True:
            states = (LossState.of(rows, shift, members, proposal) for rows, members in blocks)
            proposal = solver.send(merge_tree(states))
    except StopIteration as finished:
        fit: LogisticFit = finished.value
        return fit
