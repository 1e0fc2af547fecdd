"""Transcoders of Gemma Scope 2 are read as they are published: the encoder reads x, and x A is added."""

import json

import numpy as np
import pytest
from exchange_material import close, read_rows
from safetensors.numpy import save_file

from lrh_ray.errors import CheckpointBroken, ConfigError
from lrh_ray.exchange.folders import codec, import_folder

WIDTH, WRITTEN, LATENTS = 8, 6, 24
READS, WRITES = (f"model.layers.5.{where}_feedforward_layernorm.output" for where in ("pre", "post"))


def published(folder, *, skips, **settings):
    """Files as they are published, and their tensors."""
    rng = np.random.default_rng(2)
    shapes = {"w_enc": (WIDTH, LATENTS), "w_dec": (LATENTS, WRITTEN), "b_enc": (LATENTS,), "b_dec": (WRITTEN,)}
    shapes |= {"affine_skip_connection": (WIDTH, WRITTEN)} if skips else {}
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    tensors["threshold"] = 0.2 + rng.random(LATENTS, np.float32)
    about = {"architecture": "jump_relu", "type": "transcoder", "model_name": "google/gemma-3-4b-it"}
    about |= {"hf_hook_point_in": READS, "hf_hook_point_out": WRITES, "affine_connection": skips}
    folder.mkdir()
    save_file(tensors, folder / "params.safetensors")
    (folder / "config.json").write_text(json.dumps({**about, **settings}))
    return tensors


@pytest.mark.parametrize("skips", [False, True])
def test_a_transcoder_is_read_as_it_is_published(tmp_path, skips):
    own = published(tmp_path / "a", skips=skips)
    found = import_folder(tmp_path / "a")
    assert (found.kind, found.transcodes, found.site, found.writes) == ("jumprelu", True, READS, WRITES)
    rows = np.random.default_rng(3).standard_normal((40, WIDTH)).astype(np.float32)
    pre = rows @ own["w_enc"] + own["b_enc"]
    codes = np.where(pre > own["threshold"], np.maximum(pre, 0), 0)
    skipped = rows @ own["affine_skip_connection"] if skips else 0
    back = codes @ own["w_dec"] + own["b_dec"] + skipped
    for mine, theirs in zip(read_rows(found, rows), (codes, back), strict=True):
        close(mine, theirs)


def test_what_is_wrong_with_one_is_said(tmp_path):
    published(tmp_path / "a", skips=False, affine_connection=True)
    with pytest.raises(CheckpointBroken, match="no tensor 'affine_skip_connection'"):
        import_folder(tmp_path / "a")
    published(tmp_path / "b", skips=True)
    with pytest.raises(ConfigError, match=r"as they are published\. These formats take it"):
        codec("gemma_scope_2").write(import_folder(tmp_path / "b"), tmp_path / "c")
