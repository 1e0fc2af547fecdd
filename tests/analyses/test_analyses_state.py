from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.analyses.state import merge_tree, num_bytes
from lrh_ray.errors import NotEnoughData


@dataclass(frozen=True)
class Trace:
    """A state that remembers the tree it was merged in."""

    tree: object

    def merge(self, other: "Trace") -> "Trace":
        return Trace((self.tree, other.tree))


@dataclass(frozen=True)
class Sum:
    value: float

    def merge(self, other: "Sum") -> "Sum":
        return Sum(self.value + other.value)


def level_by_level(trees: list[object]) -> object:
    """The definition: merge neighbours pairwise, an odd last one passes, until one is left."""
    while len(trees) > 1:
        trees = [tuple(trees[i : i + 2]) if len(trees[i : i + 2]) == 2 else trees[i] for i in range(0, len(trees), 2)]
    return trees[0]


@given(count=st.integers(1, 70))
def test_tree_is_the_pairwise_one(count: int) -> None:
    assert merge_tree([Trace(i) for i in range(count)]).tree == level_by_level(list(range(count)))


@given(count=st.integers(1, 70), height=st.integers(0, 6))
def test_aligned_groups_first_give_the_same_tree(count: int, height: int) -> None:
    states, size = [Trace(i) for i in range(count)], 2**height
    groups = [merge_tree(states[start : start + size]) for start in range(0, count, size)]
    assert merge_tree(groups) == merge_tree(states)


def test_aligned_groups_are_bit_identical_and_unaligned_ones_are_not() -> None:
    states = [Sum(value) for value in np.random.default_rng(0).normal(size=1000).tolist()]
    total = merge_tree(states)
    assert merge_tree([merge_tree(states[i : i + 64]) for i in range(0, 1000, 64)]) == total
    others = [merge_tree([merge_tree(states[i : i + n]) for i in range(0, 1000, n)]) for n in (3, 7, 100)]
    assert any(other != total for other in others)


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="no block"):
        merge_tree([])


@dataclass(frozen=True)
class Nested:
    own: np.ndarray
    parts: dict[str, "Nested"]
    pair: tuple[np.ndarray, int]


def test_the_size_of_a_state_is_that_of_its_arrays_however_deep() -> None:
    leaf = Nested(np.zeros((3, 4)), {}, (np.zeros(5, dtype=np.float32), 7))
    assert num_bytes(leaf) == 96 + 20
    assert num_bytes(Nested(np.zeros(1), {"a": leaf, "b": leaf}, (np.zeros(0), 1))) == 8 + 2 * 116
