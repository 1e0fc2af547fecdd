"""Ranks: several processes that hold one model between them.

Each block's weights are cut over the processes (tensor parallel), and the experts of a layer may be dealt out whole
(expert parallel). All ranks run the same forward pass of the same tokens; after each block all of them hold the whole
residual stream, so rank 0 alone hands rows on.

    with joined(Rank(index=0, size=2, address="10.0.0.1:29500")):
        backend = TransformersBackend(checkpoint, config, sites, rank=...)

What can go wrong: a rank that dies leaves the others waiting in a collective operation; whoever started them ends them
together. Sites inside a cut module (`heads`, `mlp_act`) exist on no rank whole and are refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One of the processes of a replica."""

    index: int
    size: int
    address: str
    """host:port at which rank 0 can be reached."""


@contextmanager
def joined(rank: Rank) -> Iterator[None]:
    """Inside the block this process is that rank of torch's process group, which transformers finds."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    host, _, port = rank.address.rpartition(":")
    # a process that sees one device of its own calls it 0; without devices every rank counts
    local = rank.index % torch.cuda.device_count() if torch.cuda.is_available() else rank.index
    values = (str(rank.index), str(local), str(rank.size), host, port)
    os.environ.update(zip(VARIABLES, values, strict=True))
    try:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
