import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrh_ray.errors import SiteError
from lrh_ray.models.sites import num_blocks_needed, resolve_sites


def names(asked, num_layers=30):
    return [site.name for site in resolve_sites(asked, num_layers=num_layers, hidden_size=8)]


@given(st.data(), st.integers(0, 40))
def test_a_slice_is_pythons_range(data, num_layers):
    start = data.draw(st.integers(0, num_layers))
    stop = data.draw(st.integers(start + 1, num_layers + 1))
    step = data.draw(st.integers(1, 7))
    expected = [f"resid.{layer}" for layer in range(start, stop, step)]
    assert names([f"resid.{start}:{stop}:{step}"], num_layers) == expected


@given(st.permutations(["final_norm", "resid.10", "resid.2", "resid.0", "resid.30"]))
def test_sites_come_in_order_of_depth(asked):
    assert names(asked) == ["resid.0", "resid.2", "resid.10", "resid.30", "final_norm"]


def test_star_and_open_slices_mean_every_layer():
    assert names(["resid.*"], 3) == names(["resid.:"], 3) == ["resid.0", "resid.1", "resid.2", "resid.3"]


def test_layers_and_widths_are_in_the_specs():
    first, last = resolve_sites(["final_norm", "resid.4"], num_layers=4, hidden_size=8)
    assert (first.layer, last.layer, first.width, last.width) == (4, None, 8, 8)


@pytest.mark.parametrize(
    ("asked", "blocks"), [(["resid.0"], 0), (["resid.2", "resid.1"], 2), (["resid.4"], 4), (["final_norm"], 4)]
)
def test_blocks_needed_is_the_deepest_site(asked, blocks):
    assert num_blocks_needed(resolve_sites(asked, num_layers=4, hidden_size=8), 4) == blocks


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["resid.31"], "from 0 .* to 30"),
        (["resid.0:32"], "from 0 .* to 30"),
        (["residual.3"], "Did you mean 'resid.3'"),
        (["final_nrom"], "Did you mean 'final_norm'"),
        (["resid"], "Did you mean 'resid"),
        (["resid.03"], "Did you mean"),
        (["resid.-1"], "Did you mean"),
        (["final_norm.2"], "Did you mean 'final_norm'"),
        (["zzz"], "Valid sites"),
        (["resid.3", "resid.1:5"], "'resid.3' is asked for more than once"),
        (["resid.5:5"], "names no layer"),
        (["resid.1:5:0"], "names no layer"),
        ([], "No site"),
    ],
)
def test_mistakes_name_the_way_out(asked, told):
    with pytest.raises(SiteError, match=told):
        names(asked)


INNER = {"heads.1": 96, "heads.2": 96, "mlp_act.1": 128, "router.2": 4, "experts.2": 2}


def test_sites_inside_blocks_have_their_own_widths_and_come_in_the_order_of_the_forward_pass():
    asked = [
        "final_norm",
        "resid.*",
        "mlp_out.2",
        "experts.2",
        "router.*",
        "heads.1:3",
        "mlp_act.1",
        "attn_out.2",
        "embed",
    ]
    sites = resolve_sites(asked, num_layers=2, hidden_size=8, inner=INNER)
    assert [site.name for site in sites] == [
        *("embed", "resid.0", "heads.1", "mlp_act.1", "resid.1"),
        *("heads.2", "attn_out.2", "router.2", "experts.2", "mlp_out.2", "resid.2", "final_norm"),
    ]
    assert {site.name: site.width for site in sites} == {**dict.fromkeys((s.name for s in sites), 8), **INNER}
    assert num_blocks_needed(resolve_sites(["embed"], num_layers=2, hidden_size=8), 2) == 0
    assert num_blocks_needed(resolve_sites(["attn_out.1"], num_layers=2, hidden_size=8), 2) == 1


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("attn_out.0", "the blocks 1 to 2"),
        ("mlp_out.3", "the blocks 1 to 2"),
        ("attn_out", r"Did you mean 'attn_out\.\*'"),
        ("embed.1", "Did you mean 'embed'"),
        ("router.1", r"no 'router.1': its blocks 2 have 'router'"),
        ("heads.3", "the blocks 1 to 2"),
        ("mlp_act.1:3", r"no 'mlp_act.2'"),
    ],
)
def test_sites_that_a_block_lacks_are_refused(asked, told):
    with pytest.raises(SiteError, match=told):
        resolve_sites([asked], num_layers=2, hidden_size=8, inner=INNER)
    with pytest.raises(SiteError, match="none of its blocks has 'router'"):
        resolve_sites(["router.*"], num_layers=2, hidden_size=8)


def test_light_modules_import_neither_torch_nor_transformers_nor_ray():
    light = ("config", "checkpoints", "sites", "families", "sink", "backend", "batches", "families.llama")
    code = f"import sys, {', '.join(f'lrh_ray.models.{name}' for name in light)}; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{heavy}'" in modules for heavy in ("torch", "transformers", "ray", "zarr", "tokenizers"))
