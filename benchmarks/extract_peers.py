"""Other tools that keep hidden states beside ours; `extract_inside_peer.py` runs in the environment of each."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from peer_environments import Absent, environment, last_line
from store_pairs import Record, say

ONE_SITE = ("sae-lens",)
PEERS = ("nnsight", "transformer-lens", "sae-lens")
RUN_SECONDS = 1800


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
