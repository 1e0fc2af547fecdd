"""Intrinsic probing of stores whose dimensions are known: what is planted is found there, and nothing in noise."""

from dataclasses import replace

import numpy as np
import pytest
from planted_stores import WIDTH, write_store
from studies_material import config_of

from lrh_ray.artifacts import load_result
from lrh_ray.errors import ConfigError, NotEnoughData, SiteError, StoreIncomplete, UnknownName
from lrh_ray.studies import intrinsic_study
from lrh_ray.studies.intrinsic_study import intrinsic
from lrh_ray.studies.reporting import write_report

pytestmark = pytest.mark.usefixtures("cluster")
PLANTED = {"kind": [2, 9, 17], "mark": [4, 5, 20]}
STEP = 1.2
"""How far a mark moves each of its dimensions, in standard deviations."""
QUICK = ("intrinsic.draws=100", "intrinsic.null_draws=80", "intrinsic.steps=80", "intrinsic.sizes=[1, 3, 8]")


def planted(layer, kinds, marks, rng):
    """Noise at the first site; both concepts, each in three dimensions, at the second."""
    rows = rng.standard_normal((len(kinds), WIDTH))
    if layer:
        rows[:, PLANTED["kind"]] += 1.5 * np.eye(3)[kinds]
        rows[:, PLANTED["mark"]] += STEP * marks[:, None]
    return rows * np.geomspace(0.1, 10, WIDTH) + 1.0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("planted") / "store", 2, planted)


def asking(material, root, *overrides):
    return config_of(material, "name=dimensions", f"runs={root.parent}", f"store.location={root}", *QUICK, *overrides)


@pytest.fixture(scope="module")
def config(material, root):
    return asking(material, root)


@pytest.fixture(scope="module")
def result(config):
    return load_result(intrinsic(config))


def measures(result, name, **keys):
    return [m for m in result.measures if m.name == name and keys.items() <= m.keys.items()]


@pytest.mark.parametrize("probe", ["gaussian", "poisson"])
@pytest.mark.parametrize("concept", PLANTED)
def test_a_planted_concept_is_found_in_its_dimensions(result, concept, probe):
    order = result.arrays[f"resid.1/{concept}/{probe}/dimensions"]
    assert sorted(order[:3].tolist()) == PLANTED[concept]
    one, three, eight = measures(result, "share", site="resid.1", concept=concept, probe=probe)
    assert one.value < three.value
    assert eight.value < three.value + 0.02  # the others are noise
    assert three.low <= three.value <= three.high <= 1
    assert three.low > three.controls["null_high"]
    assert three.controls["q_value"] <= 0.05
    assert three.value > 0.8 * three.controls["ceiling"] > 0.1


def test_subsets_of_one_size_at_a_time_find_it_too(material, root):
    chosen = ("intrinsic.probes=[conditional]", "intrinsic.sites=[resid.1]", "intrinsic.concepts=[mark]")
    found = load_result(intrinsic(asking(material, root, *chosen, "intrinsic.sizes=[3]")))
    assert sorted(found.arrays["resid.1/mark/conditional/dimensions"].tolist()) == PLANTED["mark"]
    (share,) = measures(found, "share")
    assert share.controls["q_value"] <= 0.05


def test_noise_and_shuffled_labels_hold_nothing(result):
    shares = measures(result, "share")
    noise = [m for m in shares if m.keys["site"] == "resid.0"]
    assert all(m.controls["q_value"] > 0.05 for m in noise)
    assert max(m.value for m in noise) < 0.01
    assert all(m.controls["p_value"] == 1 for m in shares if m.value <= 0)  # whatever says still less
    assert max(m.controls["shuffled"] for m in shares) < 0.02
    assert any("0 discoveries among 24" in line for line in result.summary)
    found = [m for m in shares if m.controls["q_value"] <= 0.05]
    assert any(f"{len(found)} of {len(shares)} subsets" in line for line in result.summary)


def test_bits_and_shares_are_one_number_in_two_units(result):
    for share in measures(result, "share"):
        (bits,) = measures(result, "mutual_information", **share.keys)
        assert bits.value == pytest.approx(share.value * bits.controls["entropy"])
    (kind,) = [row for row in table(result, "rows").rows if row[0] == "kind"]
    assert kind[1] == pytest.approx(np.log2(3), abs=0.05)


def table(result, name):
    (found,) = [table for table in result.tables if table.name == name]
    return found


def test_half_of_what_all_dimensions_say_is_in_few_of_them(result):
    halves = measures(result, "dimensions_for_half", site="resid.1")
    assert {m.value for m in halves} == {3.0}
    assert not measures(result, "dimensions_for_half", site="resid.0")
    assert any("mark at resid.1: all 24 dimensions hold" in line for line in result.summary)
    assert any("nothing was found" in line for line in result.summary) is False  # each concept has a site that says it


def test_rankings_of_two_probes_share_what_is_planted(result):
    rows = [row for row in table(result, "overlap").rows if "resid.1, gaussian" in row and "resid.1, poisson" in row]
    assert len(rows) == 2
    assert all(row[4] >= 3 and row[5] == pytest.approx(64 / 24) for row in rows)
    assert any("resid.0, gaussian" in row and "resid.1, gaussian" in row for row in table(result, "overlap").rows)


def test_the_same_question_returns_the_standing_result(config, result, monkeypatch):
    monkeypatch.setattr(intrinsic_study, "sample", None)
    assert load_result(intrinsic(config)).measures == result.measures


def test_neither_order_nor_number_of_workers_matters(material, root, tmp_path, monkeypatch):
    asked = asking(material, root, "intrinsic.probes=[gaussian]")
    first = load_result(intrinsic(asked))
    monkeypatch.setattr(intrinsic_study, "sample", lambda items, of: [of(item) for item in reversed(items)][::-1])
    again = load_result(intrinsic(replace(asked, runs=str(tmp_path))))
    assert len(again.measures) == len(first.measures)
    for one, other in zip(again.measures, first.measures, strict=True):
        assert (one.name, one.keys, one.flags) == (other.name, other.keys, other.flags)
        # this process may have more threads than a worker, and sums then another order
        assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-12)
        assert one.controls == pytest.approx(other.controls, rel=1e-9, abs=1e-12)


def test_intervals_cover_what_is_true(material, tmp_path):
    """Twelve sites with independent noise, whose one telling dimension says a number of bits that is known."""

    def one_dimension(layer, kinds, marks, rng):
        rows = rng.standard_normal((len(kinds), WIDTH))
        rows[:, 7] += 1.5 * marks
        return rows

    root = write_store(tmp_path / "store", 12, one_dimension, num_documents=200)
    chosen = ("intrinsic.probes=[gaussian]", "intrinsic.sizes=[1]", "intrinsic.concepts=[mark]")
    found = measures(load_result(intrinsic(asking(material, root, *chosen))), "mutual_information")
    x = np.linspace(-8, 10, 20_001)
    densities = np.stack([0.7 * np.exp(-(x**2) / 2), 0.3 * np.exp(-((x - 1.5) ** 2) / 2)]) / np.sqrt(2 * np.pi)
    posterior = densities / densities.sum(axis=0)
    entropy = -0.7 * np.log2(0.7) - 0.3 * np.log2(0.3)
    truth = entropy + (densities * np.log2(posterior)).sum() * (x[1] - x[0])
    assert len(found) == 12
    assert sum(m.low < truth < m.high for m in found) >= 10
    assert np.mean([m.value for m in found]) == pytest.approx(truth, abs=0.02)


def test_rows_are_those_of_whole_documents_up_to_the_number_asked_for(material, root):
    few = "intrinsic.max_rows=300", "intrinsic.ranking_rows=300"
    asked = asking(material, root, "intrinsic.probes=[gaussian]", *few)
    told = []

    class Recorder:
        def begin(self, what, total=0, unit="", done=0):
            told.append(total)

        def advance(self, amount):
            told.append(amount)

        def say(self, text): ...

    rows = table(load_result(intrinsic(asked, progress=Recorder())), "rows")
    assert told[0] == sum(told[1:]) == 4
    for row in rows.rows:
        assert row[3:] == (300, 15, 300, 15, 300, 15)


def test_a_page_shows_shares_by_number_of_dimensions(config, result, tmp_path):
    write_report([intrinsic(config)], tmp_path / "page.html", title="Dimensions")
    page = (tmp_path / "page.html").read_text()
    assert "by number of dimensions" in page
    assert "kind at resid.1" in page
    assert ", 3 dimensions" in page or ", 8 dimensions" in page


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ("intrinsic.concepts=[colour]", UnknownName, "kind, mark"),
        ("intrinsic.sites=[resid.9]", SiteError, "resid.0"),
        ("intrinsic.concepts=[kind] intrinsic.max_rows=100", NotEnoughData, "intrinsic.max_rows"),
        ("intrinsic.sizes=[50]", ConfigError, "intrinsic.sizes"),
        ("intrinsic.sizes=[5,2]", ConfigError, "ascend"),
        ("intrinsic.probes=[]", ConfigError, "at least one"),
        ("intrinsic.null_draws=10", ConfigError, "20"),
    ],
)
def test_mistakes_are_named(material, root, setting, error, words):
    with pytest.raises(error, match=words):
        intrinsic(asking(material, root, *setting.split(" ")))


def test_stores_that_cannot_be_probed_are_named(material, tmp_path):
    same = write_store(tmp_path / "same", 1, planted, kinds=("a",))
    with pytest.raises(NotEnoughData, match="No concept can be probed"):
        intrinsic(asking(material, same, "intrinsic.concepts=[kind]"))
    few = write_store(tmp_path / "few", 1, planted, num_documents=9)
    with pytest.raises(NotEnoughData, match="4 needed in each"):
        intrinsic(asking(material, few))
    open_one = write_store(tmp_path / "open", 1, planted, sealed=False)
    with pytest.raises(StoreIncomplete):
        intrinsic(asking(material, open_one))
