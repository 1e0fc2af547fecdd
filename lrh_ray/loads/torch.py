"""Shuffled rows of a store as torch tensors, for plain loops, torch's DataLoader and torchdata's StatefulDataLoader.

    rows = TorchRows(Loader(store, "resid.15", batch_size=4096, seed=0), device="cuda")
    for batch in rows:
        batch["resid.15"], batch["index"]          # [4096, 576] bfloat16 on the device, [4096] int64

    for batch in StatefulDataLoader(TorchRows(loader), batch_size=None, num_workers=2): ...

A batch is a mapping from site to tensor; `index` holds the rows' numbers in the store. Tensors share the memory of the
loader's batch, which stays theirs as long as they live; bfloat16 goes through its bits, because NumPy's bfloat16 is
unknown to torch. `pin_memory` copies into page-locked memory, from which the copy to a device does not block.

A loader reads ahead in threads, so one process keeps a GPU busy; worker processes are possible and each of them reads
the whole store. They share an epoch by taking batches in turn, so the batches and their order are those of one process.

`set_epoch` before each epoch, as with torch's samplers: every pass begins at the epoch set, at its start or, after
`load_state_dict`, at the place loaded. The epoch is shared memory, so that persistent workers see it.

What can go wrong: a DataLoader without `batch_size=None` would stack batches; a device other than the CPU inside a
worker process is `ConfigError`, because a forked process cannot use it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import ml_dtypes
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from lrh_ray.errors import ConfigError, StateConflict
from lrh_ray.records import Plain
from lrh_ray.store.batches import Batch
from lrh_ray.store.loader import Loader

INDEX = "index"

Tensors: TypeAlias = dict[str, torch.Tensor]


class TorchRows(IterableDataset[Tensors]):
    """The batches of a `Loader` as tensors."""

    def __init__(
        self,
        loader: Loader,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        pin_memory: bool = False,
    ) -> None:
        """Wrap a loader.

        Args:
            loader: Its batches, its share of ranks, its place.
            device: Where the rows go; the index stays on the CPU.
            dtype: Data type of the rows; None keeps the loader's.
            pin_memory: Pass through page-locked memory, so that the copy to the device overlaps with work on it. Does
                nothing without a CUDA device.
        """
        self.loader = loader
        self._device, self._dtype = torch.device(device), dtype
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._epoch = torch.tensor(loader.epoch).share_memory_()  # type: ignore[no-untyped-call]
        self._place: Literal["start", "run", "worker"] = "run"  # where the next pass begins; the last is a worker's own

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass; asking for the current one keeps the place."""
        self._epoch.fill_(epoch)
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Tensors]:
        worker = get_worker_info()
        if worker is not None and self._device.type != "cpu":
            raise ConfigError(f"device is {str(self._device)!r} inside a DataLoader worker; copy in the training loop.")
        epoch = int(self._epoch)
        if self._place == "start" or self.loader.epoch != epoch:
            self.loader.restart(epoch)
        first = 0 if worker is None or self._place == "worker" else worker.id
        batches = self.loader.iterate(first=first, step=1 if worker is None else worker.num_workers)
        self._place = "start"
        return map(self._tensors, batches)

    def state_dict(self) -> dict[str, Plain]:
        """The loader's place; in a worker process, the worker's own."""
        worker = get_worker_info()
        own: dict[str, Plain] = {} if worker is None else {"worker": worker.id, "workers": worker.num_workers}
        return {**self.loader.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Plain]) -> None:
        """Begin the next pass at a place.

        Raises:
            StateConflict: A place of another run, or of one among another number of workers.
        """
        worker = get_worker_info()
        here = (None, None) if worker is None else (worker.id, worker.num_workers)
        there = state.get("worker"), state.get("workers")
        if there not in (here, (None, None)):
            raise StateConflict(
                f"This place is of worker {there[0]} of {there[1]}; this is {here[0]} of {here[1]}. Go on with the "
                f"same number of workers until the end of the epoch."
            )
        self.loader.load_state_dict(state)
        self._epoch.fill_(self.loader.epoch)
        self._place = "run" if there == (None, None) else "worker"

    def _tensors(self, batch: Batch) -> Tensors:
        rows = {site: self._tensor(rows) for site, rows in batch.rows.items()}
        return {**rows, INDEX: torch.from_numpy(batch.index)}

    def _tensor(self, rows: np.ndarray) -> torch.Tensor:
        tensor = as_tensor(rows)
        tensor = tensor if self._dtype is None else tensor.to(self._dtype)
        tensor = tensor.pin_memory() if self._pin_memory else tensor
        return tensor.to(self._device, non_blocking=self._pin_memory)


def as_tensor(rows: np.ndarray) -> torch.Tensor:
    """A tensor on the same memory; bfloat16 through its bits."""
    if rows.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(rows)
