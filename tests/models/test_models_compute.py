"""In which number format a model runs, and that rows do not tell."""

from contextlib import closing
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from lrh_ray.errors import ConfigError
from lrh_ray.models import compute
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.compute import compute_dtype, cpu_multiplies
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts
from lrh_ray.testing.stores import make_tokens

ANY = ModelConfig(name="any")


@pytest.fixture(params=[True, False])
def able(request, monkeypatch):
    """A CPU with, and one without products of 16-bit numbers."""
    monkeypatch.setattr(compute, "ASK", dict.fromkeys(("bfloat16", "float16"), lambda: request.param))
    cpu_multiplies.cache_clear()
    yield request.param
    cpu_multiplies.cache_clear()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_cpu_that_cannot_multiply_a_format_runs_in_float32(able, dtype):
    assert compute_dtype(dtype, ANY, "cpu") == (dtype if able else "float32")
    assert compute_dtype(dtype, ANY, "cuda") == dtype
    assert compute_dtype(dtype, replace(ANY, compute="dtype"), "cpu") == dtype
    assert compute_dtype(dtype, replace(ANY, compute="float32"), "cuda") == "float32"


def test_float32_is_refused_where_another_engine_decides():
    with pytest.raises(ConfigError, match="dtype: float32"):
        ModelConfig(name="any", engine="vllm", compute="float32")


def rows_of(folder, sites, **settings):
    """Rows of every site, and how they were made."""
    config = ModelConfig(name="tiny", **settings)
    checkpoint = Checkpoint(name="tiny", path=folder)
    tokens, found = make_tokens([9, 5, 12]), {}

    class Sink:
        def write(self, site, offset, rows):
            found.setdefault(site, {})[offset] = np.array(rows)

    with closing(open_backend(checkpoint, config, model_facts(checkpoint, config, sites).sites)) as backend:
        backend.forward(tokens, Sink())
        facts = backend.describe()
    return {site: np.concatenate([parts[at] for at in sorted(parts)]) for site, parts in found.items()}, facts


def test_rows_are_those_of_a_float32_pass_rounded_once(tiny_folder):
    """A 16-bit model that runs in float32 is that model, without the rounding of every step."""
    sites = ["embed", "resid.1", "mlp_out.1", "final_norm"]
    folder = tiny_folder("llama")
    rounded, facts = rows_of(folder, sites, dtype="bfloat16", compute="float32")
    narrow, narrow_facts = rows_of(folder, sites, dtype="bfloat16", compute="dtype")
    assert (facts.dtype, facts.compute) == ("bfloat16", "float32")
    assert (narrow_facts.dtype, narrow_facts.compute) == ("bfloat16", "bfloat16")
    for site in sites:
        assert rounded[site].dtype == narrow[site].dtype == ml_dtypes.bfloat16
        wide, thin = rounded[site].astype(np.float32), narrow[site].astype(np.float32)
        assert np.abs(wide - thin).max() <= 0.05 * np.abs(wide).max()
    assert (rounded["embed"] == narrow["embed"]).all()
