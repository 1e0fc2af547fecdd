"""Other readers of activations, each doing the same block shuffle through its own way of reading runs of rows.

zarr-python (default, Fused and zarrs pipelines) and TensorStore read OUR store, files and all; both check crc32c. The
others cannot, so their files are made first: safetensors, Parquet (row groups of one chunk) and Arrow for HF datasets,
with bfloat16 as uint16, which Arrow does have. None of these three checks anything.

A peer is a function of `Files` that gives a `Fill`; it raises `ImportError`, or `Absent` with a reason,
where it cannot run. A new one is a function and a line in `PEERS`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr
from store_pairs import Quiet, Record, Side, measure, say
from store_read import BlockShuffle, Fill, check_epoch
from store_rows import SITE, Data, scratch

ZARR_TARGET, TENSORSTORE_TARGET = 3.0, 2.0
FUSED = "FusedCodecPipeline"


class Absent(Exception):
    """A peer that cannot run here; the message says what it needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """What a peer reads: our store as it stands, or a file that it makes of the rows in its own folder."""

    data: Data
    store: Path
    folder: Path

    @property
    def array(self) -> Path:
        return self.store / "data.zarr" / "acts" / SITE


Open: TypeAlias = Callable[[Files], Fill]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """One other reader."""

    name: str
    open: Open
    target: float | None = None
    """How many times as fast our loader has to be, without verifying; the verified ratio stands beside it."""
    verifies: bool = False
    settings: Callable[[], AbstractContextManager[object]] = nullcontext


def _in_turn(read: Callable[[slice], np.ndarray]) -> Fill:
    """A `Fill` from a function that reads one run."""

    def fill(runs: list[slice], out: np.ndarray) -> None:
        done = 0
        for run in runs:
            rows = read(run)
            out[done : done + len(rows)] = rows
            done += len(rows)

    return fill


def open_zarr(files: Files) -> Fill:
    array: Any = zarr.open_array(files.array, mode="r")
    return _in_turn(lambda run: array[run].view(np.uint16))


def pipeline(path: str) -> AbstractContextManager[object]:
    settings: AbstractContextManager[object] = zarr.config.set({"codec_pipeline.path": path})
    return settings


def fused_settings() -> AbstractContextManager[object]:
    import zarr.core.codec_pipeline as pipelines

    if not hasattr(pipelines, FUSED):
        raise Absent(f"{FUSED} needs zarr >= 3.3; this is zarr {zarr.__version__}")
    return pipeline(f"zarr.core.codec_pipeline.{FUSED}")


def zarrs_settings() -> AbstractContextManager[object]:
    import zarrs  # noqa: F401  # registers its pipeline

    return pipeline("zarrs.ZarrsCodecPipeline")


def open_tensorstore(files: Files) -> Fill:
    import tensorstore

    place = {"driver": "file", "path": f"{files.array}/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result()

    def fill(runs: list[slice], out: np.ndarray) -> None:
        done = 0
        for future in [array[run].read() for run in runs]:
            rows = future.result().view(np.uint16)
            out[done : done + len(rows)] = rows
            done += len(rows)

    return fill


def open_safetensors(files: Files) -> Fill:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = files.folder / "rows.safetensors"
    save_file({"rows": files.data.source.view(np.uint16)}, path)
    file: Any = safe_open(path, framework="np")
    rows = file.get_slice("rows")
    return _in_turn(lambda run: rows[run])


def _arrow_tables(data: Data) -> Iterator[Any]:
    """A table for each chunk: one column of fixed-size lists."""
    import pyarrow as pa

    for first in range(0, data.rows, data.plan.chunk_rows):
        chunk = data.source[first : first + data.plan.chunk_rows].view(np.uint16)
        yield pa.table({"rows": pa.FixedSizeListArray.from_arrays(pa.array(chunk.reshape(-1)), data.dim)})


def open_parquet(files: Files) -> Fill:
    import pyarrow.parquet as pq

    path = files.folder / "rows.parquet"
    tables = _arrow_tables(files.data)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    file, step = pq.ParquetFile(path), files.data.plan.chunk_rows

    def read(run: slice) -> np.ndarray:
        groups = list(range(run.start // step, run.stop // step))
        column = file.read_row_groups(groups, columns=["rows"])["rows"].combine_chunks()
        return np.asarray(column.flatten().to_numpy()).reshape(-1, files.data.dim)

    return _in_turn(read)


def open_datasets(files: Files) -> Fill:
    import datasets
    import pyarrow as pa

    features = datasets.Features({"rows": datasets.List(datasets.Value("uint16"), length=files.data.dim)})
    path = files.folder / "rows.arrow"
    schema = features.arrow_schema
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for table in _arrow_tables(files.data):
            stream.write_table(table.cast(schema))
    rows = datasets.Dataset.from_file(str(path)).with_format("numpy")
    return _in_turn(lambda run: rows[run]["rows"])


PEERS: tuple[Peer, ...] = (
    Peer(name="zarr-python, default pipeline", open=open_zarr, target=ZARR_TARGET, verifies=True),
    Peer(name="TensorStore", open=open_tensorstore, target=TENSORSTORE_TARGET, verifies=True),
    Peer(name="zarr-python, Fused pipeline", open=open_zarr, verifies=True, settings=fused_settings),
    Peer(name="zarr-python, zarrs pipeline", open=open_zarr, verifies=True, settings=zarrs_settings),
    Peer(name="safetensors", open=open_safetensors),
    Peer(name="Parquet", open=open_parquet),
    Peer(name="HF datasets", open=open_datasets),
)


def peer_measures(
    data: Data, store: Path, ours: dict[str, Side], peer: Peer, memory: Path, *, pairs: int, quiet: Quiet
) -> list[Record]:
    """Our loader against one peer; verified as well where the peer verifies.

    Raises:
        Absent: The peer cannot run here.
    """
    try:
        with scratch(memory) as folder, peer.settings():
            shuffle = BlockShuffle(data, peer.open(Files(data=data, store=store, folder=folder)))
            check_epoch(data, peer.name, shuffle.epoch)
            theirs = Side(name=peer.name, run=shuffle.epoch)
            return [
                {
                    "measure": "peer read",
                    "target": peer.target if verify == "never" else None,
                    "limit_verifies": peer.verifies,
                    **measure(theirs, ours[verify], pairs=pairs, quiet=quiet, warm_up=False),
                }
                for verify in (("never", "always") if peer.verifies else ("never",))
            ]
    except ImportError as error:
        say(f"  {peer.name}: {error}")
        raise Absent(f"not installed ({error.name})") from error
