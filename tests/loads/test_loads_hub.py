"""Pushing: only whole stores, manifest last, resumable, and never a word about the token."""

import fnmatch
import logging
import shutil
import traceback
from pathlib import Path

import numpy as np
import pytest
import yaml

from lrh_ray.errors import ConfigError, HubRefused, ParityError, StoreConflict, StoreCorrupt, StoreIncomplete
from lrh_ray.loads.hub import push_store
from lrh_ray.loads.hub_card import make_card
from lrh_ray.store.reader import open_store
from lrh_ray.store.seal import seal
from lrh_ray.testing.stores import fill, make_store, write_block

REPO, TOKEN = "someone/rows", "hf_SecretSecretSecret"
PARITY = {"passed": True, "sites": [{"site": "resid.0", "p50": 0.001, "p99": 0.002}]}


class LocalHub:
    """The five calls of `huggingface_hub.HfApi` that a push makes, on a folder; it can lose the connection."""

    def __init__(self, folder):
        self.folder, self.calls, self.files_left = folder, [], None

    def create_repo(self, repo, *, repo_type, private, exist_ok, token):
        self.calls.append(("create_repo", repo, repo_type, private, exist_ok))
        self.folder.mkdir(exist_ok=exist_ok)

    def file_exists(self, repo, name, *, repo_type, token):
        return (self.folder / name).is_file()

    def hf_hub_download(self, repo, name, *, repo_type, token):
        return str(self.folder / name)

    def upload_folder(self, *, repo_id, repo_type, folder_path, ignore_patterns, commit_message, token):
        self.calls.append(("upload_folder", repo_id, repo_type))
        for path in sorted(Path(folder_path).rglob("*")):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and not any(fnmatch.fnmatch(name, pattern) for pattern in ignore_patterns):
                self._arrive(name, path.read_bytes(), token)

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, repo_type, commit_message, token):
        self.calls.append(("upload_file", path_in_repo))
        self._arrive(path_in_repo, path_or_fileobj, token)

    def _arrive(self, name, data, token):
        if self.files_left == 0:
            raise ConnectionError(f"lost https://hub/?token={token} at {name}")
        self.files_left = None if self.files_left is None else self.files_left - 1
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)


@pytest.fixture
def fake(tmp_path):
    made = make_store(tmp_path / "store", [20, 7, 13] * 10)
    fill(made)
    seal(made.root, made.plan, parity=PARITY)
    return made


def test_what_arrives_is_the_store_and_its_card(fake, tmp_path):
    (fake.root / "staging").mkdir(exist_ok=True)
    (fake.root / "staging" / "00000000.a.resid.0").write_bytes(b"half")
    (fake.root / "notes[1].txt").write_text("no part of the store")
    hub = LocalHub(tmp_path / "hub")
    facts = push_store(fake.root, REPO, token=TOKEN, licence="cc-by-4.0", api=hub)
    assert hub.calls[0] == ("create_repo", REPO, "dataset", True, True)
    assert hub.calls[-1] == ("upload_file", "manifest.json")
    sent = {path.relative_to(hub.folder).as_posix() for path in hub.folder.rglob("*") if path.is_file()}
    kept = {path.relative_to(fake.root).as_posix() for path in fake.root.rglob("*") if path.is_file()}
    assert sent == {name for name in kept if not name.startswith(("staging/", "notes"))} | {"README.md"}
    assert facts["root digest"] == open_store(hub.folder).root == open_store(fake.root).root


def test_the_lines_of_the_card_load_the_rows(fake, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub = LocalHub(tmp_path / "hub")
    push_store(fake.root, REPO, api=hub)
    monkeypatch.chdir(tmp_path / "hub" / "..")
    shutil.move(fake.root, tmp_path / "mine")

    def download(repo, *, repo_type, local_dir):
        assert (repo, repo_type) == (REPO, "dataset")
        return shutil.copytree(hub.folder, local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    card = (hub.folder / "README.md").read_text()
    names = {}
    lines = card.split("```python\n")[1].split("```")[0]
    assert len(lines.strip().splitlines()) == 3
    exec(compile(lines, "README.md", "exec"), names)
    assert np.array_equal(names["rows"], open_store(tmp_path / "mine").rows("resid.0"))


def test_the_card_tells_the_store_s_facts(fake):
    store = open_store(fake.root)
    card = make_card(store, REPO, "cc-by-4.0")
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "cc-by-4.0"
    for fact in ("fake", "bfloat16", "resid.0", "final_norm", store.root, store.plan.digest, "400", "passed"):
        assert fact in card, fact
    assert "license" not in yaml.safe_load(make_card(store, REPO).split("---")[1])


@pytest.mark.parametrize(
    ("parity", "words"),
    [({}, "not compared"), ({"passed": None, "kind": "none", "reason": "imported | rows"}, "none: i")],
)
def test_the_card_of_a_store_that_nobody_compared_says_so(tmp_path, parity, words):
    made = make_store(tmp_path / "store", [20] * 8)
    fill(made)
    seal(made.root, made.plan, parity=parity)
    (line,) = [line for line in make_card(open_store(made.root), REPO).splitlines() if line.startswith("| parity")]
    assert words in line
    assert line.replace("\\|", "").count("|") == 3


def test_a_lost_connection_is_resumed_by_the_same_call(fake, tmp_path):
    hub = LocalHub(tmp_path / "hub")
    hub.files_left = 9
    with pytest.raises(HubRefused, match="resumes"):
        push_store(fake.root, REPO, api=hub)
    assert not (hub.folder / "manifest.json").exists()
    hub.files_left = None
    push_store(fake.root, REPO, api=hub)
    assert np.array_equal(open_store(hub.folder).rows("resid.0"), open_store(fake.root).rows("resid.0"))


def test_the_token_is_told_to_nobody(fake, tmp_path, caplog, capsys):
    hub = LocalHub(tmp_path / "hub")
    hub.files_left = 0
    with caplog.at_level(logging.DEBUG), pytest.raises(HubRefused) as caught:
        push_store(fake.root, REPO, token=TOKEN, api=hub)
    assert "lost https" in str(caught.value)
    hub.files_left = None
    facts = push_store(fake.root, REPO, token=TOKEN, api=hub)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capsys.readouterr()) + str(facts)
    assert TOKEN not in told
    assert not any(TOKEN.encode() in path.read_bytes() for path in hub.folder.rglob("*") if path.is_file())


def test_a_repository_with_another_store_is_left_alone(fake, tmp_path):
    hub = LocalHub(tmp_path / "hub")
    other = make_store(tmp_path / "other", [11] * 20)
    fill(other)
    seal(other.root, other.plan, parity={})
    push_store(other.root, REPO, api=hub)
    before = {path: path.read_bytes() for path in hub.folder.rglob("*") if path.is_file()}
    with pytest.raises(StoreConflict, match="another store"):
        push_store(fake.root, REPO, api=hub)
    assert {path: path.read_bytes() for path in hub.folder.rglob("*") if path.is_file()} == before


def test_only_a_sealed_and_intact_store_is_pushed(fake, tmp_path):
    hub = LocalHub(tmp_path / "hub")
    unsealed = make_store(tmp_path / "unsealed", [20] * 8)
    write_block(unsealed, 0)
    failed = make_store(tmp_path / "failed", [20] * 8)
    fill(failed)
    seal(failed.root, failed.plan, parity={"passed": False})
    shard = next((fake.root / "data.zarr" / "acts" / "final_norm").rglob("c/0/0"))
    damaged = bytearray(shard.read_bytes())
    damaged[5] ^= 1
    shard.write_bytes(damaged)
    for root, kind in ((unsealed.root, StoreIncomplete), (failed.root, ParityError), (fake.root, StoreCorrupt)):
        with pytest.raises(kind):
            push_store(root, REPO, api=hub)
    with pytest.raises(ConfigError, match="owner/name"):
        push_store(fake.root, "no repository", api=hub)
    assert not hub.calls


def test_the_real_client_has_the_calls_a_push_makes():
    huggingface_hub = pytest.importorskip("huggingface_hub")
    import inspect

    for name in ("create_repo", "file_exists", "hf_hub_download", "upload_folder", "upload_file"):
        ours = set(inspect.signature(getattr(LocalHub, name)).parameters) - {"self", "repo", "name"}
        assert ours <= set(inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters), name
