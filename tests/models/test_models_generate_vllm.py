"""vLLM writes what transformers writes, greedily; one engine for all, because it takes half a minute to start."""

from contextlib import closing
from importlib.util import find_spec

import pytest

from lrh_ray.errors import DocumentTooLong
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig, VllmConfig
from lrh_ray.models.generate import open_generator
from lrh_ray.models.sampling import Prompt, SamplingConfig
from lrh_ray.models.tiny import make_tiny

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed; `make install` brings its CPU build", allow_module_level=True)

PROMPTS = [Prompt(name=str(length), token_ids=tuple(range(40, 40 + length))) for length in (3, 30, 1, 12)]
GREEDY = SamplingConfig(max_new_tokens=6)
HOT = SamplingConfig(max_new_tokens=6, temperature=1.5, top_p=0.9)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return resolve_checkpoint(str(make_tiny("llama", tmp_path_factory.mktemp("llama"), hidden=128)))


@pytest.fixture(scope="module")
def engine(checkpoint):
    sizes = VllmConfig(longest=128, cache_gib=0.25, sequences=16)
    config = ModelConfig(name="tiny", engine="vllm", batch_tokens=128, vllm=sizes)
    with closing(open_generator(checkpoint, config)) as running:
        sockets = running._llm.llm_engine.engine_core.ctx
        yield running
    assert sockets.closed, "left to the garbage collector, which complains in another test"


def test_greedy_is_the_same_by_both_engines(checkpoint, engine):
    with closing(open_generator(checkpoint, ModelConfig(name="tiny", threads=1))) as generator:
        expected = generator.continue_prompts(PROMPTS, GREEDY)
    assert len(set(expected)) > 1
    assert engine.continue_prompts(PROMPTS, GREEDY) == expected


def test_draws_depend_on_seed_and_name_and_not_on_company(engine):
    together = engine.continue_prompts(PROMPTS, HOT)
    assert together == engine.continue_prompts(PROMPTS[::-1], HOT)[::-1]
    assert together != engine.continue_prompts(PROMPTS, SamplingConfig(**{**vars(HOT), "seed": 1}))


def test_what_does_not_fit_is_refused(engine):
    with pytest.raises(DocumentTooLong, match="window of 128"):
        engine.continue_prompts(PROMPTS, SamplingConfig(max_new_tokens=99))
