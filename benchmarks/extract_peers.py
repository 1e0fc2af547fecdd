"""Other tools beside ours, each in an environment of its own: their packages want other versions of the same things.

The first call makes the environments under .venv-peers, which takes minutes; a peer that cannot be installed is left
out and named. `extract_inside_peer.py` runs in each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from store_pairs import Record, say

PINS = {"nnsight": "nnsight==0.8.1", "transformer-lens": "transformer-lens==4.3.0", "sae-lens": "sae-lens==6.54.12"}
ENVIRONMENTS = Path(".venv-peers")
ONE_SITE = ("sae-lens",)
INSTALL_SECONDS, RUN_SECONDS = 900, 1800


class Absent(Exception):
    """A peer that cannot run here, and why."""


def environment(peer: str) -> Path:
    """The Python of a peer's environment."""
    python = ENVIRONMENTS / peer / "bin" / "python"
    if not (ENVIRONMENTS / peer / ".installed").exists():
        say(f"  installing {PINS[peer]}")
        build = torch.__version__.partition("+")[0]
        packages = [f"torch=={build}", PINS[peer], "psutil", "accelerate"]
        commands = (
            [sys.executable, "-m", "venv", str(ENVIRONMENTS / peer)],
            [str(python), "-m", "pip", "install", "--quiet", *packages],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
            if done.returncode:
                raise Absent(f"cannot be installed: {last_line(done.stderr)}")
        (ENVIRONMENTS / peer / ".installed").touch()
    return python


def peer_record(
    peer: str,
    model: Path,
    token_ids: np.ndarray,
    layers: Sequence[int],
    *,
    dtype: str,
    batch: int,
    pairs: int,
    disk: Path,
) -> Record:
    """The residual stream at `layers` kept by a peer, against the bare forward of its own process.

    Raises:
        Absent: It cannot be installed, or fails.
    """
    if peer in ONE_SITE and len(layers) > 1:
        raise Absent("keeps one site")
    python = environment(peer)
    saved = disk / "peer-tokens.npy"
    np.save(saved, token_ids)
    settings = {"--model": model, "--tokens": saved, "--dtype": dtype, "--batch": batch, "--pairs": pairs}
    settings["--disk"] = disk
    command = [str(python), str(Path(__file__).with_name("extract_inside_peer.py")), peer]
    command += [str(word) for item in settings.items() for word in item] + ["--layers", *map(str, layers)]
    say(f"  {peer} / bare forward of its own process")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent)},
    )
    saved.unlink()
    if done.returncode:
        raise Absent(f"failed: {last_line(done.stderr)}")
    record: Record = json.loads(done.stdout.splitlines()[-1])
    say(f"    {record['ratio']:.2f} {record['interval']}")
    return record


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "without a word"
