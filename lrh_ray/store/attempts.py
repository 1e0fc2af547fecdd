"""The files of one attempt at one block, from their creation to their commit or their end.

    attempt = Attempt(objects, block=7, attempt="a1")
    descriptor = attempt.create("resid.0")      # write, fdatasync
    attempt.commit(record)
    attempt.close()

Staged files are locked while they are open: the lock tells a sweeper that their writer lives. Leaving without a commit
removes them.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from lrh_ray.durable import disk_errors, make_folder, sync_folder
from lrh_ray.errors import StoreCorrupt
from lrh_ray.store.commit_records import Commit, staged_key
from lrh_ray.store.commits import commit_block, is_committed_by
from lrh_ray.store.objects import Objects


class Attempt:
    """One attempt at a block."""

    def __init__(self, objects: Objects, *, block: int, attempt: str) -> None:
        self._objects, self._block, self._attempt = objects, block, attempt
        self._files: dict[str, tuple[Path, int]] = {}
        self._closed = False
        with disk_errors("staging"):
            self._folder = self._make_folder()

    def _make_folder(self) -> Path:
        inside = self._objects.local_path("staging") if self._objects.stages else None
        if inside is None:
            return Path(tempfile.mkdtemp(prefix="lrh-attempt-"))
        make_folder(inside)
        return inside

    def create(self, name: str) -> int:
        """A descriptor of a new, empty, locked file for one object of the block."""
        path = self._folder / Path(staged_key(self._block, self._attempt, name)).name
        with disk_errors(path.name):
            descriptor = _create_locked(path)
        self._files[name] = path, descriptor
        return descriptor

    def commit(self, commit: Commit) -> bool:
        """Commit the block with this attempt's files, all synced; True if the record that stands is this attempt's.

        Raises:
            AttemptSuperseded: A newer attempt took the block over.
        """
        with disk_errors(f"block {self._block}"):
            sync_folder(self._folder)
            self._refuse_swept()
            return commit_block(self._objects, commit, {name: path for name, (path, _) in self._files.items()})

    def _refuse_swept(self) -> None:
        """Staged files must still have names; a sweeper on a node that does not see our locks may have taken them."""
        if not all(os.fstat(descriptor).st_nlink for _, descriptor in self._files.values()):
            raise StoreCorrupt(
                f"Block {self._block}: staged files were removed while their writer lived. The file system does not "
                f"share locks between nodes; start one driver at a time for this store."
            )

    def close(self) -> None:
        """Close all files, and remove them unless this attempt is the committed one."""
        if self._closed:
            return
        self._closed = True
        for _, descriptor in self._files.values():
            os.close(descriptor)
        if not self._objects.stages:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif not is_committed_by(self._objects, self._block, self._attempt):
            for path, _ in self._files.values():
                path.unlink(missing_ok=True)
            sync_folder(self._folder)


def _create_locked(path: Path) -> int:
    """Create a file and hold its lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # swept between creation and lock: make it anew
