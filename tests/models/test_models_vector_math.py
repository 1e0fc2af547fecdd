"""Every vector function of torch is called once before many threads call it together (pytorch/pytorch#188792)."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lrh_ray.models.backend import open_backend
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.generate import open_generator
from lrh_ray.models.interventions import EditableModel
from lrh_ray.models.sites import resolve_sites
from lrh_ray.models.streaming import StreamedModel
from lrh_ray.vector_math import FUNCTIONS, settle_vector_math

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "cpu" / "vml.h"


def test_the_list_is_that_of_torch():
    handed_over = re.findall(r"^IMPLEMENT_VML_MKL\((\w+), ", HEADER.read_text(), flags=re.MULTILINE)
    assert len(handed_over) >= 10
    assert sorted(FUNCTIONS) == sorted(handed_over)


def test_each_function_is_called_on_one_element_in_both_formats(monkeypatch):
    calls = set()
    for name in FUNCTIONS:
        monkeypatch.setattr(torch, name, lambda value, name=name: calls.add((name, value.dtype, value.numel())))
    settle_vector_math.__wrapped__()
    assert calls == {(name, dtype, 1) for name in FUNCTIONS for dtype in (torch.float32, torch.float64)}


SITES = resolve_sites(["resid.1"], num_layers=4, hidden_size=64)
CONFIG = ModelConfig(name="tiny")
OPENINGS = {
    "backend": lambda checkpoint: open_backend(checkpoint, CONFIG, SITES).close(),
    "random weights": lambda checkpoint: open_backend(replace(checkpoint, random_seed=1), CONFIG, SITES).close(),
    "reference": StreamedModel,
    "generator": lambda checkpoint: open_generator(checkpoint, CONFIG).close(),
    "edits": lambda checkpoint: EditableModel(checkpoint, CONFIG),
}


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS)
def test_whatever_opens_a_model_has_settled_them(tiny_llama, opening):
    settle_vector_math.cache_clear()
    opening(tiny_llama)
    assert settle_vector_math.cache_info().currsize == 1
