"""Does a probe find a property, or remember words? Control tasks and selectivity (Hewitt & Liang 2019).

A rich enough probe learns any labels of the words it has seen. The control task measures that: every token type is
given a random class once and for all, at the concept's class rates, so the labels can be remembered and nothing else.
*Selectivity* is the accuracy on the concept less that on the control; a probe that reads the property out of the
representation has much of it, one that looks words up has none.

    control = control_labels(labels, members, token_ids, rates=moments.rate[columns], seed=0)   # of every block
    ...train probes on `control` as on `labels`: further columns of the same passes...
    selectivity(task, control, threshold=0.0, weights=task.ones)[0]                             # [K]
    judged = judge_selectivity(task, control, threshold=0.0, bootstrap=DocumentBootstrap(draws=1000, seed=0))

The control is a pure function of (seed, token id): all blocks, sites and workers give a type one class. It asks
another question than `controls.shuffle_labels`: shuffled labels cannot be learnt by anything, so they show what chance
gives; control labels can be learnt from the token alone, so they show what memory gives.

Both accuracies are of the same rows, so every bootstrap draw resamples the documents of both together, and hard rows
cancel in the difference.

What can go wrong: token types that occur only in held-out documents cannot be remembered, which lowers the control. A
few frequent types decide what the control's class rates come out as, so compare each accuracy with its own majority.
Selectivity of a concept that is itself a function of the token (a list of words) is 0 by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lrh_ray.analyses.held_out import HeldOut
from lrh_ray.analyses.intervals import DocumentBootstrap, Interval, percentile_interval
from lrh_ray.analyses.layouts import DocumentWeights, Draws, ProbeFloats
from lrh_ray.analyses.metrics import accuracy
from lrh_ray.errors import ConfigError
from lrh_ray.layouts import Columns64, Labels64, RowMask, Tokens

ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selectivity:
    """Accuracy on the task and on its control, their difference [K], and its interval over documents."""

    accuracy: ProbeFloats
    control_accuracy: ProbeFloats
    selectivity: ProbeFloats
    interval: Interval


def control_labels(labels: Labels64, members: RowMask, token_ids: Tokens, rates: Columns64, seed: int) -> Labels64:
    """Labels [N, m] of one concept with those of its members replaced by a random class of their token type.

    `rates` [m] are the shares of the classes in the concept's population, over all blocks. With m = 1 the column is a
    0/1 label, otherwise exactly one of m classes is 1. Give every concept its own seed.

    Raises:
        ConfigError: rates outside [0, 1], or several that do not sum to 1.
    """
    _require_rates(rates)
    u = type_uniforms(token_ids[members], seed)
    control = labels.copy()
    if len(rates) == 1:
        control[members, 0] = u < rates[0]
        return control
    classes = np.minimum(np.searchsorted(np.cumsum(rates), u, side="right"), np.flatnonzero(rates)[-1])
    control[members] = classes[:, None] == np.arange(len(rates))
    return control


def type_uniforms(token_ids: Tokens, seed: int) -> np.ndarray:
    """One number in [0, 1) per token type: entry `id` of one stream, which is the same however far it is read."""
    if not len(token_ids):
        return np.zeros(0)
    return np.asarray(np.random.default_rng([seed, 1]).random(int(token_ids.max()) + 1)[token_ids])


def selectivity(task: HeldOut, control: HeldOut, threshold: float, weights: DocumentWeights) -> Draws:
    """Accuracy on the task less accuracy on the control [B, K], for document weights [B, S].

    Probe k of `control` is the control of probe k of `task`: trained alike, on the same documents, with control labels.

    Raises:
        ValueError: the two are not of the same rows and number of probes.
    """
    _require_pair(task, control)
    return np.asarray(accuracy(task, threshold, weights) - accuracy(control, threshold, weights))


def judge_selectivity(
    task: HeldOut, control: HeldOut, threshold: float, bootstrap: DocumentBootstrap, level: float = 0.95
) -> Selectivity:
    """Selectivity with its pointwise interval from a paired bootstrap over documents.

    For several probes at once use `simultaneous_interval(..., scale="real")` on `bootstrap.apply` of `selectivity`.

    Raises:
        NotEnoughData: fewer than 2 documents.
    """
    sample = bootstrap.apply(lambda weights: selectivity(task, control, threshold, weights), task.num_documents)
    return Selectivity(
        accuracy=accuracy(task, threshold, task.ones)[0],
        control_accuracy=accuracy(control, threshold, control.ones)[0],
        selectivity=sample.estimates,
        interval=percentile_interval(sample.draws, level),
    )


def _require_rates(rates: Columns64) -> None:
    allowed = ((rates >= 0) & (rates <= 1)).all() and (len(rates) == 1 or abs(rates.sum() - 1) < ROUNDING)
    if not len(rates) or not allowed:
        raise ConfigError(
            f"Class rates of a control task are {rates.tolist()!r}; give one rate of a 0/1 label, or those of all "
            "classes of a concept, which sum to 1."
        )


def _require_pair(task: HeldOut, control: HeldOut) -> None:
    same: Sequence[bool] = (
        task.scores.shape == control.scores.shape,
        np.array_equal(task.documents, control.documents),
        np.array_equal(task.probe_members, control.probe_members),
        task.num_documents == control.num_documents,
    )
    if not all(same):
        raise ValueError(
            f"A task with scores {task.scores.shape} of {task.num_documents} documents and a control with "
            f"{control.scores.shape} of {control.num_documents} are not pairs of probes on the same rows."
        )
