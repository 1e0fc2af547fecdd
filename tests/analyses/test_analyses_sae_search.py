"""Contrasts of latents between rows: an oracle, any order of blocks, a null, a latent that is there."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from lrh_ray.analyses.sae.applied import MostCodes, SparseCodes
from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.contrast import TokenContrast
from lrh_ray.analyses.sae.firing import Firing
from lrh_ray.analyses.state import merge_tree
from lrh_ray.errors import NotEnoughData, TooLarge

ROWS, LATENTS, GROUPS, DRAWS, LENGTH = 1500, 12, 6, 60, 10


@dataclass(frozen=True)
class Given:
    """Rows are their own codes, as far as they are positive."""

    def codes(self, rows):
        return rows.relu()

    def decode(self, codes, rows=None):
        return codes


def drawn(seed, *, share=0.1, planted=0.0):
    """Codes that depend on the sequence, as topics do; some rows chosen, where latent 4 fires more."""
    rng = np.random.default_rng(seed)
    sequences = np.repeat(np.arange(ROWS // LENGTH), LENGTH)
    topic = rng.standard_normal((ROWS // LENGTH, LATENTS))[sequences]
    chosen = rng.random(ROWS) < share
    rows = (topic + rng.standard_normal((ROWS, LATENTS)) - 1).astype(np.float32)
    rows[chosen, 4] += planted
    return rows, chosen, sequences, sequences % GROUPS


def contrast(rows, chosen, sequences, groups, seed=0):
    how = {"num_groups": GROUPS, "draws": DRAWS, "rng": np.random.default_rng(seed)}
    return TokenContrast.of(rows, Given(), chosen, sequences, groups, **how)


def test_scores_are_what_the_formula_says():
    rows, chosen, sequences, groups = drawn(0, planted=1)
    found, codes = contrast(rows, chosen, sequences, groups), np.maximum(rows, 0).astype(np.float64)
    expected = (codes[chosen].mean(axis=0) - codes[~chosen].mean(axis=0)) / codes.std(axis=0)
    np.testing.assert_allclose(found.scores(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.means(), [codes[chosen].mean(axis=0), codes[~chosen].mean(axis=0)], rtol=1e-5)
    np.testing.assert_array_equal(found.fired, [(codes[chosen] > 0).sum(axis=0), (codes > 0).sum(axis=0)])
    assert found.rows.sum(axis=1).tolist() == [chosen.sum(), ROWS]
    interval = found.interval(4)
    assert interval.low < found.scores()[4] == interval.value < interval.high


def test_blocks_may_be_merged_in_any_order():
    rows, chosen, sequences, groups = drawn(1)
    cuts = np.split(np.arange(ROWS), [300, 310, 1100])
    parts = [
        contrast(rows[own], chosen[own], sequences[own], groups[own], seed)
        for seed, own in enumerate([*cuts, cuts[0][:0]])
    ]
    one, other = merge_tree(parts), merge_tree(parts[::-1])
    for item in fields(TokenContrast):
        np.testing.assert_allclose(getattr(one, item.name), getattr(other, item.name), rtol=1e-12, err_msg=item.name)
    np.testing.assert_allclose(one.scores(), contrast(rows, chosen, sequences, groups).scores(), rtol=1e-5, atol=1e-6)


def test_every_draw_has_as_many_rows_of_the_same_texts():
    """A latent that is the number of its sequence adds up to the same; one that is the number of its row does not."""
    rows, chosen, sequences, groups = drawn(2)
    rows[:, 0], rows[:, 1] = sequences, np.arange(ROWS)
    found = contrast(rows, chosen, sequences, groups)
    np.testing.assert_allclose(found.drawn[:, 0], sequences[chosen].sum(), rtol=1e-6)
    assert len(np.unique(found.drawn[:, 1])) > DRAWS / 2


def test_a_token_that_means_nothing_finds_nothing_and_one_that_does_is_found():
    """False alarms at the nominal rate of 5 %: of 60 at most 8, which happens by chance with probability 0.005."""
    for share in (0.05, 0.4):
        null = [contrast(*drawn(seed, share=share), seed) for seed in range(60)]
        assert sum(bool((one.scores() > one.null_high()).any()) for one in null) <= 8
    for seed in range(3):
        found = contrast(*drawn(seed, planted=1.5), seed)
        scores = found.scores()
        assert scores.argmax() == 4
        assert (scores > found.null_high()).sum() == 1
        assert found.adjusted(scores)[4] == pytest.approx(1 / (1 + DRAWS))
        assert np.median(found.adjusted(scores)) > 0.3


def test_too_few_rows_are_named():
    rows, chosen, sequences, groups = drawn(3)
    with pytest.raises(NotEnoughData, match="0 of 1500 rows"):
        contrast(rows, np.zeros_like(chosen), sequences, groups).scores()
    with pytest.raises(NotEnoughData, match="1 groups"):
        contrast(rows, sequences == 0, sequences, groups).interval(0)


def test_counts_of_latents_do_not_depend_on_the_split():
    rows, _, _, groups = drawn(4)
    dense = np.maximum(rows, 0)
    whole = Firing.of(Codes.of(dense), groups, num_latents=LATENTS, num_groups=GROUPS)
    parts = [
        Firing.of(Codes.of(dense[own]), groups[own], num_latents=LATENTS, num_groups=GROUPS)
        for own in np.array_split(np.arange(ROWS), 4)
    ]
    merged = merge_tree(parts)
    np.testing.assert_array_equal(merged.fired, whole.fired)
    np.testing.assert_allclose(merged.mean, whole.mean)
    np.testing.assert_allclose(whole.mean, [column[column > 0].mean() for column in dense.T], rtol=1e-6)
    density = whole.density(3)
    assert density.value == pytest.approx((dense[:, 3] > 0).mean())
    assert density.low < density.value < density.high


def test_sparse_codes_have_the_room_that_was_counted():
    rows = drawn(5)[0]
    halves = [MostCodes.of(half, Given()) for half in np.array_split(rows, 2)]
    most = merge_tree([*halves, MostCodes.of(rows[:0], Given())]).count
    assert most == (rows > 0).sum(axis=1).max()
    found = SparseCodes(reader=Given(), most=most).of(rows)
    again = np.zeros_like(rows)
    np.add.at(again, (np.arange(ROWS)[:, None], found["index"]), found["value"])
    np.testing.assert_array_equal(again, np.maximum(rows, 0))
    with pytest.raises(TooLarge, match=f"{most} codes where {most - 1}"):
        SparseCodes(reader=Given(), most=most - 1).of(rows)


def test_codes_of_several_tiles_are_joined():
    dense = np.maximum(drawn(6)[0], 0)
    dense[:700, 3:] = 0
    parts = [Codes.of(dense[:700]), Codes.of(dense[700:])]
    assert parts[0].value.shape[1] < parts[1].value.shape[1]
    np.testing.assert_array_equal(Codes.joined(parts).dense(LATENTS), dense)
    assert torch.equal(Given().codes(torch.from_numpy(dense)), torch.from_numpy(dense))
