"""What real libraries wrote is read as they read it; what we write is what they were shown to read as we do."""

import json

import numpy as np
import pytest
from exchange_material import (
    FACTS,
    GOLDEN,
    KINDS,
    LIBRARIES,
    ROWS,
    TRANSCODERS,
    close,
    fate,
    kind_of,
    ours,
    read_rows,
)
from safetensors.numpy import load_file

from lrh_ray.exchange.folders import codec, import_folder, recognise
from lrh_ray.exchange.matrix import FORMATS, IMPORTS
from lrh_ray.exchange.torch_file import read_tensors

MADE = [(library, name) for library in LIBRARIES for name in FACTS[library]["import"]]
NAMES = (*KINDS, *TRANSCODERS)
WRITTEN = [(form, name) for form in FORMATS for name in NAMES if fate(form, name).verdict != "refused"]
EXPECTED = {
    "standard": "relu",
    "standard_without_offset": "relu",
    "batchtopk": "threshold",
    "matryoshka": "threshold",
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "threshold",
    "MatryoshkaBatchTopKSAE": "threshold",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "npz": "jumprelu",
    "safetensors": "jumprelu",
}


@pytest.mark.parametrize(("library", "name"), MADE)
def test_a_folder_of_a_library_is_read_as_the_library_reads_it(library, name):
    told = load_file(GOLDEN / "import" / library / "outputs.safetensors")
    exchanged = import_folder(GOLDEN / "import" / library / name)
    assert exchanged.kind == EXPECTED.get(name, name.split("_")[0])
    codes, back = read_rows(exchanged)
    theirs = told[f"{name}/codes"]
    close(codes, theirs if exchanged.code_scale is None else theirs * exchanged.code_scale)
    close(back, told[f"{name}/reconstructions"])
    assert 0.05 < (theirs != 0).mean() < 0.8  # neither everything nor nothing fires


def test_every_architecture_that_is_read_was_made_by_its_library():
    made = {recognise(GOLDEN / "import" / library / name) for library, name in MADE}
    assert made == set(FORMATS)
    of_dictionary_learning = {name for library, name in MADE if library == "dictionary-learning"}
    readable = {name for name, fate in IMPORTS["dictionary_learning"].items() if fate.verdict != "refused"}
    assert of_dictionary_learning == readable


def test_place_and_model_come_along():
    found = import_folder(GOLDEN / "import" / "sae-lens" / "batchtopk")
    assert (found.site, found.model, found.trained_as) == ("resid.13", "tiny", "batchtopk")
    assert import_folder(GOLDEN / "import" / "llamascopium" / "relu").site == "resid.13"
    assert import_folder(GOLDEN / "import" / "gemma-scope" / "safetensors").site == "resid.13"
    assert import_folder(GOLDEN / "import" / "dictionary-learning" / "BatchTopKSAE").k == 3


@pytest.mark.parametrize(("form", "name"), WRITTEN)
def test_we_write_what_the_library_was_shown_to_read_as_we_do(form, name, tmp_path):
    codec(form).write(ours(name), tmp_path / "new")
    shown = GOLDEN / "export" / form
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in (shown / name).iterdir()}
    for path in (shown / name).iterdir():
        same_file(tmp_path / "new" / path.name, path, exact=fate(form, name).verdict == "exact")
    told = load_file(shown / "outputs.safetensors")
    codes, back = read_rows(ours(name))
    close(codes, told[f"{name}/codes"])
    close(back, told[f"{name}/reconstructions"])


def same_file(found, wanted, *, exact):
    if found.suffix == ".json":
        assert json.loads(found.read_text()) == json.loads(wanted.read_text())
        return
    readers = {".safetensors": load_file, ".pt": read_tensors, ".npz": lambda path: dict(np.load(path))}
    mine, theirs = readers[found.suffix](found), readers[found.suffix](wanted)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype
        if exact:
            assert np.array_equal(tensor, theirs[name])
        else:
            assert tensor == pytest.approx(theirs[name], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("form", "name"), WRITTEN)
def test_a_round_trip_gives_the_same_codes_and_rows(form, name, tmp_path):
    place, kind = tmp_path / "resid.13", kind_of(name)
    codec(form).write(ours(name), place)
    again = import_folder(place)
    assert recognise(place) == form
    assert (again.kind, again.transcodes) == (kind, name in TRANSCODERS)
    for found, wanted in zip(read_rows(again), read_rows(ours(name)), strict=True):
        close(found, wanted)
    if fate(form, name).verdict == "exact":
        mine = ours(name)
        assert all(np.array_equal(again.tensors[key], tensor) for key, tensor in mine.tensors.items())
        assert (again.k if kind == "topk" else again.threshold) == (mine.k if kind == "topk" else mine.threshold)


def test_libraries_differ_from_us_by_rounding_alone():
    for library in LIBRARIES:
        tables = [FACTS[library]["import"], *FACTS[library]["export"].values()]
        assert all(0 <= difference <= FACTS["bar"] for table in tables for difference in table.values())
        assert FACTS[library]["versions"]["torch"]
    assert ROWS.shape == (16, 8)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 1_000_000
