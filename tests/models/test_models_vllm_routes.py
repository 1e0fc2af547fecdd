"""What is decided before an engine starts."""

import subprocess
import sys
from dataclasses import replace

import pytest

from lrh_ray.errors import ConfigError, SiteError
from lrh_ray.models.config import ModelConfig, VllmConfig
from lrh_ray.models.vllm.options import (
    EngineTask,
    cores_per_rank,
    engine_arguments,
    engine_environment,
    tokens_per_step,
)
from lrh_ray.models.vllm.ring import fit_ring
from lrh_ray.models.vllm.routes import LAYOUTS, auxiliary_layers, route_of
from lrh_ray.models.vllm.share import ShareOptions


@pytest.mark.parametrize(
    ("family", "sites", "route"),
    [
        ("llama", ["resid.0", "resid.4"], "connector"),
        ("llama", ["resid.4", "attn_out.4"], "hooks"),
        ("qwen2", ["final_norm"], "hooks"),
        ("deepseek_v3", ["resid.1"], "connector"),
        ("deepseek_v3", ["resid.0"], "hooks"),
        ("mixtral", ["resid.1"], "hooks"),
    ],
)
def test_the_route_follows_from_family_and_sites(family, sites, route):
    assert route_of(family, sites) == route


@pytest.mark.parametrize("site", ["heads.1", "router.2", "experts.2", "mlp_act.1"])
def test_sites_that_no_route_gives_are_refused_with_the_way_out(site):
    with pytest.raises(SiteError, match=f"{site}.*Use engine: transformers"):
        route_of("llama", ["resid.1", site])


def test_families_nobody_compared_are_refused():
    with pytest.raises(SiteError, match=r"'gpt2' are not compared.*deepseek_v3.*engine: transformers"):
        route_of("gpt2", ["resid.1"])


def test_layer_ids_ascend_and_are_there_once():
    assert auxiliary_layers(["resid.10", "resid.2", "resid.2", "resid.0"]) == (0, 2, 10)


@pytest.mark.parametrize(
    ("cores", "threads", "ranks", "expected"),
    [
        ([0, 1], None, 1, "0,1"),
        ([0, 1], None, 2, "0|1"),
        ([4, 5, 6, 7], None, 2, "4,5|6,7"),
        ([0, 1], 1, 1, "0"),
        ([3], None, 2, "3|3"),
        ([0, 1], 8, 2, "0,1|0,1"),
    ],
)
def test_ranks_get_cores_of_their_own_while_there_are_enough(cores, threads, ranks, expected):
    assert cores_per_rank(cores, threads, ranks) == expected


def task(route, sites=("resid.2", "resid.10")):
    shape = fit_ring(num_bytes=1 << 20, sites=2, width=8, itemsize=2, longest=64)
    share = ShareOptions(folder="/x", width=8, ranks=1, dtype="bfloat16", shape=shape)
    return EngineTask(
        path="/m",
        dtype="bfloat16",
        family="llama",
        sites=sites,
        route=route,
        longest=64,
        share=share,
        connector="a.b:C",
    )


def test_an_engine_with_hooks_is_eager_and_one_with_the_connector_is_compiled_on_a_gpu():
    config = ModelConfig(name="m", engine="vllm", tensor_parallel=2, batch_tokens=512)
    hooks = engine_arguments(task("hooks"), config, device="cuda")
    capture = engine_arguments(task("connector"), config, device="cuda")
    assert (hooks["enforce_eager"], capture["enforce_eager"]) == (True, False)
    assert "kv_transfer_config" not in hooks
    assert capture["kv_transfer_config"]["kv_connector_module_path"] == "a.b"
    assert capture["speculative_config"]["draft_model_config"] == {
        "hf_config": {"eagle_aux_hidden_state_layer_ids": [2, 10]}
    }
    for arguments in (hooks, capture):
        assert arguments["enable_prefix_caching"] is False
        assert arguments["trust_remote_code"] is False
        assert arguments["gpu_memory_utilization"] == 0.85
        assert arguments["kv_cache_memory_bytes"] is None
    assert engine_environment(task("hooks"), config, device="cuda")["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    assert "VLLM_USE_V2_MODEL_RUNNER" not in engine_environment(task("connector"), config, device="cuda")


def test_a_step_holds_the_longest_document_where_it_cannot_be_cut():
    config = ModelConfig(name="m", engine="vllm", batch_tokens=16, vllm=VllmConfig(sequences=4))
    latent = replace(task("connector"), family="deepseek_v3")
    assert tokens_per_step(task("connector"), config, device="cpu") == 16
    assert tokens_per_step(latent, config, device="cuda") == 16
    assert tokens_per_step(latent, config, device="cpu") > latent.longest


@pytest.mark.parametrize(
    "wrong", [{"longest": 0}, {"sequences": 0}, {"cache_gib": 0.0}, {"memory_fraction": 1.5}, {"ring_mib": 0}]
)
def test_sizes_are_checked(wrong):
    with pytest.raises(ConfigError, match=f"vllm.{next(iter(wrong))}"):
        VllmConfig(**wrong)


def test_a_replica_has_a_device():
    with pytest.raises(ConfigError, match="tensor_parallel is 0"):
        ModelConfig(name="m", tensor_parallel=0)


def test_every_layout_is_of_a_family_that_exists():
    from lrh_ray.models.families import known_families

    assert set(LAYOUTS) <= set(known_families())


def test_naming_the_engine_loads_neither_torch_nor_vllm():
    code = (
        "import sys, lrh_ray.models.backend, lrh_ray.models.vllm.ring, lrh_ray.models.vllm.routes\n"
        "from lrh_ray.models.config import ModelConfig\n"
        "ModelConfig(name='m', engine='vllm')\n"
        "sys.exit(bool({'torch', 'vllm', 'ray', 'zarr'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
