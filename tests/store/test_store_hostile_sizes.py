"""Files that claim, or unpack to, more than any memory holds are refused before it is taken."""

import io
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_stores import LENGTHS, refuse

from lrh_ray.errors import StoreCorrupt
from lrh_ray.store.commits import PACK
from lrh_ray.store.documents import read_documents
from lrh_ray.store.objects import LocalObjects
from lrh_ray.store.stamps import stamped

MEMORY_MB = 512


def test_a_table_that_claims_terabytes_is_refused(root):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (3, 1 << 40)})
    (root / "plan/table.npy").write_bytes(header.getvalue())
    refuse(root, StoreCorrupt)


@pytest.mark.parametrize("kind", ["pages", "dictionary", "rows"])
def test_a_parquet_bomb_is_refused(root, kind):
    """A few kilobytes that unpack to gigabytes: repeated bytes, one text for many rows, or many rows alone."""
    path = root / "plan/documents.parquet"
    if kind == "pages":
        bomb(path)
    elif kind == "dictionary":
        index = pa.array(np.zeros(400, dtype=np.int32))
        text = pa.DictionaryArray.from_arrays(index, pa.array(["\0" * (4 << 20)]))
        pq.write_table(pa.table({"id": pa.array(["x"] * 400), "text": text}), path, compression="zstd")
    else:
        rows = pa.array(np.zeros(40_000_000, dtype=np.int8))
        pq.write_table(pa.table({"id": rows, "text": rows}), path, compression="zstd")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(StoreCorrupt, match="more data than"):
        read_documents(LocalObjects(root), len(LENGTHS), "text")


BOUNDED = """
    import sys
    from pathlib import Path
    from lrh_ray.errors import LrhError
    from lrh_ray.store.reader import open_store
    from lrh_ray.store.verify import verify
    from lrh_ray.store.status import store_status
    from lrh_ray.store.garbage import collect_garbage

    def peak():
        # of this program alone; the kernel's ru_maxrss remembers the process that started it
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))

    limit = int(sys.argv[1])
    for root in sys.argv[2:]:
        outcomes = []
        for act in (lambda: open_store(root).rows("resid.0"), lambda: verify(root, 2), lambda: store_status(root),
                    lambda: collect_garbage(root, delete=False), lambda: open_store(root).texts):
            try:
                found = act()
                outcomes.append("ok")
            except LrhError as error:
                outcomes.append(type(error).__name__)
        print(Path(root).name, peak(), *outcomes, flush=True)
        if peak() > limit:
            sys.exit(3)
"""


def sparse(path: Path, num_bytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(num_bytes)


def endless_pack(path: Path) -> None:
    """Lines that are all whole, of blocks that the plan does not have, or of one block again and again."""
    line = json.loads(path.read_bytes().splitlines()[0])
    line.pop("stamp")
    with path.open("ab") as file:
        for block in range(1000, 1200):
            data = stamped({**line, "block": block}) + b"\n"
            file.write(data * 2000)


def bomb(path: Path, groups: int = 6) -> None:
    table = pa.table({"id": pa.array(["x"]), "text": pa.array(["\0" * (16 << 20)])})
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(groups):
            writer.write_table(table)


HEAVY = {
    "pack-of-zeros": lambda root: sparse(root / PACK, 1 << 40),
    "endless-pack": lambda root: endless_pack(root / PACK),
    "plan-of-zeros": lambda root: sparse(root / "plan/plan.json", 1 << 40),
    "table-of-zeros": lambda root: sparse(root / "plan/table.npy", 1 << 40),
    "sealed-of-zeros": lambda root: sparse(root / "plan/sealed.json", 1 << 40),
    "manifest-of-zeros": lambda root: sparse(root / "manifest.json", 1 << 40),
    "metadata-of-zeros": lambda root: sparse(root / "data.zarr/zarr.json", 1 << 40),
    "config-of-zeros": lambda root: sparse(root / "plan/config.yaml", 1 << 40),
    "documents-of-zeros": lambda root: sparse(root / "plan/documents.parquet", 1 << 40),
    "labels-of-zeros": lambda root: sparse(root / "labels/corpus.parquet", 1 << 40),
    "shard-of-zeros": lambda root: sparse(root / "data.zarr/acts/resid.0/c/0/0", 1 << 40),
    "column-of-zeros": lambda root: sparse(root / "data.zarr/token_id/c/0", 1 << 40),
    "statistics-of-zeros": lambda root: sparse(root / "statistics/00000/00000000.safetensors", 1 << 40),
    "parquet-bomb": lambda root: bomb(root / "plan/documents.parquet", groups=40),
}


def test_terabytes_are_refused_within_half_a_gigabyte(pristine, tmp_path):
    roots = []
    for name, harm in HEAVY.items():
        root = Path(shutil.copytree(pristine, tmp_path / name))
        harm(root)
        roots.append(str(root))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOUNDED), str(MEMORY_MB), *roots],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    answers = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert answers.keys() == HEAVY.keys()
    assert max(int(answer[0]) for answer in answers.values()) < MEMORY_MB
    for name, answer in answers.items():
        assert len(set(answer[1:]) - {"ok"}) or name.startswith(("config", "labels", "statistics", "column")), name
