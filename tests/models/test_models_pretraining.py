"""Training a small Llama of letters: its tokenizer, its steps, and a resumed run that equals an undisturbed one."""

from itertools import chain

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from lrh_ray.collective import Share
from lrh_ray.errors import ConfigError
from lrh_ray.models.letters import ALPHABET, bos_id, make_letter_llama, spell
from lrh_ray.models.pretraining import LanguageLearner, Pretraining

ALONE = Share(rank=0, world=1)
LETTERS, LENGTH = 6, 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("letters") / "model"
    return make_letter_llama(folder, letters=LETTERS, window=LENGTH + 1, layers=2, hidden=32, heads=2, seed=0)


def batches(step: int) -> torch.Tensor:
    """Letters that count upwards from a random one: entirely predictable after the first."""
    first = np.random.default_rng([7, step]).integers(LETTERS, size=(16, 1))
    counted = (first + np.arange(LENGTH)) % LETTERS
    return torch.from_numpy(np.concatenate([np.full((16, 1), bos_id(LETTERS)), counted], axis=1))


def learner(checkpoint, share=ALONE):
    return LanguageLearner(checkpoint, batches, Pretraining(steps=60, warmup=5), share)


def weights(of, folder):
    folder.mkdir()
    of.save(folder)
    return (folder / "model.safetensors").read_bytes()


def test_one_letter_is_one_token(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    numbers = np.array([0, 5, 5, 1])
    encoded = tokenizer(spell(numbers), return_offsets_mapping=True)
    assert encoded["input_ids"] == [bos_id(LETTERS), *numbers.tolist()]
    assert encoded["offset_mapping"][1:] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_it_learns_what_can_be_learnt(checkpoint):
    trained = learner(checkpoint)
    losses = [trained.step(step)["loss"] for step in range(60)]
    assert losses[0] == pytest.approx(np.log(LETTERS + 1), abs=0.3)
    assert losses[-1] < np.log(LETTERS) / LENGTH + 0.15  # the first letter is all that is left to guess


def test_a_resumed_run_equals_an_undisturbed_one(checkpoint, tmp_path):
    whole, first = learner(checkpoint), learner(checkpoint)
    for step in range(8):
        whole.step(step)
    for step in range(4):
        first.step(step)
    first.save(tmp_path)
    second = learner(checkpoint)
    second.load(tmp_path)
    for step in range(4, 8):
        second.step(step)
    assert weights(second, tmp_path / "second") == weights(whole, tmp_path / "whole")


def test_a_save_is_a_checkpoint_to_begin_with(checkpoint, tmp_path):
    trained = learner(checkpoint)
    trained.step(0)
    trained.save(tmp_path)
    again = LanguageLearner(tmp_path, batches, Pretraining(steps=60, warmup=5), ALONE)
    assert again.step(1)["loss"] == pytest.approx(trained.step(1)["loss"], rel=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path)("ab")["input_ids"] == [bos_id(LETTERS), 0, 1]


def test_the_rate_rises_and_falls():
    recipe = Pretraining(steps=100, rate=1.0, warmup=10)
    rates = [recipe.rate_at(step) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_shares_cover_a_batch_once():
    for num in (0, 1, 5, 16):
        rows = [list(range(num))[Share(rank=rank, world=3).of(num)] for rank in range(3)]
        assert [*chain.from_iterable(rows)] == list(range(num))


@pytest.mark.parametrize(
    ("setting", "told"),
    [({"letters": 65}, str(len(ALPHABET))), ({"letters": 1}, "at least 2"), ({"hidden": 30}, "hidden")],
)
def test_impossible_models_are_refused(tmp_path, setting, told):
    shape = {"letters": LETTERS, "window": 9, "layers": 1, "hidden": 32, "heads": 2, "seed": 0} | setting
    with pytest.raises(ConfigError, match=told):
        make_letter_llama(tmp_path, **shape)


@pytest.mark.parametrize("setting", [{"steps": 0}, {"steps": 1, "rate": 0.0}, {"steps": 1, "warmup": -1}])
def test_impossible_recipes_are_refused(setting):
    with pytest.raises(ConfigError):
        Pretraining(**setting)
