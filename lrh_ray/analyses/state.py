"""Mergeable states: how a sum over a corpus is split over workers without changing its answer.

A state summarises some blocks of rows. Two states merge into the state of their union, and `merge_tree` merges a list
in one fixed binary tree over its order, neighbours first:

    ((s0 s1) (s2 s3)) ((s4 s5) s6)

Floating-point addition is not associative, so two trees differ in the last bits; one fixed tree does not. The law
that workers rely on: cut the list into aligned groups whose length is one power of two (the last may be shorter),
merge each group by itself, then merge the groups: every intermediate sum is a node of the same tree, so the result is
bit-identical to merging all at once. Therefore, with states in the order of their block ids, *which* worker computed
which group, and when, cannot change a single bit.

    total = merge_tree(Moments.of(block) for block in blocks)

What can go wrong: groups of unequal or unaligned length give another tree, hence equal results only up to rounding.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from lrh_ray.errors import NotEnoughData

Same = TypeVar("Same")


@runtime_checkable
class State(Protocol):
    """A frozen summary of rows. `merge` is pure: it returns a new state and changes neither operand."""

    def merge(self: Same, other: Same) -> Same: ...


S = TypeVar("S", bound=State)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SideBySide(Generic[S]):
    """Several states of one pass, each merged with its like."""

    of: tuple[S, ...]

    def merge(self, other: "SideBySide[S]") -> "SideBySide[S]":
        return SideBySide(of=tuple(one.merge(two) for one, two in zip(self.of, other.of, strict=True)))


def merge_tree(states: Iterable[S]) -> S:
    """Merge states in the fixed tree over their order, holding at most log2(n) + 1 of them at a time.

    The states are consumed lazily like the digits of a binary counter: a pending state of height h stands for 2^h
    leaves, and two of equal height merge at once.

    Raises:
        NotEnoughData: there is no state to merge.
    """
    pending: list[tuple[int, S]] = []
    for state in states:
        height, merged = 0, state
        while pending and pending[-1][0] == height:
            merged = pending.pop()[1].merge(merged)
            height += 1
        pending.append((height, merged))
    if not pending:
        raise NotEnoughData("There is no block to summarise: 0 states were given, at least 1 is needed.")
    _, result = pending.pop()
    while pending:
        result = pending.pop()[1].merge(result)
    return result


def num_bytes(state: object) -> int:
    """Bytes of all arrays that a state holds, however deep in records, mappings and tuples."""
    if isinstance(state, np.ndarray):
        return state.nbytes
    if is_dataclass(state):
        return sum(num_bytes(getattr(state, item.name)) for item in fields(state))
    if isinstance(state, Mapping):
        return sum(num_bytes(value) for value in state.values())
    if isinstance(state, tuple | list):
        return sum(num_bytes(value) for value in state)
    return 0
