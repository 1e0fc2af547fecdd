"""Stores made to harm: whatever a stranger's store declares, opening and checking it is a typed error or works.

Files are edited and stamped again, as an attacker would; nothing here relies on a checksum to notice.
"""

import contextlib
import io
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from hostile_stores import refuse, use
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrh_ray.errors import LrhError, PathUnusable, StoreConflict, StoreCorrupt, StoreMissing
from lrh_ray.store.commits import PACK
from lrh_ray.store.garbage import collect_garbage
from lrh_ray.store.objects import LocalObjects
from lrh_ray.store.reader import open_store
from lrh_ray.store.repair import repair
from lrh_ray.store.stamps import stamped
from lrh_ray.store.status import store_status
from lrh_ray.store.verify import verify


def edit(path: Path, change) -> None:
    """Change a JSON record and stamp it again."""
    record = json.loads(path.read_bytes())
    stamp = record.pop("stamp", None)
    change(record)
    path.write_bytes(stamped(record) if stamp is not None else json.dumps(record).encode())


NAMES = ["../escape", "/etc/passwd", "a/../../b", "..", ".", "", "a/b", "x" * 5000, "a\0b", "resid.0\n", "~root"]


@pytest.mark.parametrize("name", NAMES)
def test_a_site_name_that_is_no_name_is_refused(root, name):
    edit(root / "plan/plan.json", lambda record: record["sites"][0].update(name=name))
    refuse(root, StoreCorrupt, match="site names|no plan")


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/./b", "a/../../etc/passwd", "", "a\nb", "a\0b", "é"])
def test_a_key_that_leads_out_of_the_store_is_refused(root, key):
    objects = LocalObjects(root)
    for use_key in (objects.get, objects.local_path, lambda key: objects.put(key, b"")):
        with pytest.raises(PathUnusable):
            use_key(key)


def test_keys_in_records_cannot_reach_files_outside(root, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    edit(root / "plan/sealed.json", lambda record: record["files"].update({"../secret": {"bytes": 6, "digest": "0"}}))
    verdict = verify(root, 2)
    assert [finding.kind for finding in verdict.findings] == ["unreadable"]
    repair(root, verdict)
    assert secret.read_text() == "secret"


@pytest.mark.parametrize(
    "key",
    [
        "data.zarr/acts/resid.0/c/0/0",
        "data.zarr/acts/resid.0/zarr.json",
        "data.zarr/token_id/c/0",
        "plan/documents.parquet",
        "plan/table.npy",
        "labels/corpus.parquet",
        "dataset.json",
        PACK,
    ],
)
@pytest.mark.parametrize("what", ["link", "pipe", "socket", "folder link"])
def test_a_link_or_a_pipe_in_place_of_an_object_is_refused_at_once(root, tmp_path, key, what):
    """The link's target holds the right bytes, so only its being a link is wrong. A pipe would wait for ever."""
    path = root / key
    outside = tmp_path / "outside"
    if what == "link":
        path.rename(outside)
        path.symlink_to(outside)
    elif what == "folder link":
        if path.parent == root:
            pytest.skip("the store's own folder may be a link")
        path.parent.rename(outside)
        path.parent.symlink_to(outside)
    elif what == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as server:
            short = os.path.relpath(path)
            server.bind(short if len(short) < 100 else str(_short(tmp_path, path)))
    refuse(root, PathUnusable, StoreCorrupt)
    before = outside.read_bytes() if outside.is_file() else sorted(outside.iterdir()) if outside.exists() else None
    repair(root)
    after = outside.read_bytes() if outside.is_file() else sorted(outside.iterdir()) if outside.exists() else None
    assert before == after


def _short(tmp_path: Path, path: Path) -> Path:
    """A path of a socket may have 107 bytes: reach its folder through a short link."""
    link = Path(f"/tmp/lrh-{os.getpid()}-{abs(hash(path)) % 10**8}")
    link.unlink(missing_ok=True)
    link.symlink_to(path.parent)
    return link / path.name


def test_deleting_does_not_follow_links(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "00000000.a1.resid.0").write_text("not yours")
    shutil.rmtree(root / "staging", ignore_errors=True)
    (root / "staging").symlink_to(outside)
    with pytest.raises(PathUnusable):
        collect_garbage(root, delete=True)
    with pytest.raises(PathUnusable):
        LocalObjects(root).delete("staging/00000000.a1.resid.0")
    assert (outside / "00000000.a1.resid.0").read_text() == "not yours"


HUGE = [
    ("rows_per_block", 1 << 40),
    ("rows_per_block", 1 << 62),
    ("chunk_rows", 1 << 31),
    ("chunk_rows", 0),
    ("chunk_rows", -16),
    ("num_blocks", 1 << 40),
    ("num_blocks", (1 << 24) - 1),
    ("num_blocks", -1),
    ("compression", "zip-bomb"),
    ("dtype", "float8"),
]


@pytest.mark.parametrize(("field", "value"), HUGE)
def test_declarations_that_no_store_holds_are_refused(root, field, value):
    edit(root / "plan/plan.json", lambda record: record.update({field: value}))
    refuse(root, StoreCorrupt)


def test_a_width_beyond_all_models_is_refused(root):
    edit(root / "plan/plan.json", lambda record: record["sites"][0].update(width=1 << 40))
    refuse(root, StoreCorrupt, match="widths")


def _configuration(metadata):
    return metadata["codecs"][0]["configuration"]


METADATA = {
    "chunk": lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1 << 40, 24]),
    "shape": lambda m: m.update(shape=[1 << 50, 24]),
    "inner chunk": lambda m: _configuration(m).update(chunk_shape=[1 << 40, 24]),
    "foreign codec": lambda m: _configuration(m)["codecs"].insert(0, {"name": "evil", "configuration": {}}),
    "foreign array codec": lambda m: m.update(codecs=[{"name": "pickle"}]),
    "foreign index codec": lambda m: _configuration(m).update(index_codecs=[{"name": "zstd"}]),
    "index at the start": lambda m: _configuration(m).update(index_location="start"),
    "another type": lambda m: m.update(data_type="float64"),
    "no codecs": lambda m: m.pop("codecs"),
    "codecs are a number": lambda m: m.update(codecs=3),
    "not an array": lambda m: m.clear(),
}


@pytest.mark.parametrize("what", METADATA)
@pytest.mark.parametrize("where", ["own", "consolidated"])
def test_metadata_that_contradicts_the_plan_is_refused(root, what, where):
    if where == "own":
        edit(root / "data.zarr/acts/resid.0/zarr.json", METADATA[what])
    else:
        edit(
            root / "data.zarr/zarr.json",
            lambda m: METADATA[what](m["consolidated_metadata"]["metadata"]["acts/resid.0"]),
        )
    refuse(root, StoreCorrupt)


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"a":' * 100_000, b"1" * 100_000, b"\xff\xfe", b"", b"null", b"NaN"]
)
@pytest.mark.parametrize("key", ["dataset.json", "plan/plan.json", "plan/sealed.json", "manifest.json", PACK])
def test_json_that_is_none_is_refused(root, key, data):
    (root / key).write_bytes(data)
    refuse(root)


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"a":' * 100_000, b"null", b"[]"])
@pytest.mark.parametrize("key", ["data.zarr/zarr.json", "data.zarr/acts/resid.0/zarr.json"])
def test_metadata_that_is_none_is_refused(root, key, data):
    (root / key).write_bytes(data)
    refuse(root, StoreCorrupt)


@pytest.mark.parametrize("descr", ["|O", "<i4", "<f8", [["a", "<i8"]]])
def test_a_table_of_another_type_is_refused(root, descr):
    header = io.BytesIO()
    kind = descr if isinstance(descr, str) else [tuple(one) for one in descr]
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": (3, 6)})
    (root / "plan/table.npy").write_bytes(header.getvalue() + bytes(3 * 6 * 8))
    refuse(root, StoreCorrupt)


def test_a_store_of_another_format_is_refused_by_name(root):
    edit(root / "dataset.json", lambda record: record.update(version=99))
    for act in (open_store, verify, repair, store_status):
        with pytest.raises(StoreConflict, match="version 99"):
            act(root)


def test_nothing_is_no_store(tmp_path):
    for act in (open_store, verify, repair, store_status, lambda root: collect_garbage(root, delete=True)):
        with pytest.raises(StoreMissing):
            act(tmp_path / "nowhere")


def paths_in(value, here=()):
    """Every place in a JSON value."""
    yield here
    if isinstance(value, dict):
        for key in value:
            yield from paths_in(value[key], (*here, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths_in(item, (*here, index))


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["../..", "bfloat16", "resid.0", "committed", [], {}, [[]], [1, 2], {"name": "x"}]),
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
)
RECORDS = ("plan/plan.json", "dataset.json", "plan/sealed.json", "manifest.json", PACK)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), key=st.sampled_from(RECORDS))
def test_any_change_of_any_record_is_a_typed_error_or_harmless(root, data, key):
    path = root / key
    before = path.read_bytes()
    lines = before.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    record = json.loads(lines[number])
    record.pop("stamp")
    place = data.draw(st.sampled_from([one for one in paths_in(record) if one]))
    target = record
    for step in place[:-1]:
        target = target[step]
    if data.draw(st.booleans()):
        target[place[-1]] = data.draw(STRANGE)
    else:
        del target[place[-1]]
    lines[number] = stamped(record)
    path.write_bytes(b"\n".join(lines) + (b"\n" if before.endswith(b"\n") else b""))
    try:
        for act in (use, store_status, lambda root: verify(root, 2), lambda root: collect_garbage(root, delete=False)):
            with contextlib.suppress(LrhError):
                act(root)
    finally:
        path.write_bytes(before)
