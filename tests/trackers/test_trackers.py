"""Results in the files of trackers, read back by the trackers' own libraries; what is missing is named."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracked_results import FINALS, SERIES, STEPS, tracked_result

from lrh_ray.artifacts import result_digest, save_result
from lrh_ray.cli import main
from lrh_ray.errors import DependencyMissing, PathUnusable, UnknownName
from lrh_ray.trackers.log import allowed, log_of
from lrh_ray.trackers.tracking import TRACKERS, track

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the trackers' own dependencies
PACKAGES = {"tensorboard": ("tensorboardX", "torch.utils.tensorboard"), "wandb": ("wandb",), "trackio": ("trackio",)}
PACKAGES["mlflow"] = ("mlflow",)


def the_package(name: str):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install {name}")


def test_a_log_has_every_curve_and_every_number_with_its_interval_and_controls():
    log = log_of(tracked_result())
    assert {series.name: list(series.points) for series in log.series} == SERIES
    assert log.finals == FINALS
    assert log.settings == {"latents": "64", "kinds": "{kind: topk}", "nested.seed": "0"}
    assert log.name == f"sae-{result_digest(tracked_result())[:12]}"
    assert log.last_step == STEPS[-1]
    by_step = dict(log.by_step())
    assert list(by_step) == list(STEPS)
    assert sum(map(len, by_step.values())) == sum(map(len, SERIES.values()))


def test_the_name_of_a_run_is_that_of_its_question():
    assert log_of(tracked_result("Other title")).name == log_of(tracked_result()).name


@given(name=st.text(max_size=20))
def test_names_have_nothing_that_a_tracker_refuses(name):
    found = allowed(name)
    assert len(found) == len(name)
    assert all(letter.isalnum() or letter in "_.-/" for letter in found)
    assert allowed(found) == found


def test_a_tracker_nobody_knows_is_named_beside_the_known(tmp_path):
    with pytest.raises(UnknownName, match=r"tensorbord.*mlflow, tensorboard, trackio, wandb"):
        track(tracked_result(), "tensorbord", tmp_path)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_missing_library_is_named_with_what_installs_it(tracker, tmp_path, monkeypatch):
    for package in PACKAGES[tracker]:
        monkeypatch.setitem(sys.modules, package, None)  # whoever imports it fails
    with pytest.raises(DependencyMissing, match=f"pip install {PACKAGES[tracker][0]}"):
        track(tracked_result(), tracker, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_library_is_imported_before_it_is_asked_for():
    program = (
        "import sys, lrh_ray.studies.reporting; "
        "print(sorted({'tensorboardX', 'wandb', 'trackio', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def events(folder: Path):
    """(tag, step, value) of the scalars and the tags of all texts, from the records of an event file as they lie."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.out.tfevents.*")
    data, scalars, texts, at = file.read_bytes(), [], [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + length])
        at += length + 16
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "text":
                texts.append((value.tag, value.tensor.string_val[0].decode()))
            else:
                scalars.append((value.tag, event.step, value.simple_value))
    return scalars, texts


def test_tensorboard_gets_every_point(tmp_path):
    the_package("tensorboardX")
    facts = track(tracked_result(), "tensorboard", tmp_path)
    scalars, texts = events(tmp_path / str(facts["run"]))
    found: dict[str, list[tuple[int, float]]] = {}
    for tag, step, value in scalars:
        found.setdefault(tag, []).append((step, value))
    assert found == SERIES | {f"final/{name}": [(STEPS[-1], value)] for name, value in FINALS.items()}
    assert "topk leaves a quarter" in str(texts)
    assert "| latents | 64 |" in str(texts)
    assert facts["show"] == f"tensorboard --logdir {tmp_path}"


def test_torch_writes_the_same_where_it_is_the_writer(tmp_path, monkeypatch):
    the_package("tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    facts = track(tracked_result(), "tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / str(facts["run"]))).Reload()
    for name, points in SERIES.items():
        assert [(event.step, event.value) for event in read.Scalars(name)] == points


def test_wandb_gets_every_point_and_sends_nothing(tmp_path, monkeypatch):
    wandb = the_package("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    facts = track(tracked_result(), "wandb", tmp_path)
    assert str(facts["show"]).startswith("wandb sync ")
    (file,) = (tmp_path / str(facts["run"]) / "wandb").glob("offline-run-*/run-*.wandb")
    rows, summary = wandb_records(file)
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name in row.keys() & SERIES.keys():
            found.setdefault(name, []).append((row["_step"], row[name]))
    assert found == SERIES
    assert {name: summary[f"final/{name}"] for name in FINALS} == FINALS
    assert wandb.run is None


def log_records(data: bytes):
    """Records of LevelDB's log format: blocks of 32 KiB of chunks (checksum, length, kind); the first has a header."""
    at, parts = 7, []
    while at < len(data):
        rest = 32768 - at % 32768
        if rest < 7:
            at += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last chunk
            yield b"".join(parts)
            parts = []


def wandb_records(file: Path):
    """Rows of the history and the last summary of an offline run."""
    from wandb.proto import wandb_internal_pb2

    rows, summary = [], {}
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        if items:
            rows.append({**items, "_step": record.history.step.num})
        summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
    return rows, summary


def test_trackio_gets_every_point_and_sends_nothing(tmp_path, monkeypatch):
    the_package("trackio")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/?write_token=x")
    facts = track(tracked_result(), "trackio", tmp_path)
    program = (
        "import json, sys; from trackio.sqlite_storage import SQLiteStorage; "
        "print(json.dumps(SQLiteStorage.get_logs('lrh_ray', sys.argv[1])))"
    )
    own = {**os.environ, "TRACKIO_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program, str(facts["run"])]
    rows = json.loads(subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout)
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name in row.keys() & SERIES.keys():
            found.setdefault(name, []).append((row["step"], row[name]))
    assert found == SERIES
    assert {name: rows[-1][f"final/{name}"] for name in FINALS} == FINALS


def test_mlflow_gets_every_point(tmp_path):
    mlflow = the_package("mlflow")
    track(tracked_result(), "mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("lrh_ray").experiment_id])
    for name, points in SERIES.items():
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda metric: metric.step)
        assert [(metric.step, metric.value) for metric in history] == points
    assert {name: run.data.metrics[f"final/{name}"] for name in FINALS} == FINALS
    assert run.data.params["nested.seed"] == "0"
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_result_is_written_once_into_a_folder(tracker, tmp_path):
    the_package(PACKAGES[tracker][0])
    track(tracked_result(), tracker, tmp_path)
    with pytest.raises(PathUnusable, match="already"):
        track(tracked_result(), tracker, tmp_path)


def test_the_command_tells_what_it_wrote(tmp_path, capsys):
    the_package("tensorboardX")
    place = save_result(tracked_result(), tmp_path / "results")
    with pytest.raises(SystemExit) as stop:
        main(["track", str(place), "--to", "tensorboard", "--folder", str(tmp_path / "out"), "--json"])
    assert not stop.value.code
    ((told,),) = json.loads(capsys.readouterr().out).values()
    assert (told["curves"], told["points"], told["numbers"]) == (4, 11, len(FINALS))
    assert (tmp_path / "out" / told["run"]).is_dir()


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--to", "nothing"], "No tracker"), (["--to", "wandb"], "No result")]
)
def test_a_mistake_is_one_message(arguments, words, tmp_path, capsys):
    place = save_result(tracked_result(), tmp_path / "results") if words == "No tracker" else tmp_path / "nowhere"
    with pytest.raises(SystemExit) as stop:
        main(["track", str(place), *arguments, "--folder", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
