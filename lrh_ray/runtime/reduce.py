"""The verbs `reduce` and `sample`: sums over stored rows, and small samples of them, as Ray tasks.

    total = reduce_blocks(blocks, state_of_block)     # state_of_block: picklable, block -> mergeable state

Each task computes the states of an aligned group of blocks and merges them in the fixed binary tree of their
positions; further tasks merge the groups in the same tree, so that of a thousand states only the last comes to the
driver. The answer is the same, bit for bit, for any number of workers and any order in which they finish.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from lrh_ray.analyses.state import State, merge_tree
from lrh_ray.errors import ClusterError
from lrh_ray.runtime.cluster import raise_cause

S = TypeVar("S", bound=State)
Item = TypeVar("Item")
Answer = TypeVar("Answer")

TASKS_PER_CPU = 2


def group_size(num_blocks: int, num_cpus: float) -> int:
    """Blocks per task: the power of two that gives about `TASKS_PER_CPU` tasks per CPU."""
    wanted = max(1, int(num_blocks / max(1.0, num_cpus * TASKS_PER_CPU)))
    return 1 << (wanted.bit_length() - 1)


def reduce_blocks(blocks: Sequence[int], of: Callable[[int], S]) -> S:
    """Merge the states of all blocks; `blocks` in the order that defines the tree.

    Raises:
        ValueError: No blocks.
        LrhError: What `of` raised on a worker.
    """
    if not blocks:
        raise ValueError("nothing to reduce: no blocks")
    size = group_size(len(blocks), ray.cluster_resources().get("CPU", 1.0))
    groups = [tuple(blocks[first : first + size]) for first in range(0, len(blocks), size)]
    shared = ray.put(of)
    total = merge_tree(_Pending(_remote(_merged_group).remote(group, shared)) for group in groups)
    state: S = _gather([total.reference])[0]
    return state


@dataclass(frozen=True, slots=True)
class _Pending:
    """A state somewhere on the cluster, perhaps not computed yet; what it is merged into stays there as well."""

    reference: Any

    def merge(self, other: "_Pending") -> "_Pending":
        return _Pending(_remote(_merged).remote(self.reference, other.reference))


def _merged(one: S, other: S) -> S:
    return one.merge(other)


def _merged_group(blocks: tuple[int, ...], of: Callable[[int], S]) -> S:
    return merge_tree([of(block) for block in blocks])


def sample(items: Sequence[Item], answer: Callable[[Item], Answer]) -> list[Answer]:
    """One task per item (a site, say), each reading what it needs; answers in the order of the items."""
    shared = ray.put(answer)
    return _gather([_remote(_answer).remote(item, shared) for item in items])


def _answer(item: Item, answer: Callable[[Item], Answer]) -> Answer:
    return answer(item)


def _remote(function: Callable[..., Any]) -> Any:
    return ray.remote(function).options(num_cpus=1)


def _gather(references: Sequence[Any]) -> list[Any]:
    try:
        return list(ray.get(list(references)))
    except ray.exceptions.RayTaskError as error:
        raise_cause(error)
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"A task was lost on the cluster ({type(error).__name__}): a node died or ran out of memory. `lrh doctor` "
            f"checks memory; repeat the same command."
        ) from error
