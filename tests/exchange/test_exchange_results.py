"""Results of `lrh sae` become records that read rows as the study did, and the names are the study's own."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exchange_material import judged

from lrh_ray.artifacts import load_result, save_result
from lrh_ray.config import as_plain
from lrh_ray.errors import ConfigError, UnknownName
from lrh_ray.exchange.folders import export_result, import_folder
from lrh_ray.exchange.hooks import block_of, from_layer_name, from_lens_name, layer_name, lens_name
from lrh_ray.exchange.kinds import READ_AS, names_of
from lrh_ray.exchange.matrix import export_page, import_page
from lrh_ray.exchange.record import Exchanged
from lrh_ray.records import Result
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import (
    BatchTopKKind,
    ConCAKind,
    GatedKind,
    JumpReluKind,
    MatryoshkaKind,
    PAnnealKind,
    ReluKind,
    StructuredKind,
    TopKKind,
)
from lrh_ray.studies.sae_kinds import kind_names, make_reader, make_training

KINDS = (
    TopKKind(k=3),
    TopKKind(k=5),
    BatchTopKKind(k=3),
    MatryoshkaKind(k=3, groups=(0.5, 1.0)),
    MatryoshkaKind(k=3, groups=(0.25, 1.0)),
    ReluKind(),
    PAnnealKind(),
    StructuredKind(rank=4),
    StructuredKind(rank=None),
    GatedKind(),
    JumpReluKind(target=8),
    JumpReluKind(target=16.0, weight=2),
    ConCAKind(),
    ConCAKind(norm="group"),
    ConCAKind(norm="batch"),
)
CONFIG = SaeConfig(kinds=KINDS, latents=24, steps=10)
CENTRE = np.linspace(-1, 1, 8)
ROWS = (2 * np.random.default_rng(3).standard_normal((40, 8)) + CENTRE).astype(np.float32)
SCALE = 2.5
THRESHOLD = 0.7
PAGE = (Path(__file__).parents[2] / "docs" / "autoencoders-formats.md").read_text()


def readers():
    """As the study makes them, from weights that are not those of the start."""
    noise = torch.Generator().manual_seed(0)
    for kind in KINDS:
        tensors = dict(make_training(kind, CONFIG, CENTRE / SCALE, seed=1).tensors())
        for name in [name for name in tensors if name.startswith("parameter.")]:
            tensor = tensors[name].detach()
            tensors[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=noise)
        yield make_reader(kind, CONFIG, tensors, SCALE, THRESHOLD)


@pytest.fixture(scope="module")
def studied():
    return dict(zip(kind_names(KINDS), readers(), strict=True))


@pytest.fixture(scope="module")
def place(studied, tmp_path_factory):
    arrays = {"training": np.zeros((1, 2))}
    for name, reader in studied.items():
        arrays |= {f"resid.15/{name}/{key}": tensor.detach().numpy() for key, tensor in reader.parameters.items()}
        arrays[f"resid.15/{name}/density"] = np.zeros(24)
        if hasattr(reader, "threshold"):
            arrays[f"resid.15/{name}/threshold"] = np.array([reader.threshold])
    result = Result(
        kind="sae",
        title="Sparse autoencoders of a test",
        summary=(),
        asked={},
        resolved={"kinds": [as_plain(kind) for kind in KINDS], "sites": ["resid.15"]},
        inputs={"store": "0"},
        measures=(),
        arrays=arrays,
        provenance={"store": {"model": {"name": "tiny"}}},
    )
    return save_result(result, tmp_path_factory.mktemp("results"))


def test_names_are_those_of_the_study(place):
    assert names_of(load_result(place).resolved["kinds"]) == kind_names(KINDS)
    for few in (KINDS[:1], KINDS[:2], KINDS[3:5], KINDS[7:9]):
        assert names_of([asdict(kind) for kind in few]) == kind_names(few)
    assert kind_names(KINDS)[10] == "jumprelu weight 1.0 target 8.0"  # whole numbers in Python, as a file has them
    assert READ_AS.keys() == {kind.kind for kind in KINDS}


@pytest.mark.parametrize("number", range(len(KINDS)), ids=kind_names(KINDS))
def test_a_result_reads_rows_as_the_study_did(studied, place, number):
    name = kind_names(KINDS)[number]
    one = Exchanged.of_result(load_result(place), "resid.15", name)
    assert (one.site, one.model, one.trained_as) == ("resid.15", "tiny", KINDS[number].kind)
    with torch.no_grad():
        codes = studied[name].codes(torch.tensor(ROWS))
        assert torch.equal(one.reader().codes(torch.tensor(ROWS)), codes)
        assert torch.equal(one.reader().decode(codes), studied[name].decode(codes))
    assert one.k == getattr(KINDS[number], "k", None)


def test_a_result_of_kinds_without_numbers_of_their_own_is_read_by_the_same_names(place):
    """As results were before kinds had them."""
    result = load_result(place)
    without = [
        {key: v for key, v in kind.items() if key not in ("latents", "seed")} for kind in result.resolved["kinds"]
    ]
    assert len(without[0]) == len(result.resolved["kinds"][0]) - 2
    before = replace(result, resolved={**result.resolved, "kinds": without})
    for name in kind_names(KINDS):
        one, other = (Exchanged.of_result(each, "resid.15", name) for each in (result, before))
        assert (one.kind, one.k, one.threshold, one.norm) == (other.kind, other.k, other.threshold, other.norm)


def test_what_a_result_does_not_have_is_named(place):
    result = load_result(place)
    with pytest.raises(UnknownName, match=r"No autoencoder 'topk' .* It has: 'topk k 3', 'topk k 5', 'batchtopk'"):
        Exchanged.of_result(result, "resid.15", "topk")
    with pytest.raises(UnknownName, match=r"No site 'resid\.14' .* It has: resid\.15"):
        Exchanged.of_result(result, "resid.14", "gated")
    with pytest.raises(ConfigError, match="kind 'probe'; autoencoders are in those of `lrh sae`"):
        Exchanged.of_result(replace(result, kind="probe"), "resid.15", "gated")


def test_the_code_of_the_page_runs(place, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"rows": torch.tensor(ROWS)}
    exec(compile(code.replace("runs/demo/results/1f3a", str(place)), "autoencoders-formats.md", "exec"), names)
    again = import_folder(tmp_path / "exported" / "resid.15")
    assert (again.kind, again.site, again.model) == ("threshold", "resid.15", "tiny")
    assert names["codes"].shape == (40, 24)


def test_a_folder_is_returned_where_it_was_written(place, tmp_path):
    assert export_result(place, "resid.15", "gated", "saelens", tmp_path / "a" / "b") == tmp_path / "a" / "b"
    with pytest.raises(ConfigError, match="structured autoencoder cannot be written as saelens"):
        export_result(place, "resid.15", kind_names(KINDS)[7], "saelens", tmp_path / "c")


def test_the_page_has_the_matrix_and_what_libraries_found():
    assert export_page() in PAGE
    assert import_page() in PAGE
    assert judged() in PAGE


@pytest.mark.parametrize(
    ("site", "lens", "layer", "block"),
    [
        ("resid.13", "blocks.12.hook_resid_post", "model.layers.12.output", 12),
        ("resid.0", "blocks.0.hook_resid_pre", "resid.0", None),
        ("attn_out.1", "blocks.0.hook_attn_out", "attn_out.1", 0),
        ("mlp_out.3", "blocks.2.hook_mlp_out", "mlp_out.3", 2),
        ("final_norm", "ln_final.hook_normalized", "final_norm", None),
        ("h.3.mlp", "h.3.mlp", "h.3.mlp", None),
        (None, None, None, None),
    ],
)
def test_places_have_their_names_on_the_other_side(site, lens, layer, block):
    assert (lens_name(site), layer_name(site), block_of(site)) == (lens, layer, block)
    assert (from_lens_name(lens), from_layer_name(layer)) == (site, site)
