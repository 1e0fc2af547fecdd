"""Run a backend in several processes that share one model, and keep what rank 0 hands on.

    python -m lrh_ray.testing.ranks CHECKPOINT OUT.npz --size 2 --sites resid.* final_norm [--experts] --texts A B

The parent starts the other ranks; the rows of every site stand in OUT.npz, float64 [tokens, feature].
"""

import argparse
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts
from lrh_ray.models.hf import TransformersBackend
from lrh_ray.models.ranks import Rank
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.records import Document
from lrh_ray.testing.conformance import Collected


def rows_of(options: argparse.Namespace, rank: Rank) -> dict[str, np.ndarray]:
    """Rows of one rank: all of them on rank 0, none elsewhere."""
    torch.set_num_threads(1)
    checkpoint = resolve_checkpoint(options.checkpoint)
    config = ModelConfig(
        name=options.checkpoint, dtype="float32", tensor_parallel=rank.size, expert_parallel=options.experts
    )
    documents = [Document(id=str(index), text=text) for index, text in enumerate(options.texts)]
    tokenizer = load_tokenizer(checkpoint)
    block = tokenize(documents, tokenizer, render="raw", bos="tokenizer", window=256, too_long="error")
    sites = model_facts(checkpoint, config, options.sites).sites
    sink = Collected()
    with closing(TransformersBackend(checkpoint, config, sites, rank)) as backend:
        backend.forward(block, sink)
    return sink.rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--sites", nargs="+", required=True)
    parser.add_argument("--texts", nargs="+", required=True)
    parser.add_argument("--experts", action="store_true")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--address")
    options = parser.parse_args()
    if options.rank:
        rows_of(options, Rank(index=options.rank, size=options.size, address=options.address))
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "lrh_ray.testing.ranks", *sys.argv[1:], "--address", address]
    others = [subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(1, options.size)]  # noqa: S603
    try:
        np.savez(options.out, **rows_of(options, Rank(index=0, size=options.size, address=address)))  # type: ignore[arg-type]
    finally:
        for other in others:
            other.wait(timeout=120)


if __name__ == "__main__":
    main()
