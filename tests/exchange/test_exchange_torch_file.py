"""Files of torch.save are read without running what they say."""

import zipfile

import numpy as np
import pytest
import torch

from lrh_ray.errors import CheckpointBroken, CheckpointMissing
from lrh_ray.exchange.torch_file import read_tensors, tensors_file


def saved(tmp_path, what):
    torch.save(what, tmp_path / "ae.pt")
    return tmp_path / "ae.pt"


def test_every_layout_and_type_comes_back(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    given = {
        "plain": base,
        "transposed": base.T,
        "part": base[1:3, 2:],
        "every_other": base[:, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "k": torch.tensor(3, dtype=torch.int32),
        "sizes": torch.tensor([1, 2, 1 << 40]),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 1),
    }
    found = read_tensors(saved(tmp_path, given))
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        wanted = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        assert np.array_equal(found[name], wanted.numpy())
        assert found[name].dtype == wanted.numpy().dtype


def test_a_state_of_a_module_comes_back(tmp_path):
    module = torch.nn.Linear(3, 2)
    found = read_tensors(saved(tmp_path, module.state_dict()))
    assert np.array_equal(found["weight"], module.weight.detach().numpy())


def test_what_is_written_is_what_torch_reads(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "k": np.array(3, np.int32)}
    (tmp_path / "ae.pt").write_bytes(tensors_file(tensors))
    theirs = torch.load(tmp_path / "ae.pt", weights_only=True)
    for found in (read_tensors(tmp_path / "ae.pt"), {name: tensor.numpy() for name, tensor in theirs.items()}):
        assert np.array_equal(found["a"], tensors["a"])
        assert (found["k"].dtype, found["k"].shape) == (np.int32, ())


class Evil:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"a": Evil()}, "print"),
        ([torch.zeros(2)], "EMPTY_LIST"),
        ({"a": torch.zeros(2), "step": 3}, "more than tensors: a, step"),
        ({"ae": {"a": torch.zeros(2)}, "optimizer": {}}, "backup"),
        (torch.zeros(2), "more than tensors: ndarray"),
        (torch.nn.Linear(2, 2), "instruction NEWOBJ"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "known: torch FloatStorage"),
    ],
    ids=["evil", "list", "numbers", "backup", "tensor", "module", "complex"],
)
def test_anything_else_is_one_error_and_nothing_runs(tmp_path, capsys, what, told):
    with pytest.raises(CheckpointBroken, match=told):
        read_tensors(saved(tmp_path, what))
    assert capsys.readouterr().out == ""


def test_a_file_of_another_kind_is_one_error(tmp_path):
    with pytest.raises(CheckpointMissing, match=r"ae\.pt"):
        read_tensors(tmp_path / "ae.pt")
    for content in (b"", b"\x80\x02}.", b"PK\x03\x04 not a zip"):
        (tmp_path / "ae.pt").write_bytes(content)
        with pytest.raises(CheckpointBroken, match="not a file of tensors"):
            read_tensors(tmp_path / "ae.pt")


def changed(place, name, change):
    """The same zip with other bytes under one name."""
    with zipfile.ZipFile(place) as archive:
        files = {about.filename: archive.read(about) for about in archive.infolist()}
    with zipfile.ZipFile(place, "w") as archive:
        for own, data in files.items():
            archive.writestr(own, change(data) if own.endswith(name) else data)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("data/0", lambda data: data[:-4], "23 numbers in data/0 instead of 24"),
        ("byteorder", lambda data: b"big", "another byte order"),
        ("data.pkl", lambda data: data[:-1], "exhausted|no end"),
        ("data.pkl", lambda data: data.replace(b"K\x04K\x06\x86", b"K\x04K\x09\x86"), "beyond the end"),
        ("data.pkl", lambda data: data.replace(b"FloatStorage", b"EvilsStorage"), "EvilsStorage"),
    ],
    ids=["short", "order", "cut", "beyond", "unknown"],
)
def test_damage_is_found(tmp_path, name, change, told):
    place = saved(tmp_path, {"a": torch.arange(24, dtype=torch.float32).reshape(4, 6)})
    changed(place, name, change)
    with pytest.raises(CheckpointBroken, match=told):
        read_tensors(place)


def test_a_tensor_cannot_repeat_numbers_without_end(tmp_path):
    with pytest.raises(CheckpointBroken, match="beyond the end"):
        read_tensors(saved(tmp_path, {"a": torch.zeros(1).expand(10**12)}))
