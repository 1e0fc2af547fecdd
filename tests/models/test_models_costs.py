"""Costs held against published numbers: parameter counts, the table of physical limits, and plain arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.errors import CheckpointMissing, ConfigError, TooLarge, UnknownName
from lrh_ray.models.batches import plan_batches
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.costs import GPUS, Fleet, Work, device_memory, flops_per_token, gpu_speed, loaded
from lrh_ray.models.costs_fit import check_tensor_parallel, choose_tensor_parallel
from lrh_ray.models.costs_host import batch_shapes, open_chunks, padded_tokens, typical_shapes
from lrh_ray.models.costs_measured import measure_pace, measure_products
from lrh_ray.models.facts import read_architecture
from lrh_ray.models.known import known_checkpoint, known_name, known_names
from lrh_ray.models.meta_facts import describe_model
from lrh_ray.models.meta_tree import model_tree

PUBLISHED = {
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "deepseek-r1-distill-qwen-7b": 7_615_616_512,
    "deepseek-r1-distill-qwen-14b": 14_770_033_664,
    "deepseek-r1-distill-qwen-32b": 32_763_876_352,
    "deepseek-v3": 671_026_419_200 - 58 * 256,  # the router's correction is a buffer in transformers
    "gemma-2b": 2_506_172_416,
    "gpt-j-6b": 6_050_882_784,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "open-llama-3b": 3_426_473_600,
    "pythia-70m": 70_426_624,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "smollm2-135m": 134_515_008,
}
"""Sizes of the checkpoints as their hub pages give them (safetensors), without DeepSeek-V3's module for more tokens."""


@pytest.fixture(scope="module")
def tree_of():
    made = {}

    def tree(name: str):
        if name not in made:
            made[name] = model_tree(read_architecture(known_checkpoint(f"known:{name}")), "bfloat16")
        return made[name]

    return tree


def work(tree, **changes):
    row = tree.hidden_size * 2
    settings = {
        "tokens": 10**9,
        "depth": tree.num_layers,
        "row_bytes": row,
        "widest_bytes": row,
        "batch_tokens": 16384,
        "attended": 2048.0,
        "longest": 4096,
    }
    return Work(**{**settings, **changes})


def test_every_known_architecture_is_in_the_table():
    assert set(known_names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_meta_tree_has_the_published_number_of_parameters(tree_of, name):
    tree = tree_of(name)
    assert tree.num_parameters == PUBLISHED[name]
    assert {weight.layer for weight in tree.weights} == set(range(tree.num_layers + 1))
    assert sum(weight.num for weight in tree.below(tree.num_layers)) <= tree.num_parameters


@pytest.mark.parametrize("name", ["llama-3-70b", "llama-3.1-405b", "deepseek-v3", "gpt-j-6b", "pythia-12b"])
def test_the_site_map_comes_from_the_description(name):
    """The site map comes from config.json alone; sites inside blocks take their widths from the modules."""
    checkpoint = known_checkpoint(f"known:{name}")
    described = describe_model(checkpoint, ModelConfig(name=checkpoint.name), ["resid.*", "heads.*", "final_norm"])
    tree = described.tree
    assert [site.name for site in described.sites].count("final_norm") == 1
    assert sum(site.name.startswith("resid.") for site in described.sites) == tree.num_layers + 1
    assert all(site.width == tree.hidden_size for site in described.sites if not site.name.startswith("heads."))
    assert described.depth == tree.num_layers


TABLE = [
    # model, GPUs, GFLOP per token, tokens/s, bytes per token and layer, GB/s of 1, 4 and all layers, layers
    ("llama-3-8b", 1, 16, 30.8e3, 8192, (0.25, 1.0, 8.3), 33),
    ("llama-3-8b", 8, 16, 246e3, 8192, (2.0, 8.1, 66.6), 33),
    ("llama-3-70b", 8, 141, 28.0e3, 16384, (0.46, 1.8, 37.2), 81),
    ("deepseek-v3", 8, 74, 53.5e3, 14336, (0.77, 3.1, 47.5), 62),
]
"""Physical limits at half of the peak of H200s: a whole forward pass, unembedding included, for each row."""


@pytest.mark.parametrize(("name", "gpus", "gflop", "rate", "layer_bytes", "streams", "layers"), TABLE)
def test_the_table_of_physical_limits_comes_out_within_ten_percent(
    tree_of, name, gpus, gflop, rate, layer_bytes, streams, layers
):
    """The table counts 2 operations per parameter, embeddings included; here the unembedding is counted, the look-up is
    not, and attention over documents of 2,048 tokens is."""
    tree = tree_of(name)
    assert tree.num_layers + 1 == layers
    assert tree.hidden_size * 2 == layer_bytes
    asked = work(tree, logits=True)
    ranks = 1 if name == "llama-3-8b" else 8
    fleet = Fleet(gpu=GPUS["h200"], gpus=gpus, tensor_parallel=ranks, engine="vllm", utilisation=0.5, sink=1e12)
    flops = flops_per_token(tree, depth=asked.depth, attended=asked.attended, logits=True)
    assert flops / 1e9 == pytest.approx(gflop, rel=0.1)
    speed = gpu_speed(tree, asked, fleet)
    assert speed.model == pytest.approx(rate, rel=0.1)
    for number, stream in zip((1, 4, layers), streams, strict=True):
        assert speed.model * number * layer_bytes / 1e9 == pytest.approx(stream, rel=0.1)


@pytest.mark.parametrize(
    ("name", "share"), [("llama-3-70b", 0.038), ("llama-3-8b", 0.067), ("deepseek-v3", 0.14)], ids=str
)
def test_attention_adds_the_share_that_the_table_names(tree_of, name, share):
    """At 4,096 tokens, relative to 2 operations for every active parameter."""
    tree = tree_of(name)
    short, long = (flops_per_token(tree, depth=tree.num_layers, attended=s, logits=True) for s in (0, 4096))
    assert (long - short) / short == pytest.approx(share, rel=0.1)


def test_bottleneck_and_r_max_follow_the_smallest_rate(tree_of):
    tree = tree_of("llama-3-70b")
    everything = work(tree, row_bytes=81 * 16384)
    rates = {}
    for sink in (12.5e9, 1e12):
        fleet = Fleet(gpu=GPUS["h200"], gpus=8, tensor_parallel=8, engine="vllm", utilisation=0.5, sink=sink)
        rates[sink] = gpu_speed(tree, everything, fleet)
    assert (rates[12.5e9].bottleneck, rates[1e12].bottleneck) == ("sink", "model")
    assert rates[12.5e9].r_max == pytest.approx(12.5 / 37.2, rel=0.1)
    assert rates[1e12].r_max == 1
    alone = Fleet(gpu=GPUS["h200"], gpus=8, tensor_parallel=8, engine="transformers", utilisation=0.9, sink=1e12)
    assert gpu_speed(tree, everything, alone).bottleneck == "link"  # one rank copies for all


def test_deepseek_keeps_its_weights_in_one_byte(tree_of):
    architecture = read_architecture(known_checkpoint("known:deepseek-v3"))
    tree = tree_of("deepseek-v3")
    total = sum(weight.num_bytes for weight in tree.weights)
    two_bytes = sum(weight.num_bytes - weight.num for weight in tree.weights if weight.part != "block")
    assert total == pytest.approx(tree.num_parameters * (1 + 4 / 128**2) + two_bytes, rel=1e-3)
    architecture.quantization_config = None
    assert sum(weight.num_bytes for weight in model_tree(architecture, "bfloat16").weights) == 2 * tree.num_parameters


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
@pytest.mark.parametrize("name", ["llama-3-70b", "deepseek-v3", "pythia-6.9b", "gpt2-xl"])
def test_ranks_share_the_weights_and_never_lose_any(tree_of, name, engine):
    tree = tree_of(name)
    whole = sum(weight.num_bytes for weight in loaded(tree, tree.num_layers, engine))
    before = whole
    for ranks in (1, 2, 4, 8):
        each = device_memory(tree, work(tree), tensor_parallel=ranks, engine=engine).weights
        assert whole <= ranks * each
        assert each <= before
        before = each
    split = before < 0.2 * whole
    assert split == (engine == "vllm" or name != "gpt2-xl")  # transformers has no plan for GPT-2


def test_a_shallow_site_needs_fewer_weights_and_operations(tree_of):
    tree = tree_of("llama-3-70b")
    half, full = (device_memory(tree, work(tree, depth=d), tensor_parallel=1, engine="transformers") for d in (40, 80))
    assert half.weights == pytest.approx(full.weights / 2, rel=0.02)
    ratio = flops_per_token(tree, depth=40, attended=2048, logits=False)
    assert ratio == flops_per_token(tree, depth=80, attended=2048, logits=False) / 2


@pytest.mark.parametrize(
    ("name", "gpu", "gpus", "ranks"),
    [
        ("llama-3-8b", "h100", 8, 1),
        ("llama-3-70b", "h100", 8, 4),
        ("llama-3-70b", "h200", 8, 2),
        ("llama-3.1-405b", "h200", 8, 8),
        ("deepseek-v3", "h200", 16, 8),
        ("deepseek-v3", "h100", 16, 16),
    ],
)
def test_a_replica_takes_the_fewest_gpus_that_hold_it(tree_of, name, gpu, gpus, ranks):
    tree = tree_of(name)
    assert choose_tensor_parallel(tree, work(tree), gpu=GPUS[gpu], gpus=gpus, engine="vllm") == ranks


def test_what_cannot_fit_is_refused_with_the_remedy(tree_of):
    tree = tree_of("deepseek-v3")
    with pytest.raises(TooLarge, match=r"8 of 8 x h100 needs 8\d\.\d GB.*use 16 GPUs with tensor_parallel 16.*sites"):
        choose_tensor_parallel(tree, work(tree), gpu=GPUS["h100"], gpus=8, engine="vllm")
    with pytest.raises(TooLarge, match="KV cache"):
        check_tensor_parallel(tree, work(tree), ranks=4, gpu=GPUS["h200"], gpus=8, engine="vllm")
    with pytest.raises(ConfigError, match=r"tensor_parallel is 3.*divide"):
        check_tensor_parallel(tree, work(tree), ranks=3, gpu=GPUS["h200"], gpus=8, engine="vllm")
    big = work(tree, batch_tokens=10**8)
    with pytest.raises(TooLarge, match="GPUs with more memory"):
        choose_tensor_parallel(tree, big, gpu=GPUS["l4"], gpus=8, engine="vllm")


def test_names_of_descriptions():
    assert known_name("known:llama-3-70b") == known_name("meta-llama/Meta-Llama-3-70B") == "llama-3-70b"
    assert known_name("smollm2") is None
    with pytest.raises(UnknownName, match=r"did you mean 'known:llama-3-70b'"):
        known_name("known:llama3-70b")
    with pytest.raises(UnknownName, match="pythia-70m"):
        known_checkpoint("some/model")
    with pytest.raises(CheckpointMissing, match=r"without weights.*hub id"):
        resolve_checkpoint("known:llama-3-70b")


lengths_of_block = st.lists(st.integers(1, 90), min_size=1, max_size=40)


@given(lengths_of_block, st.integers(1, 3), st.integers(1, 300), st.sampled_from([1, 4, 16, 64]))
def test_open_chunks_are_those_that_a_writer_would_hold(lengths, keep, batch_tokens, chunk_rows):
    """The oracle walks batch by batch and counts what has begun and is not full; every `keep`-th row is kept."""
    seen = np.array(lengths, dtype=np.int64)
    lengths = -(-seen // keep)
    starts = np.cumsum(lengths) - lengths
    missing = np.bincount(np.arange(lengths.sum()) // chunk_rows)
    full, most = missing.copy(), 0
    for members in plan_batches(seen, batch_tokens):
        rows = np.concatenate([np.arange(starts[m], starts[m] + lengths[m]) for m in members]) // chunk_rows
        touched = np.unique(rows)
        most = max(most, int(((missing < full) & (missing > 0)).sum()) + int((missing[touched] == full[touched]).sum()))
        missing -= np.bincount(rows, minlength=len(missing))
    assert (missing == 0).all()
    assert open_chunks(starts, lengths, seen=seen, batch_tokens=batch_tokens, chunk_rows=chunk_rows) == most


@given(lengths_of_block, st.integers(1, 300), st.integers(1, 5))
def test_shapes_cover_every_token_and_typical_ones_are_among_them(lengths, batch_tokens, number):
    lengths = np.array(lengths, dtype=np.int64)
    shapes = batch_shapes(lengths, batch_tokens)
    assert sum(rows for rows, _ in shapes) == len(lengths)
    assert padded_tokens(shapes) >= lengths.sum()
    assert set(typical_shapes(shapes, number)) <= set(shapes)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "deepseek_v3"])
def test_the_pace_of_a_cpu_is_measured_without_weights(tiny_folder, family):
    architecture = read_architecture(resolve_checkpoint(str(tiny_folder(family))))
    threads = torch.get_num_threads()
    shallow, deep = (
        measure_pace(architecture, "float32", depth=depth, shapes=[(4, 32), (2, 20)], threads=1) for depth in (1, 400)
    )
    assert shallow is not None
    assert deep is not None
    assert deep.tokens_timed == 4 * 32 + 2 * 20
    assert deep.seconds_per_token > 10 * shallow.seconds_per_token
    assert torch.get_num_threads() == threads
    assert architecture.num_hidden_layers == 4  # the caller's own is left as it was


def test_a_block_too_large_to_try_is_not_tried():
    architecture = read_architecture(known_checkpoint("known:llama-3-70b"))
    assert measure_pace(architecture, "bfloat16", depth=80, shapes=[(1, 16)], threads=1) is None
    assert measure_products("float32", threads=1) > 1e8
