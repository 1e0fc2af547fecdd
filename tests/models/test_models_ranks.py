"""One model held by two processes, and DeepSeek's fp8 files."""

import subprocess
import sys

import numpy as np
import pytest

from lrh_ray.errors import CheckpointBroken, SiteError
from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts
from lrh_ray.models.hf import TransformersBackend
from lrh_ray.models.parity import reference_rows
from lrh_ray.models.ranks import Rank
from lrh_ray.models.tiny_fp8 import quantise
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.records import Document
from lrh_ray.testing.conformance import Oracle, error

TEXTS = ("The first.", "A second, rather longer document.", "3")
SITES = ("embed", "resid.*", "attn_out.*", "mlp_out.*", "final_norm")


def block_of(folder):
    documents = [Document(id=str(index), text=text) for index, text in enumerate(TEXTS)]
    tokenizer = load_tokenizer(resolve_checkpoint(str(folder)))
    return tokenize(documents, tokenizer, render="raw", bos="tokenizer", window=256, too_long="error")


def sites_of(folder, *names):
    return model_facts(resolve_checkpoint(str(folder)), ModelConfig(name=str(folder)), names).sites


def rows_of_two(folder, out, *options):
    command = [sys.executable, "-m", "lrh_ray.testing.ranks", str(folder), str(out), "--sites", *SITES]
    subprocess.run([*command, *options, "--texts", *TEXTS], check=True, timeout=300)
    return np.load(out)


@pytest.fixture(scope="module")
def fp8(tiny_folder, tmp_path_factory):
    """A DeepSeek-V3 of fp8 blocks, and the checkpoint of what they mean."""
    folder = tmp_path_factory.mktemp("fp8")
    quantise(tiny_folder("deepseek_v3"), folder / "fp8", folder / "meant")
    return folder / "fp8", folder / "meant"


def test_two_ranks_give_the_rows_of_one_process(tiny_folder, tmp_path):
    folder = tiny_folder("llama")
    expected = Oracle(resolve_checkpoint(str(folder))).rows(sites_of(folder, *SITES), block_of(folder))
    rows = rows_of_two(folder, tmp_path / "rows.npz")
    assert set(rows) == set(expected)
    assert max(error(rows[site], expected[site]) for site in expected) <= 1e-5


def test_fp8_shards_with_ranks_and_experts_give_the_rows_of_the_dequantised_model(fp8, tmp_path):
    folder, meant = fp8
    assert len(list(folder.glob("*.safetensors"))) == 3
    expected = Oracle(resolve_checkpoint(str(meant))).rows(sites_of(folder, *SITES), block_of(folder))
    rows = rows_of_two(folder, tmp_path / "rows.npz", "--experts")
    assert max(error(rows[site], expected[site]) for site in expected) <= 1e-5


def test_the_streamed_reference_reads_fp8_blocks(fp8, tmp_path):
    folder, meant = fp8
    sites, block = sites_of(folder, "resid.*", "final_norm"), block_of(folder)
    ours = reference_rows(resolve_checkpoint(str(folder)), block, sites)
    theirs = reference_rows(resolve_checkpoint(str(meant)), block, sites)
    assert all(np.array_equal(ours[site.name], theirs[site.name]) for site in sites)
    config = (folder / "config.json").read_text()
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).symlink_to(path)
    (other / "config.json").unlink()
    (other / "config.json").write_text(config.replace('"fp8"', '"gptq"'))
    with pytest.raises(CheckpointBroken, match="Block-wise fp8"):
        reference_rows(resolve_checkpoint(str(other)), block, sites)


def test_sites_that_no_rank_holds_whole_are_refused(tiny_folder):
    folder = tiny_folder("llama")
    with pytest.raises(SiteError, match=r"set model\.tensor_parallel: 1"):
        TransformersBackend(
            resolve_checkpoint(str(folder)),
            ModelConfig(name="tiny"),
            sites_of(folder, "heads.1"),
            Rank(index=0, size=2, address="127.0.0.1:1"),
        )
