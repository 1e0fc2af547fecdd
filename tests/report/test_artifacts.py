"""A result on disk: exact round trips, put-if-absent, nothing half visible, typed refusals."""

import json
import math
import resource
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from report_fakes import auc_measure, fake_result

from lrh_ray.artifacts import find_results, load_result, result_digest, save_result
from lrh_ray.errors import ConfigError, ResultMissing, StoreCorrupt, StoreFull
from lrh_ray.records import Measure, Result, Table

TEXT = st.text(max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
FLOATS = st.floats()
SCALARS = st.none() | st.booleans() | st.integers() | FINITE | TEXT
ANY_SCALARS = SCALARS | FLOATS


def trees(leaves: st.SearchStrategy) -> st.SearchStrategy:
    inner = leaves | st.lists(leaves, max_size=3) | st.dictionaries(TEXT, leaves, max_size=3)
    return st.dictionaries(TEXT, inner, max_size=3)


def tuples(items: st.SearchStrategy, max_size: int = 3) -> st.SearchStrategy:
    return st.lists(items, max_size=max_size).map(tuple)


def named(**strategies: st.SearchStrategy) -> st.SearchStrategy:
    return st.fixed_dictionaries(strategies)


MEASURES = named(
    name=TEXT,
    value=FLOATS,
    unit=TEXT,
    keys=st.dictionaries(TEXT, TEXT | st.integers() | FLOATS, max_size=3),
    low=st.none() | FLOATS,
    high=st.none() | FLOATS,
    controls=st.dictionaries(TEXT, FLOATS, max_size=3),
    flags=tuples(TEXT),
)
TABLES = named(name=TEXT, description=TEXT, columns=tuples(TEXT), rows=tuples(tuples(ANY_SCALARS)))
NUMBERS = hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes()
DTYPES = NUMBERS.filter(lambda dtype: dtype.itemsize <= 8)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)).map(np.transpose)
RESULTS = named(
    kind=TEXT,
    title=TEXT,
    summary=tuples(TEXT),
    asked=trees(ANY_SCALARS),
    resolved=trees(SCALARS),
    inputs=st.dictionaries(TEXT, TEXT, max_size=2),
    measures=tuples(MEASURES),
    tables=tuples(TABLES),
    arrays=st.dictionaries(TEXT, ARRAYS, max_size=3),
    provenance=trees(ANY_SCALARS),
)


def built(parts: dict) -> Result:
    measures = tuple(Measure(**measure) for measure in parts["measures"])
    return Result(**{**parts, "measures": measures, "tables": tuple(Table(**table) for table in parts["tables"])})


def small_result(**changes: object) -> Result:
    """One measure, no tables: enough for what concerns files."""
    return fake_result(**{"measures": (auc_measure("number", "resid.5", 5, "lda"),), "tables": (), **changes})


def without_arrays(result: Result) -> str:
    """All fields but arrays, told apart to the last bit: repr knows -0.0 from 0.0, 1 from 1.0 and shows NaN."""
    return repr([getattr(result, field.name) for field in fields(Result) if field.name != "arrays"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=RESULTS)
def test_a_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, parts: dict) -> None:
    result = built(parts)
    folder = tmp_path_factory.mktemp("results")
    path = save_result(result, folder)
    loaded = load_result(path)
    assert without_arrays(loaded) == without_arrays(result)
    assert loaded.arrays.keys() == result.arrays.keys()
    for name, array in result.arrays.items():
        kept = loaded.arrays[name]
        assert kept.shape == array.shape
        assert kept.dtype == array.dtype.newbyteorder("=")
        assert kept.tobytes() == array.astype(kept.dtype).tobytes()
    assert find_results(folder) == (path,)
    assert path.name == result_digest(result) == result_digest(loaded)


def test_the_file_is_strict_json_and_names_what_json_cannot_say(tmp_path: Path) -> None:
    measure = Measure(name="x", value=math.nan, unit="", keys={"a/b~c": math.inf}, low=-math.inf)
    path = save_result(small_result(measures=(measure,)), tmp_path)
    tree = json.loads((path / "result.json").read_text("ascii"), parse_constant=pytest.fail)
    assert tree["not_finite"] == {
        "/measures/0/value": "nan",
        "/measures/0/keys/a~1b~0c": "inf",
        "/measures/0/low": "-inf",
    }
    assert tree["result"]["measures"][0]["value"] is None
    assert load_result(path / "result.json").measures[0].low == -math.inf


def test_the_digest_is_of_the_question_alone() -> None:
    result = small_result()
    assert result_digest(replace(result, measures=(), title="other", provenance={}, asked={})) == result_digest(result)
    for changed in ({"kind": "other"}, {"resolved": {}}, {"inputs": {"store": "other"}}):
        assert result_digest(replace(result, **changed)) != result_digest(result)


def test_the_first_answer_stays(tmp_path: Path) -> None:
    first = save_result(small_result(title="first"), tmp_path)
    files = {path: path.read_bytes() for path in first.iterdir()}
    assert save_result(small_result(title="second"), tmp_path) == first
    assert {path: path.read_bytes() for path in first.iterdir()} == files
    assert load_result(first).title == "first"


CRASHES = """
import os, signal, sys
from pathlib import Path
import lrh_ray.artifacts as artifacts
from report_fakes import fake_result

result, root = fake_result(measures=()), sys.argv[1]

def save_and_die(step):
    steps = iter(range(step))
    def hook(event, arguments):
        if event in ("open", "os.rename", "os.mkdir") and root in str(arguments[0]) and next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    artifacts.save_result(result, Path(root, str(step)))
    os._exit(0)

status = 1
while status:
    step = len(os.listdir(root))
    Path(root, str(step)).mkdir()
    child = os.fork()
    if child == 0:
        save_and_die(step)
    status = os.waitpid(child, 0)[1]
"""


def test_a_process_killed_between_any_two_steps_leaves_nothing_or_everything(tmp_path: Path) -> None:
    """SIGKILL before the n-th file operation in the folder, for every n until a run gets through."""
    subprocess.run([sys.executable, "-c", CRASHES, str(tmp_path)], check=True, cwd=Path(__file__).parent, timeout=60)
    whole = fake_result(measures=())
    outcomes = []
    for folder in sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name)):
        found = find_results(folder)
        outcomes.append(len(found))
        for place in found:
            assert without_arrays(load_result(place)) == without_arrays(whole)
        assert load_result(save_result(whole, folder)).title == whole.title  # the same command again succeeds
    assert outcomes == sorted(outcomes)  # once whole, always whole
    assert outcomes[0] == 0
    assert outcomes[-1] == 1
    assert len(outcomes) >= 6  # staging folder, two files, its sync, the rename, the sync of the parent


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StoreFull, match="free some space"):
            save_result(small_result(arrays={"big": np.zeros(10_000)}), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_result_names_its_neighbours(tmp_path: Path) -> None:
    path = save_result(small_result(), tmp_path)
    with pytest.raises(ResultMissing, match=path.name):
        load_result(tmp_path / "nothing")
    with pytest.raises(ResultMissing):
        load_result(tmp_path / "nothing" / "result.json")
    assert find_results(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("name", ["result.json", "arrays.safetensors"])
def test_any_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    path = save_result(small_result(), tmp_path) / name
    intact = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(intact), size=40, replace=False):
        changed = bytearray(intact)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        if intact[place : place + 1].isspace():
            continue  # layout, not content
        with pytest.raises((StoreCorrupt, ResultMissing), match=r"again|Install|give the folder"):
            load_result(path.parent)


def test_other_versions_and_other_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path = save_result(small_result(), tmp_path) / "result.json"
    text = path.read_text()
    path.write_text(text.replace('"version": 1', '"version": 2', 1))
    with pytest.raises(ResultMissing, match="version 2"):
        load_result(path)
    path.write_text("[]")
    with pytest.raises(ResultMissing, match="not a result"):
        load_result(path)
    path.write_text('{"format": "lrh_ray.result", "version": 1}')
    with pytest.raises(StoreCorrupt, match="lacks fields"):
        load_result(path)
    path.write_text(text)
    (path.parent / "arrays.safetensors").unlink()
    with pytest.raises(ResultMissing, match=r"arrays\.safetensors"):
        load_result(path)


def test_a_place_taken_by_something_else_is_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / result_digest(small_result())
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(StoreCorrupt, match="Move it away"):
        save_result(small_result(), tmp_path)
    assert (place / "notes.txt").read_text() == "mine"
    shutil.rmtree(place)
    save_result(small_result(), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"resolved": {"rate": math.nan}},
        {"arrays": {"z": np.zeros(2, np.complex64)}},
        {"arrays": {"__metadata__": np.zeros(2)}},
        {"arrays": {"names": np.array(["a"])}},
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ConfigError):
        save_result(small_result(**changes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_document_of_the_format_names_every_field(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    tree = json.loads((save_result(small_result(), tmp_path) / "result.json").read_text())
    names = [*(name for name in tree if name != "result"), *(f"result.{name}" for name in tree["result"])]
    names += [f"….{name}" for name in tree["result"]["measures"][0]]
    assert [name for name in names if f"`{name}`" not in text] == []
