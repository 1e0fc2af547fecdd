"""Multinomial logistic regression of one concept with every penalty, to a gradient certificate, by passes over rows.

For a concept of M classes (label columns that divide one population) and each penalty the minimum of

    F(W, b) = (1/n) sum_i [log sum_m e^t_im - t_{i, class of i}] + penalty/2 |W|^2      t_im = w_m . x_i + b_m

is approached by L-BFGS, all penalties at once: each pass over the rows is two matrix products, 4 D M L FLOP a row.

    penalties = absolute_penalties(moments, [1e-3, 1e-2])[columns[0]]
    problem = MultinomialProblem(moments=moments, columns=columns, penalties=penalties)
    fit = run_in_memory(problem, [(rows, members)])
    fit.readouts[0].log_posteriors(held_out_rows); fit.certificate; fit.converged

The solver is that of `lrh_ray.analyses.logistic` with three things of its own:

- `loss`: one pass. Labels enter F only through the sums of x over each class, which the moments hold.
- `objective`: coordinates in which the Hessian at W = 0 is the identity. The same eigenvectors of the covariance
  serve, crossed with the M - 1 eigenvectors of the class rates' covariance.
- `solver`: the generator. Several concepts and sites advance through one reading with `logistic.in_lockstep`.

Adding one vector to all w_m changes no probability, so F asks for a sum over classes of 0; intercepts, which are not
penalised, are given the same gauge. With M = 2 this is the binary problem: w_1 - w_0 at `penalty` equals the weights
of the binary solver at `penalty / 2`, because |W|^2 is half of |w_1 - w_0|^2.

scikit-learn's `LogisticRegression(C=1 / (n * penalty))` has the same minimum.

What can go wrong: the curvature of one class beside another is not that of all rows, so passes are two to four times
those of one-vs-rest columns: eight overlapping classes take about 20 to a certificate of 1e-8, and 70 where nine rows
in ten are told apart.
"""

from lrh_ray.analyses.multinomial.loss import SoftmaxProposal, SoftmaxState
from lrh_ray.analyses.multinomial.problem import MultinomialProblem
from lrh_ray.analyses.multinomial.solver import MultinomialFit, run_in_memory, solve

__all__ = ["MultinomialFit", "MultinomialProblem", "SoftmaxProposal", "SoftmaxState", "run_in_memory", "solve"]
