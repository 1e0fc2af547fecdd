"""The verb `train` on a real cluster: steps shared by workers, and runs that die and go on as if nothing had been."""

import json
import time
from pathlib import Path

import psutil
import pytest

from lrh_ray.errors import ClusterError, ConfigError, NotEnoughData
from lrh_ray.runtime.config import TrainConfig
from lrh_ray.runtime.train import train
from lrh_ray.testing.learners import SlopeTask

STEPS = 12
PAIR = TrainConfig(workers=2, retries=1)


def weights(checkpoint: Path) -> list[float]:
    return json.loads((checkpoint / "state.json").read_text())["weights"]


def run(
    folder: Path, *, config: TrainConfig = PAIR, name: str = "slope", steps: int = STEPS, **task
) -> dict[int, Path]:
    return dict(
        train(SlopeTask(folder=folder, **task), config, steps=steps, save_at=(0, 4, 8), folder=folder, name=name)
    )


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed"))


def test_every_checkpoint_asked_for_stands(undisturbed):
    assert sorted(undisturbed) == [0, 4, 8, STEPS]
    assert weights(undisturbed[0]) == [0.0] * 8
    assert weights(undisturbed[STEPS]) != weights(undisturbed[8]) != weights(undisturbed[4])


def test_the_step_does_not_depend_on_the_number_of_workers(undisturbed, cluster, tmp_path):
    alone = run(tmp_path, config=TrainConfig(workers=1))
    assert weights(alone[STEPS]) == pytest.approx(weights(undisturbed[STEPS]), rel=1e-12)


def test_a_killed_worker_changes_no_bit(undisturbed, cluster, tmp_path):
    disturbed = run(tmp_path, mishap="dies once", at_step=6)
    assert (tmp_path / "died").exists()
    assert len(list(tmp_path.glob("opened-*"))) == 4
    assert weights(disturbed[STEPS]) == weights(undisturbed[STEPS])


def test_a_repeated_command_goes_on_from_the_last_checkpoint(undisturbed, cluster, tmp_path):
    with pytest.raises(ClusterError, match="repeat the same command"):
        run(tmp_path, mishap="dies always", at_step=6)
    again = run(tmp_path)
    assert weights(again[STEPS]) == weights(undisturbed[STEPS])
    assert weights(again[4]) == weights(undisturbed[4])


def test_a_finished_run_makes_no_step(undisturbed, cluster):
    folder = undisturbed[0].parent.parent
    opened = sorted(folder.glob("opened-*"))
    again = run(folder, mishap="refuses", at_step=STEPS - 1)
    assert weights(again[STEPS]) == weights(undisturbed[STEPS])
    assert sorted(folder.glob("opened-*")) == opened


def test_a_mistake_of_the_user_is_raised_as_it_is(cluster, tmp_path):
    with pytest.raises(NotEnoughData, match="give more rows"):
        run(tmp_path, mishap="refuses", config=TrainConfig(workers=2, retries=0))


def test_checkpoints_beyond_the_run_are_refused(cluster, tmp_path):
    with pytest.raises(ConfigError, match="save_at"):
        run(tmp_path, steps=6)


def test_gpus_that_no_node_has_are_refused(cluster, tmp_path):
    with pytest.raises(ClusterError, match=r"2 training workers of 1 CPUs and 1 GPUs need more.*when_short: wait"):
        run(tmp_path, config=TrainConfig(workers=2, gpus=1))


def test_news_of_the_run_arrive_in_order(cluster, tmp_path):
    told = []
    train(
        SlopeTask(folder=tmp_path),
        TrainConfig(workers=1),
        steps=30,
        save_at=(),
        folder=tmp_path,
        name="told",
        on_step=lambda step, metrics: told.append((step, metrics["loss"])),
    )
    assert told
    assert [step for step, _ in told] == sorted(step for step, _ in told)


def test_who_is_interrupted_leaves_at_once_and_the_workers_end(cluster, tmp_path):
    """Ctrl-C comes while the loop that passes news on waits; a caller that stays connected, a notebook say, too."""

    def interrupt(_step, _metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            SlopeTask(folder=tmp_path),
            TrainConfig(workers=1, retries=0),
            steps=10**7,
            save_at=(),
            folder=tmp_path,
            name="left",
            on_step=interrupt,
        )
    (opened,) = tmp_path.glob("opened-*")
    worker, patient = int(opened.name.split("-")[-1]), time.monotonic() + 60
    while psutil.pid_exists(worker) and time.monotonic() < patient:
        time.sleep(0.5)
    assert not psutil.pid_exists(worker)
