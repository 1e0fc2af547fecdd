"""Rules of conversion: each keeps what it says it keeps."""

import numpy as np
import pytest
from exchange_material import OURS, ROWS, close, ours, read_rows

from lrh_ray.errors import ConfigError
from lrh_ray.exchange.dictionary_learning import write as write_dictionary_learning
from lrh_ray.exchange.folders import import_folder
from lrh_ray.exchange.folding import (
    absorb_offset,
    from_jump_thresholds,
    jump_thresholds,
    release_offset,
    scale_rows,
    unit_decoder,
)
from lrh_ray.exchange.openmoss import _expansion
from lrh_ray.exchange.record import Exchanged


def numpy_relu(tensors, rows):
    return np.maximum(rows @ tensors["encoder"].T + tensors["encoder_bias"], 0)


def test_an_absorbed_offset_is_not_subtracted_any_more():
    one = ours("relu")
    close(numpy_relu(absorb_offset(one.tensors), ROWS).astype(np.float32), read_rows(one)[0])


@pytest.mark.parametrize("kind", ["relu", "gated"])
def test_absorbing_and_releasing_are_inverse(kind):
    tensors = ours(kind).tensors
    again = release_offset(absorb_offset(tensors))
    for name, tensor in tensors.items():
        assert again[name] == pytest.approx(tensor, abs=1e-6)


def longer(kind):
    """The same directions, decoder rows of many lengths."""
    lengths = np.random.default_rng(8).uniform(0.3, 3, 24).astype(np.float32)
    tensors = {**ours(kind).tensors}
    tensors["decoder"] = tensors["decoder"] * lengths[:, None]
    return ours(kind, tensors=tensors), lengths


@pytest.mark.parametrize("kind", ["relu", "gated", "jumprelu"])
def test_a_unit_decoder_keeps_reconstructions_and_multiplies_codes(kind):
    one, lengths = longer(kind)
    folded = ours(kind, tensors=unit_decoder(one.tensors))
    assert np.linalg.norm(folded.tensors["decoder"], axis=1) == pytest.approx(1, abs=1e-6)
    (codes, back), (before, wanted) = read_rows(folded), read_rows(one)
    close(codes, before * lengths)
    close(back, wanted)


def test_a_decoder_row_of_zeros_stays_one():
    tensors = {**ours("relu").tensors}
    tensors["decoder"] = tensors["decoder"].copy()
    tensors["decoder"][3] = 0
    assert np.array_equal(unit_decoder(tensors)["encoder"][3], tensors["encoder"][3])
    assert not unit_decoder(tensors)["decoder"][3].any()


@pytest.mark.parametrize("kind", ["topk", "threshold", "jumprelu"])
def test_scaled_rows_have_the_same_codes(kind):
    one = ours(kind)
    codes, back = read_rows(one, ROWS * np.float32(4))
    scaled, scaled_back = read_rows(ours(kind, tensors=scale_rows(one.tensors, 4.0)))
    close(scaled, codes)
    close(scaled_back, back / 4)


def test_at_the_threshold_a_latent_fires_in_both_conventions():
    """Ours fires at pre >= t, theirs at pre > t; the numbers next to t tell the two apart."""
    eye = np.eye(3, dtype=np.float32)
    zero = np.zeros(3, np.float32)
    tensors = {"encoder": eye, "encoder_bias": zero, "decoder": eye, "decoder_bias": zero}
    one = Exchanged(kind="threshold", tensors=tensors, threshold=float(np.float32(0.1)))
    at = np.float32(0.1)
    row = np.array([[np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(1))]], np.float32)
    above = jump_thresholds(one)
    assert np.array_equal(row > above, read_rows(one, row)[0] != 0)
    assert (row > above).tolist() == [[False, True, True]]
    kind, _, threshold = from_jump_thresholds(tensors, above)
    assert (kind, threshold) == ("threshold", one.threshold)


def test_thresholds_are_read_as_the_plainest_kind():
    tensors = ours("relu").tensors
    assert from_jump_thresholds(tensors, np.zeros(24, np.float32))[0] == "relu"
    assert from_jump_thresholds(tensors, np.full(24, -1, np.float32))[0] == "relu"
    assert from_jump_thresholds(tensors, np.full(24, 0.5, np.float32))[0] == "threshold"
    some = np.arange(24, dtype=np.float32)
    kind, found, _ = from_jump_thresholds(tensors, some)
    assert kind == "jumprelu"
    assert found["log_threshold"][0] == -np.inf
    assert jump_thresholds(Exchanged(kind="jumprelu", tensors=found)) == pytest.approx(some, rel=1e-6)
    with pytest.raises(ConfigError, match="gated autoencoder has no thresholds"):
        jump_thresholds(ours("gated"))


def test_a_free_decoder_is_written_to_dictionary_learning_as_its_loader_makes_it(tmp_path):
    one, lengths = longer("relu")
    write_dictionary_learning(one, tmp_path / "new")
    again = import_folder(tmp_path / "new")
    (codes, back), (before, wanted) = read_rows(again), read_rows(one)
    close(codes, before * lengths)
    close(back, wanted)


def test_the_expansion_factor_of_openmoss_gives_the_latents_again():
    assert all(int(width * _expansion(m, width)) == m for width in (3, 7, 10, 49, 576) for m in range(1, 4000, 7))


def test_every_golden_tensor_is_float32():
    assert {tensor.dtype for tensor in OURS.values()} == {np.dtype(np.float32)}
