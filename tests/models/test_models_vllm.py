"""vLLM's rows are transformers' rows, by both routes; what fails fails a block and not the engine.

An engine takes half a minute to start, so each is started once, with all the sites that its tests need.
"""

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lrh_ray.errors import ConfigError, EngineFailed
from lrh_ray.models.backend import open_backend
from lrh_ray.models.checkpoints import Checkpoint, resolve_checkpoint
from lrh_ray.models.config import ModelConfig, VllmConfig
from lrh_ray.models.facts import model_facts
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.models.tiny import make_tiny
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.models.vllm.backend import VllmBackend
from lrh_ray.models.vllm.engine import Prompt
from lrh_ray.models.vllm.replica import Ended, Window
from lrh_ray.records import Document
from lrh_ray.testing.conformance import Collected, Oracle, error

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed; `make install` brings its CPU build", allow_module_level=True)

FAULTY_CONNECTOR = "lrh_ray.testing.vllm_faults:FaultyConnector"  # imported by the engine's processes only
TOLERANCE = 2e-6
SIZES = VllmConfig(longest=256, cache_gib=0.25, sequences=16, ring_mib=1)
TEXTS = ("The first.", "A second, rather longer document: twice as long.", "3", "four 4", "quint " * 42 + "abc")
HOOKED = ("embed", "attn_out.*", "mlp_out.*", "resid.*", "final_norm")


@dataclass
class Running:
    """A backend with what it was opened for."""

    backend: VllmBackend
    checkpoint: Checkpoint
    sites: tuple

    def block(self, *texts):
        documents = [Document(id=f"d{i}", text=text) for i, text in enumerate(texts or TEXTS)]
        tokenizer = load_tokenizer(self.checkpoint)
        return tokenize(documents, tokenizer, render="raw", bos="tokenizer", window=256, too_long="error")

    def rows(self, block):
        sink = Collected()
        assert self.backend.forward(block, sink) == block.num_tokens
        return sink.rows()


def start(checkpoint, sites, *, connector=None, order=1, **config):
    settings = ModelConfig(name="tiny", engine="vllm", batch_tokens=128, vllm=SIZES, **config)
    specs = model_facts(checkpoint, settings, sites).sites[::order]
    if connector is None:
        backend = open_backend(checkpoint, settings, specs)
    else:
        backend = VllmBackend(checkpoint, settings, specs, connector=connector)
    return closing(backend), Running(backend=backend, checkpoint=checkpoint, sites=specs)


def tiny(tmp_path_factory, family):
    """A tiny model with heads of 32 or 64 values, sizes that vLLM's attention on a CPU takes."""
    folder = make_tiny(family, tmp_path_factory.mktemp(family), hidden=128)
    if family.startswith("deepseek"):
        widen_latents(folder)
    return resolve_checkpoint(str(folder))


def widen_latents(folder):
    """Give latent attention DeepSeek's own sizes, the only ones that vLLM's kernels on a CPU take."""
    config = AutoConfig.from_pretrained(folder)
    config.kv_lora_rank, config.qk_rope_head_dim, config.qk_nope_head_dim, config.v_head_dim = 512, 64, 128, 128
    config.qk_head_dim, config.head_dim, config.q_lora_rank = 192, 64, 64
    config.rope_parameters = {  # DeepSeek-V3's own; with plain positions vLLM's rows on a CPU are wrong
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.ndim == 1 and "inv_freq" not in name:
                tensor.data.add_(0.1 * torch.randn_like(tensor))
        model.save_pretrained(folder)


def check_against_transformers(running, block=None, tolerance=TOLERANCE):
    block = block or running.block()
    ours, theirs = running.rows(block), Oracle(running.checkpoint).rows(running.sites, block)
    assert set(ours) == {site.name for site in running.sites}
    for site, rows in ours.items():
        assert rows.shape == theirs[site].shape
        assert error(rows, theirs[site]) <= tolerance, site
    if "resid.3" in ours and "resid.4" in ours:
        assert error(ours["resid.3"], ours["resid.4"]) > 0.1  # the null: neighbouring layers are not alike


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The connector, sites asked for from the deepest up."""
    closed, running = start(tiny(tmp_path_factory, "llama"), ["resid.*"], connector=FAULTY_CONNECTOR, order=-1)
    with closed:
        yield running


def test_the_stream_of_every_layer_is_transformers(llama):
    check_against_transformers(llama)


def test_the_backend_says_how_it_works(llama):
    facts = llama.backend.describe()
    assert (facts.engine, facts.dtype, facts.device, facts.repeatable) == ("vllm", "float32", "cpu", "values")
    assert facts.attention == "CPU_ATTN (connector)"


def test_rows_of_a_document_do_not_depend_on_its_company(llama):
    together = llama.block()
    rows, alone = llama.rows(together), llama.rows(llama.block(TEXTS[1]))
    for site, own in alone.items():
        part = rows[site][together.starts[1] : together.starts[2]]
        assert error(part, own) <= TOLERANCE


def test_more_rows_than_the_ring_holds_come_through_a_slow_sink(llama):
    class Counting:
        rows = 0

        def write(self, site, offset, rows):
            self.rows += rows.shape[0]

    block, sink = llama.block(*[TEXTS[4]] * 24), Counting()
    ring_bytes = SIZES.ring_mib << 20
    assert block.num_tokens * len(llama.sites) * 128 * 4 > 10 * ring_bytes
    assert llama.backend.forward(block, sink) == block.num_tokens
    assert sink.rows == block.num_tokens * len(llama.sites)


def test_chosen_positions_are_gathered_alone(llama):
    block = llama.block(TEXTS[4], TEXTS[1])
    every = llama.rows(block)
    pieces = np.split(block.token_ids, block.starts[1:-1])
    chosen = [[0, 3, 100, 255], [len(pieces[1]) - 1]]
    prompts = [
        Prompt(token_ids=piece.tolist(), positions=positions) for piece, positions in zip(pieces, chosen, strict=True)
    ]
    got = {}
    for event in llama.backend._engine.run(prompts):
        if isinstance(event, Window):
            got.setdefault(event.request, []).append(event.rows.copy())
    for request, positions in enumerate(chosen):
        rows = np.concatenate(got[request], axis=1)
        for index, site in enumerate(sorted(every)):
            wanted = every[site][block.starts[request] + np.array(positions)]
            assert error(rows[index], wanted) <= TOLERANCE


def test_positions_outside_a_document_fail_its_request_only(llama):
    events = list(
        llama.backend._engine.run([Prompt(token_ids=[1, 2, 3], positions=[5]), Prompt(token_ids=[4], positions=None)])
    )
    ended = {event.request: event.failure for event in events if isinstance(event, Ended)}
    assert "position 5" in ended[0]
    assert ended[1] is None


@pytest.mark.parametrize(("fault", "message"), [("error", "injected write error"), ("nan", "not finite")])
def test_a_failed_copy_fails_the_block_and_the_next_attempt_succeeds(llama, fault, message):
    (llama.checkpoint.path / "fault").write_text(fault)
    with pytest.raises(EngineFailed, match=f"1 of 5 documents.*document 'd.'.*{message}.*try the block again"):
        llama.backend.forward(llama.block(), Collected())
    check_against_transformers(llama)


def test_errors_of_the_sink_pass_through_and_the_engine_survives(llama):
    class Full:
        def write(self, site, offset, rows):
            raise OSError("disk full")

    with pytest.raises(OSError, match=r"^disk full$"):
        llama.backend.forward(llama.block(), Full())
    check_against_transformers(llama)


def test_a_document_longer_than_the_engine_is_refused_before_it_runs(llama):
    block = llama.block()
    longer = type(block)(
        document_ids=("d",),
        token_ids=np.zeros(300, np.int32),
        positions=np.arange(300, dtype=np.int32),
        char_start=np.zeros(300, np.int32),
        char_end=np.zeros(300, np.int32),
        starts=np.array([0, 300]),
    )
    with pytest.raises(ConfigError, match=r"300 tokens.*started for 256.*vllm\.longest"):
        llama.backend.forward(longer, Collected())


def test_an_engine_that_dies_is_an_error_now_and_ever_after(llama):  # last of its engine
    (llama.checkpoint.path / "fault").write_text("die")
    with pytest.raises(EngineFailed, match=r"vLLM engine failed"):
        llama.backend.forward(llama.block(), Collected())
    with pytest.raises(EngineFailed, match=r"broken.*Open the backend again"):
        llama.backend.forward(llama.block(), Collected())


def test_two_ranks_give_the_rows_of_one(tmp_path_factory):
    closed, running = start(tiny(tmp_path_factory, "llama"), ["resid.*"], tensor_parallel=2)
    with closed:
        check_against_transformers(running)


def test_hooks_give_what_the_blocks_add_and_all_else_outside_them(tmp_path_factory):
    closed, running = start(tiny(tmp_path_factory, "llama"), HOOKED)
    with closed:
        check_against_transformers(running)
        check_against_transformers(running, running.block(*[TEXTS[4]] * 3))  # each in several steps of the engine


@pytest.mark.parametrize(("family", "sites"), [("qwen2", "resid.*"), ("deepseek_v3", "resid.1:5")])
def test_other_families_by_the_connector(family, sites, tmp_path_factory):
    closed, running = start(tiny(tmp_path_factory, family), [sites])
    with closed:
        check_against_transformers(running)


@pytest.mark.model
def test_smollm2_is_transformers():
    closed, running = start(resolve_checkpoint("smollm2"), ["resid.1", "resid.15", "resid.30"], dtype="float32")
    with closed:
        check_against_transformers(running, running.block(*TEXTS[:4]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "ranks"),
    [
        ("llama", 2),
        ("qwen2", 1),
        ("qwen3", 1),
        ("mixtral", 1),
        ("deepseek_v2", 1),
        ("deepseek_v3", 1),
        ("gemma", 1),
        ("gemma2", 1),
        ("gemma3_text", 1),
    ],
)
def test_every_family_by_hooks(family, ranks, tmp_path_factory):
    closed, running = start(tiny(tmp_path_factory, family), HOOKED, tensor_parallel=ranks)
    with closed:
        check_against_transformers(running)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "ranks"), [("qwen3", 1), ("deepseek_v2", 1), ("deepseek_v3", 2), ("qwen2", 2)])
def test_every_family_by_the_connector(family, ranks, tmp_path_factory):
    closed, running = start(tiny(tmp_path_factory, family), ["resid.1:5"], tensor_parallel=ranks)
    with closed:
        check_against_transformers(running)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rows_keep_the_number_format_of_the_engine(dtype, tmp_path_factory):
    closed, running = start(tiny(tmp_path_factory, "llama"), ["resid.*"], dtype=dtype)
    with closed:
        check_against_transformers(running, tolerance=0.03)


def test_an_engine_ends_with_its_killed_owner(tmp_path):
    folder = make_tiny("llama", tmp_path / "model", hidden=128)
    code = (
        "import time; from lrh_ray.models.backend import open_backend; from lrh_ray.models.facts import model_facts;"
        "from lrh_ray.models.checkpoints import resolve_checkpoint; from lrh_ray.models.config import ModelConfig;"
        f"c = resolve_checkpoint({str(folder)!r}); m = ModelConfig(name='x', engine='vllm', dtype='float32');"
        "open_backend(c, m, model_facts(c, m, ['resid.1']).sites); print('open', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    {code}"], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        while owner.stdout.readline() != b"open\n":
            assert owner.poll() is None
        engine = psutil.Process(owner.pid).children(recursive=True)
        assert engine
        owner.kill()
    until = time.monotonic() + 20
    while any(map(lives, engine)):
        assert time.monotonic() < until
        time.sleep(0.2)


def lives(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
