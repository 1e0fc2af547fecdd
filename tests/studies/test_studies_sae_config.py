"""Settings of autoencoders are refused where they could not be trained or told apart, with the way out."""

import numpy as np
import pytest
import torch
from planted_stores import write_store

from lrh_ray.collective import Share
from lrh_ray.config import parse_config
from lrh_ray.errors import ConfigError
from lrh_ray.store.reader import open_store
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import ReluKind
from lrh_ray.studies.sae_kinds import kind_names, make_training
from lrh_ray.studies.sae_training import SaeTask, SiteUnit, load_training


def noise(_layer, kinds, _marks, rng):
    return rng.standard_normal((len(kinds), 8))


def parsed(text):
    return parse_config(text, SaeConfig, source="run.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kinds: [{kind: topk, k: 8}, {kind: relu}, {kind: topk, k: 8}]", "kinds are the same: name each once"),
        ("kinds: [{kind: jumprelu, target: 32}, {kind: jumprelu, target: 32.0}]", "kinds are the same"),
        ("sites: [resid.1, resid.1]", r"sites are the same: name each once \(resid.1\)"),
        ("maps: [{reads: a, writes: b}, {reads: [a], writes: [b]}]", r"maps are the same: name each once \(a-to-b\)"),
    ],
)
def test_what_could_not_be_told_apart_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f"kinds: [{{kind: {kind}, k: 0}}]", "k is 0: it must be above 0") for kind in ("topk", "batchtopk")),
        ("kinds: [{kind: matryoshka, groups: []}]", "groups must ascend"),
        *(
            (f"kinds: [{{kind: {kind}, weight: -1}}]", "weight is -1: it must be 0, for no penalty, or more")
            for kind in ("relu", "p_anneal", "structured", "gated", "jumprelu", "conca")
        ),
        ("kinds: [{kind: relu, weight: .nan}]", "weight is nan"),
        ("kinds: [{kind: p_anneal, last_p: -2}]", "last_p is -2: it must lie above 0, for example 0.2"),
        ("kinds: [{kind: structured, last_p: 0, rank: null}]", "last_p is 0"),
        ("kinds: [{kind: jumprelu, bandwidth: 0}]", "bandwidth is 0: it must be above 0, for example 0.03"),
        ("kinds: [{kind: jumprelu, first_threshold: -1}]", "first_threshold is -1"),
        ("kinds: [{kind: jumprelu, target: 0}]", "target is 0: it must be above 0, for example 32"),
        ("{kinds: [{kind: conca, norm: group}], latents: 22}", "latents is 22: .* norm layer takes any number"),
        (
            "{kinds: [{kind: conca, norm: group}], latents: 24, batch_rows: 96, workers: {workers: 3}}",
            "3 parts of the latents would cut the 4 groups .* set latent_parts to",
        ),
        ("warmup: -5", "warmup is -5: it must be 0, for none, or more"),
        ("dead_after: -1", "dead_after is -1: it must be 1 row or more"),
        ("rate: .inf", "rate is inf: it must be above 0"),
    ],
)
def test_numbers_that_could_not_be_trained_with_are_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parsed(text)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_what_is_allowed_can_be_built(norm):
    """The groups of the configuration are those of the formula."""
    config = parsed(f"{{kinds: [{{kind: conca, norm: {norm}}}], latents: 24}}")
    make_training(config.kinds[0], config, np.zeros(8, np.float32), seed=0)
    if norm == "group":
        with pytest.raises(ConfigError, match="22 latents cannot be cut"):
            make_training(config.kinds[0], SaeConfig(latents=22, kinds=(ReluKind(),)), np.zeros(8, np.float32), seed=0)


def test_kinds_and_sites_of_similar_names_have_files_of_their_own(tmp_path):
    """1e-16 and 1e+16, a.b and a-b: what a file name cannot have is no reason to read another's weights."""
    kinds = (ReluKind(weight=1e-16), ReluKind(weight=1e16))
    root = write_store(
        tmp_path / "store", 2, lambda _l, k, _m, r: r.standard_normal((len(k), 8)), num_documents=20, width=8
    )
    config = SaeConfig(sites=("resid.0", "resid.1"), kinds=kinds, latents=16, batch_rows=16)
    store = open_store(root)
    units = {site: SiteUnit(centre=torch.zeros(8).numpy(), scale=1.0) for site in config.sites}
    task = SaeTask(location=root, root=store.root, config=config, units=units, documents=tuple(store.document_ids))
    learner = task.open(Share(rank=0, world=1))
    learner.step(0)
    learner.save(tmp_path)
    learner.save_share(tmp_path)
    assert len(list(tmp_path.glob("*.0-of-1.safetensors"))) == 4
    first, second = (load_training(tmp_path, "resid.1", name, 16) for name in kind_names(kinds))
    assert not torch.equal(first["adam.encoder.exp_avg"], second["adam.encoder.exp_avg"])
