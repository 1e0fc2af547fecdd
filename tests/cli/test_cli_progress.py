"""What a log is told while a command works: rates of the work itself, not of what came before it."""

import pytest

from lrh_ray.cli.progress import PlainProgress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def told(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_rate_counts_neither_the_start_nor_what_stood_already(clock, capsys):
    progress = PlainProgress()
    progress.begin("training", 20_000, "steps")
    clock[0] = 100  # workers start
    progress.advance(11_001)  # the last checkpoint, and a step
    clock[0] = 120
    progress.advance(1_000)
    assert told(capsys) == [
        "training (0 of 20,000 steps stand)",
        "training: 11,001 of 20,000 steps",
        "training: 12,001 of 20,000 steps, 50/s, 160 s left",
    ]


def test_the_last_line_has_no_time_left_and_a_single_piece_of_work_no_rate(clock, capsys):
    progress = PlainProgress()
    progress.begin("sums of rows", 1, "passes")
    clock[0] = 3
    progress.advance(1)
    progress.begin("blocks", 3, "blocks", done=1)
    for moment in (20, 24):
        clock[0] = moment
        progress.advance(1)
    assert told(capsys) == [
        "sums of rows (0 of 1 passes stand)",
        "sums of rows: 1 of 1 passes",
        "blocks (1 of 3 blocks stand)",
        "blocks: 2 of 3 blocks",
        "blocks: 3 of 3 blocks, 0.2/s",
    ]
