"""Other tools, each in an environment of its own: their packages want other versions of the same things.

The first call makes an environment under .venv-peers, which takes minutes; a peer that cannot be installed is left out
and named.
"""

import subprocess
import sys
from pathlib import Path

import torch
from store_pairs import say

PINS = {
    "nnsight": "nnsight==0.8.1",
    "transformer-lens": "transformer-lens==4.3.0",
    "sae-lens": "sae-lens==6.54.12",
    "sparsify": "eai-sparsify==1.3.3",
    "dictionary-learning": "dictionary-learning==0.1.0",
    "llamascopium": "llamascopium==2.0.0b34",
}
BESIDE = {"llamascopium": ("transformer-lens==3.9.0", "better-abc==0.0.3", "fancy-einsum==0.0.3")}
"""What a peer imports and does not ask for, or asks for in versions that it cannot use."""
ENVIRONMENTS = Path(".venv-peers")
INSTALL_SECONDS = 900


class Absent(Exception):
    """A peer that cannot run here, and why."""


def environment(peer: str) -> Path:
    """The Python of a peer's environment."""
    python = ENVIRONMENTS / peer / "bin" / "python"
    if not (ENVIRONMENTS / peer / ".installed").exists():
        say(f"  installing {PINS[peer]}")
        build = torch.__version__.partition("+")[0]
        packages = [f"torch=={build}", PINS[peer], *BESIDE.get(peer, ()), "psutil", "accelerate"]
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


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "without a word"
