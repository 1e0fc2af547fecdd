import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.models.wanted import count, neighbours, runs_of, wanted_tokens
from lrh_ray.records import TokenBatch

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def batch(lengths):
    num = sum(lengths)
    return TokenBatch(
        document_ids=tuple(map(str, range(len(lengths)))),
        token_ids=np.arange(num, dtype=np.int32),
        positions=np.zeros(num, np.int32),
        char_start=np.zeros(num, np.int32),
        char_end=np.zeros(num, np.int32),
        starts=np.append(0, np.cumsum(lengths)).astype(np.int64),
    )


@given(lengths=LENGTHS, data=st.data())
def test_runs_are_the_wanted_tokens_and_stay_in_their_sequence(lengths, data):
    block = batch(lengths)
    wanted = np.array(data.draw(st.lists(st.booleans(), min_size=block.num_tokens, max_size=block.num_tokens)))
    runs = runs_of(block, wanted)
    covered = [token for sequence in runs for first, stop in sequence for token in range(first, stop)]
    assert covered == np.flatnonzero(wanted).tolist()
    assert count(block, wanted) == len(covered)
    for sequence, found in enumerate(runs):
        assert all(block.starts[sequence] <= first < stop <= block.starts[sequence + 1] for first, stop in found)
        assert all(one[1] < two[0] for one, two in itertools.pairwise(found))  # as few runs as possible


@given(lengths=LENGTHS)
def test_without_a_choice_a_sequence_is_one_run(lengths):
    block = batch(lengths)
    bounds = zip(block.starts[:-1].tolist(), block.starts[1:].tolist(), strict=True)
    assert runs_of(block, None) == tuple((bound,) for bound in bounds)
    assert count(block, None) == block.num_tokens


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(1, 6)), max_size=10))
def test_tokens_of_ranges_are_their_union(places):
    ranges = np.array([(first, min(first + size, 20)) for first, size in places], np.int64).reshape(-1, 2)
    expected = {token for first, stop in ranges for token in range(first, stop)}
    assert set(np.flatnonzero(wanted_tokens(ranges, 20)).tolist()) == expected


@given(st.sets(st.integers(0, 30)))
def test_neighbours_part_the_numbers(numbers):
    ascending = np.array(sorted(numbers), np.int64)
    parts = neighbours(ascending)
    assert [n for part in parts for n in ascending[part]] == ascending.tolist()
    assert all(np.diff(ascending[part]).max(initial=1) == 1 for part in parts)
