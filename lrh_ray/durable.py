"""Files that are whole or absent, and stay after a power cut: the ground under stores and results.

A file's bytes are synced before its name appears; the folder is synced after, and so is every folder that had to be
made for it. What the operating system refuses becomes one typed error with the way out.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lrh_ray.errors import PathUnusable, StoreFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNUSABLE = {
    errno.EACCES: "no permission",
    errno.EPERM: "not permitted; the file system may lack hard links",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EISDIR: "a folder stands where a file is needed",
    errno.EOPNOTSUPP: "the file system lacks hard links",
    errno.ENOSYS: "the file system lacks hard links",
    errno.EIO: "the disk reports an input/output error; nothing committed is lost",
    errno.ESTALE: "the network file system lost the file; nothing committed is lost",
}


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what the operating system refuses into a `StoreFull` or a `PathUnusable` that says what to do."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number in FULL:
            raise StoreFull(
                f"No space left while writing {what} ({os.strerror(number)}). Nothing committed is lost: free some "
                f"space or choose another folder, then repeat the same command; it resumes."
            ) from error
        if number in UNUSABLE:
            where = f" ({error.filename})" if error.filename else ""
            raise PathUnusable(f"Cannot write {what}{where}: {UNUSABLE[number]}. Choose another place.") from error
        raise


def _writeback_call() -> Callable[[int, int, int, int], int] | None:
    """`sync_file_range` of the C library, which Linux has and Python does not offer."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call


SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h
_sync_file_range = _writeback_call()


def begin_writeback(descriptor: int, offset: int, num_bytes: int) -> None:
    """Let the disk begin to write a range, so that the sync at the end finds little to do; advice, never an error.

    Unlike `posix_fadvise(DONTNEED)`, which begins as well, it drops no page and makes no other processor answer.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, num_bytes, SYNC_FILE_RANGE_WRITE)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(root: Path) -> None:
    """Make every file and name below `root` durable; for trees that another library wrote."""
    for folder, _, files in os.walk(root):
        for name in files:
            _sync(Path(folder, name), os.O_RDONLY)
        sync_folder(Path(folder))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with a durable name."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and sync its bytes; the caller makes its name durable."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
