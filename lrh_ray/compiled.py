"""Loops that NumPy and torch would run in many passes: compiled by numba, and free of the interpreter's lock.

    @compiled
    def add_up(rows_ND, sum_D): ...                # plain Python over arrays; called with arrays, from any thread

Work is shared by calling a loop for parts of its range from several threads: `in_parts`. How a range is cut may depend
on its length alone and never on the number of threads, where sums of parts are to be the same on every machine.

The first call on a machine compiles, in a few seconds; later processes load the code from numba's cache beside the
source (NUMBA_CACHE_DIR names another place).

What can go wrong: additions may be taken in another order than written, and so differ between processors in the last
bits; a loop must not tell NaN or infinity from numbers by comparisons that the compiler may assume away.
"""

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

import numba

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """`function`, compiled at its first call for the types it gets, and cached on disk."""
    plain = inspect.unwrap(function)  # without the type checks that a test run puts around it
    compile_it = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
    return compile_it(plain)  # type: ignore[no-any-return]


def in_parts(
    work: Callable[[int, int], Result], length: int, *, size: int, threads: Executor | None
) -> Iterator[Result]:
    """`work(first, last)` for every part of `size` of a range, the last one shorter; results in order of the parts."""
    firsts = range(0, length, size)
    lasts = [min(first + size, length) for first in firsts]
    return map(work, firsts, lasts) if threads is None else threads.map(work, firsts, lasts)
