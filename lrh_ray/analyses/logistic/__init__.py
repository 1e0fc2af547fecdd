"""Logistic regression of every label column with every penalty, to a gradient certificate, by passes over the rows.

For each probe (label column c of population p, penalty) the only minimum of

    F(w, b) = (1/n) sum_i [log(1 + e^t_i) - y_i t_i] + penalty/2 |w|^2      t_i = w . x_i + b, sum over population p

is approached by L-BFGS, all probes of a site at once: each pass over the rows is two matrix products.

    problem = LogisticProblem(moments=moments, penalties=absolute_penalties(moments, [1e-3, 1e-2]))
    fit = run_in_memory(problem, [(rows, members)])
    fit.readout.scores(held_out_rows); fit.certificate; fit.converged

Four ideas, one per file:

- `loss`: labels enter F only through sum_i y_i x_i, which the moments already hold; a pass needs rows, no labels.
- `whitening`: coordinates in which the Hessian at w = 0 is the identity, for every probe, from one eigendecomposition.
- `descent`, `objective`: L-BFGS and the step control of many columns, each at its own pace.
- `solver`, `iteration`: a generator that proposes coefficients and is sent sums, so whoever owns the rows runs the
  passes.
"""

from lrh_ray.analyses.logistic.drive import in_lockstep, run_in_memory
from lrh_ray.analyses.logistic.loss import LossState, Proposal
from lrh_ray.analyses.logistic.problem import LogisticProblem
from lrh_ray.analyses.logistic.solver import LogisticFit, solve

__all__ = ["LogisticFit", "LogisticProblem", "LossState", "Proposal", "in_lockstep", "run_in_memory", "solve"]
