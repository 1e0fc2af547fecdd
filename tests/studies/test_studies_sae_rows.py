"""Statistics, thresholds, evaluation and training are of the same rows: those of text, without sinks of any site."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_stores import LENGTH, WIDTH, write_store
from studies_material import config_of

from lrh_ray.collective import Share
from lrh_ray.errors import StateConflict
from lrh_ray.store.loader import Loader
from lrh_ray.store.reader import open_store
from lrh_ray.studies.sae_maps import SiteUnit
from lrh_ray.studies.sae_passes import TRAINING
from lrh_ray.studies.sae_study import dealt_rows, store_maps, training_documents
from lrh_ray.studies.sae_training import FACTS, SaeTask, load_curves, training_loader
from lrh_ray.testing.stores import make_tokens

SINK_EVERY, DOCUMENTS = 37, 150
ENDS = {
    "a site": "sae.sites=[resid.0]",
    "a transcoder": "sae.maps=[{reads: resid.0, writes: resid.2}]",
    "a crosscoder": "sae.maps=[{reads: [resid.0, resid.2]}]",
    "all sites": "sae.sites=[]",
}


def with_sinks_at_one_site(layer, kinds, marks, rng):
    """Rows of which some are a hundred times as long as the others, at the second site and nowhere else."""
    del marks
    rows = rng.standard_normal((len(kinds), WIDTH))
    if layer == 1:
        rows[::SINK_EVERY] *= 100
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The first token of every document stands for no text, as a BOS does."""
    tokens = make_tokens([LENGTH] * DOCUMENTS)
    ends = tokens.char_end.copy()
    ends[tokens.starts[:-1]] = tokens.char_start[tokens.starts[:-1]]
    place = tmp_path_factory.mktemp("rows") / "store"
    return write_store(place, 3, with_sinks_at_one_site, tokens=replace(tokens, char_end=ends))


def task_of(material, root, *overrides):
    """A task as the study makes it, and the rows that its sums are of."""
    config = config_of(material, f"store.location={root}", "sae.groups=10", "sae.batch_rows=64", *overrides).sae
    store = open_store(root)
    rows = dealt_rows(config, store)
    sites = dict.fromkeys(site for one in store_maps(config, store) for site in one.sites)
    units = {site: SiteUnit(centre=np.zeros(WIDTH), scale=1.0) for site in sites}
    documents = training_documents(store, rows)
    return SaeTask(location=root, root=store.root, config=config, units=units, documents=documents), rows


def training_rows(rows):
    """Their global numbers, in stored order."""
    found = []
    for block in range(rows.store().plan.num_blocks):
        keys, _ = rows.kept(block)
        found.append(keys.index[rows.group_of(keys) == TRAINING])
    return np.concatenate(found)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("sinks", ["drop", "keep"])
def test_training_reads_the_rows_of_the_statistics_each_once(material, root, sinks, ends):
    task, rows = task_of(material, root, f"sae.sinks={sinks}", ENDS[ends])
    expected = training_rows(rows)
    loader = training_loader(task, Share(rank=0, world=1))
    assert loader.num_rows == len(expected)
    store, read = rows.store(), np.concatenate([batch.index for batch in loader])
    assert len(np.unique(read)) == len(read) == len(expected) // 64 * 64  # the last batch would be shorter
    assert np.isin(read, expected).all()
    blocks = range(store.plan.num_blocks)
    has_text = np.concatenate([store.keys(block).char_end > store.keys(block).char_start for block in blocks])
    sink = np.concatenate([store.sink_mask(block) for block in blocks])
    assert not has_text.all()
    assert not store.sink_mask(0, ["resid.0", "resid.2"]).any()
    assert sink[has_text].any()  # or neither could be missed


@pytest.mark.parametrize("sinks", ["drop", "keep"])
def test_workers_share_these_rows_out_and_others_go_on_from_their_place(material, root, sinks):
    task, _ = task_of(material, root, f"sae.sinks={sinks}", "sae.sites=[resid.0]")
    whole = [batch.index.tolist() for batch in training_loader(task, Share(rank=0, world=1))]
    pair = [training_loader(task, Share(rank=rank, world=2)) for rank in range(2)]
    parts = [iter(loader) for loader in pair]
    begun = [np.concatenate([next(part).index for part in parts]).tolist() for _ in range(7)]
    assert begun == whole[:7]
    place = json.loads(json.dumps(pair[0].state_dict()))
    alone = training_loader(task, Share(rank=0, world=1))
    alone.load_state_dict(place)
    assert [batch.index.tolist() for batch in alone] == whole[7:]


@pytest.mark.parametrize("sinks", ["drop", "keep"])
def test_a_place_among_other_rows_is_refused(material, root, sinks):
    """What a run has done that read rows without text, or sinks of other sites, is not gone on from."""
    task, rows = task_of(material, root, f"sae.sinks={sinks}", "sae.sites=[resid.0]")
    settings = {"batch_size": 64, "seed": task.config.seed, "documents": task.documents, "drop_last": True}
    other = Loader(rows.store(), "resid.0", sinks=sinks, **settings)
    with pytest.raises(StateConflict, match="filters"):
        training_loader(task, Share(rank=0, world=1)).load_state_dict(other.state_dict())


def test_the_loader_leaves_out_rows_without_text_and_sinks_of_sites_it_does_not_read(root):
    store = open_store(root)
    blocks = range(store.plan.num_blocks)
    keys = [store.keys(block) for block in blocks]
    index, position = (np.concatenate([getattr(part, name) for part in keys]) for name in ("index", "position"))
    no_sink = ~np.concatenate([store.sink_mask(block, ["resid.1"]) for block in blocks])
    everything = np.ones(len(index), bool)
    cases = [
        ({"without_text": "drop"}, position > 0),
        ({"sinks": "drop"}, everything),
        ({"sinks": "drop", "sink_sites": ["resid.1"]}, no_sink),
        ({"sinks": "drop", "sink_sites": ["resid.1", "resid.0"], "without_text": "drop"}, no_sink & (position > 0)),
        ({"sinks": "keep", "sink_sites": ["resid.1"]}, everything),
    ]
    digests = set()
    for filters, mask in cases:
        loader = Loader(store, "resid.0", batch_size=70, **filters)
        assert loader.num_rows == mask.sum(), filters
        assert sorted(np.concatenate([batch.index for batch in loader])) == index[mask].tolist(), filters
        digests.add(loader.state_dict()["filters"])
    assert len(digests) == len(cases)  # a place among some of these rows is none among others


def test_curves_count_the_dead_of_dense_kinds_by_rows(material, root, tmp_path):
    """Of latents that never fire none is dead before `sae.dead_after` rows, and all are from then on."""
    kinds = "sae.kinds=[{kind: jumprelu, first_threshold: 1000}]"
    settings = ("sae.steps=5", "sae.latents=32", "sae.dead_after=128", "sae.sites=[resid.0]")
    task, _ = task_of(material, root, *settings, kinds)
    learner = task.open(Share(rank=0, world=1))
    for step in range(5):
        learner.step(step)
    learner.save(tmp_path)
    assert load_curves(tmp_path)[0, :, FACTS.index("dead")].tolist() == [0, 0, 32, 32, 32]
