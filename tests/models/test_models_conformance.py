"""Every family, through the transformers backend."""

import pytest

from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.families import known_families
from lrh_ray.models.tiny import SHAPES
from lrh_ray.testing.conformance import BackendSuite, Case, InterventionSuite


@pytest.fixture(scope="module", params=sorted(SHAPES))
def family(request):
    return request.param


def test_every_family_has_a_tiny_model():
    assert set(known_families()) == set(SHAPES)


@pytest.fixture
def case(family, tiny_folder):
    return Case(
        checkpoint=resolve_checkpoint(str(tiny_folder(family))),
        config=ModelConfig(name="tiny", batch_tokens=64),
        open=open_backend,
    )


def smollm2(*texts):
    """The real model on few and short texts."""
    return Case(
        checkpoint=resolve_checkpoint("smollm2"),
        config=ModelConfig(name="smollm2", dtype="float32"),
        open=open_backend,
        texts=texts,
    )


class TestTransformers(BackendSuite):
    """Rows."""


class TestTransformersInterventions(InterventionSuite):
    """Edits."""


@pytest.mark.model
class TestSmolLM2(BackendSuite):
    """Rows of real weights."""

    @pytest.fixture
    def case(self):
        return smollm2("The capital of France is Paris.", "Short.")


@pytest.mark.model
@pytest.mark.slow
class TestSmolLM2Interventions(InterventionSuite):
    """Edits of real weights."""

    @pytest.fixture
    def case(self):
        return smollm2("The capital of France is Paris.", "It is not in Spain.")
