import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.models.batches import plan_batches

lengths = st.lists(st.integers(1, 300), max_size=60).map(lambda values: np.array(values, dtype=np.int64))


@given(lengths, st.integers(1, 1000))
def test_every_sequence_is_in_one_batch_and_padding_is_bounded(lengths, batch_tokens):
    batches = plan_batches(lengths, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= batch_tokens


def test_neighbours_in_length_share_a_batch():
    lengths = np.array([3, 90, 4, 100], dtype=np.int64)
    assert [list(batch) for batch in plan_batches(lengths, 200)] == [[3, 1], [2, 0]]
