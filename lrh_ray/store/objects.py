"""Keys and bytes: the four operations every store stands on, and nothing else.

A store is a set of objects under keys such as `commits/00000/00000007.json`. Everything above this file (plan, commits,
seal, reader, verify, gc) is written once against `Objects`: `get`, `put`, `list`, `delete`. Two implementations keep
its promises: `LocalObjects` here, on any POSIX file system, and `RemoteObjects` in `lrh_ray.store.remote`, on object
stores with conditional writes.

Promises:
    * An object is whole or absent. `put` returns after its bytes and its name are durable.
    * `put(key, data)` creates; where the key exists it changes nothing and returns None.
    * `put(key, data, over=tag)` replaces exactly the version `tag`; otherwise it changes nothing and returns None.
    * An exception from `put`, or None after a repeated request, does not prove that nothing was written: whoever needs
      to know reads the object back.

What can go wrong: a full disk is `StoreFull`; a place that cannot be written, or a name that leads out of the store
(through `..` or a symbolic link), is `PathUnusable`.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NewType, Protocol, TypeAlias, runtime_checkable

from lrh_ray.durable import disk_errors, make_folder, sync_folder, write_durably
from lrh_ray.errors import PathUnusable, StoreCorrupt

Tag = NewType("Tag", str)
"""Names one version of one object; compare only for equality."""

Location: TypeAlias = str | Path
"""Where a store stands: a folder, or a URL such as `s3://bucket/prefix`."""

KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
READ_ONLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # never waits for a pipe
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """What `get` found: the bytes asked for, the object's whole size, and its version."""

    data: bytes
    num_bytes: int
    tag: Tag


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of a listing."""

    key: str
    num_bytes: int


@runtime_checkable
class Objects(Protocol):
    """The four operations, and two facts about where they act."""

    @property
    def location(self) -> str:
        """What the user calls this place."""
        ...

    @property
    def stages(self) -> bool:
        """True: attempts are staged as keys of this store and `put(key, path)` moves such a file to its key.

        False: attempts are staged on the writer's own disk and `put(key, path)` uploads.
        """
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        """Bytes [start, start + length) of an object, to its end by default; None if there is no such key."""
        ...

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        """Create an object, or replace the version `over`; its tag, or None if the condition did not hold."""
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects under `prefix` (a folder), in any order. For housekeeping only: truth is read by key."""
        ...

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Remove an object; False if it is gone, held by a living writer, or `unless` says so at the last moment."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The file that holds this object, for the hot path; None where there are no files."""
        ...


def open_objects(location: Location) -> Objects:
    """The objects at a folder or a URL.

    Raises:
        PathUnusable: A URL of an unknown kind, or one without the needed settings.
    """
    if isinstance(location, str) and "://" in location and not location.startswith("file://"):
        from lrh_ray.store.remote import open_remote

        return open_remote(location)
    return LocalObjects(Path(str(location).removeprefix("file://")))


def absolute(location: Location) -> Location:
    """The same place for processes started elsewhere: URLs as they are, folders from the root."""
    return location if isinstance(location, str) and "://" in location else Path(location).resolve()


def child(location: Location, name: str) -> Location:
    """A place below another, for folders and URLs alike."""
    return location / name if isinstance(location, Path) else f"{location.rstrip('/')}/{name}"


class LocalObjects:
    """Objects as files below a folder of a POSIX file system.

    Creation is temp + fsync + `link` + fsync of the folder; `link` must be atomic, which POSIX file systems and NFS
    promise. Replacing a version compares and renames, which is not atomic: the protocol uses it only where it has one
    owner. Files under `staging/` are locked by their living writer, and `delete` leaves locked files alone.
    """

    stages = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = str(root)
        self._folders: set[str] = set()  # seen to be plain folders all the way down

    @property
    def location(self) -> str:
        return str(self.root)

    def local_path(self, key: str) -> Path:
        """The file of a key.

        Raises:
            PathUnusable: No key, or a link, a pipe or a device stands on its way or in its place.
        """
        return Path(self._checked(key))

    def _checked(self, key: str) -> str:
        if not KEY.fullmatch(key):
            raise PathUnusable(f"{key!r} is no key of a store: letters, digits, '.', '-', '_' and '/' only.")
        return self._plain_path(key)

    def _plain_path(self, key: str) -> str:
        """The path of a key, after looking at every name on its way; at a folder once, since this is on hot paths."""
        folder = key.rpartition("/")[0]
        path = f"{self._top}/{key}"
        if folder and folder not in self._folders:
            self._plain_path(folder)
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return path
        if stat.S_ISDIR(mode):
            self._folders.add(key)
        elif not stat.S_ISREG(mode):
            raise PathUnusable(
                f"{path!r} is a symbolic link, a pipe or a device. Stores hold plain files only, since a link may lead "
                f"out of the store; copy the target into the store, or do not open it."
            )
        return path

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        path = self._checked(key)
        try:
            descriptor = os.open(path, READ_ONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise PathUnusable(f"{path!r} is no file. Stores hold plain files only; move it aside.")
            left = max(0, facts.st_size - start)
            data = _read(descriptor, start, left if length is None else min(left, length))
            return Blob(data=data, num_bytes=facts.st_size, tag=_tag(facts))
        finally:
            os.close(descriptor)

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        path = self.local_path(key)
        with disk_errors(path.name):
            if isinstance(data, Path):
                return self._move(data, path)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            make_folder(path.parent)
            try:
                write_durably(temporary, data)
                return _replace(temporary, path, over) if over is not None else _create(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def _move(self, staged: Path, path: Path) -> Tag | None:
        """Rename a file of this store over another key; None if it is not there any more."""
        make_folder(path.parent)
        try:
            self._deletable(staged.as_posix()).rename(path)
        except FileNotFoundError:
            return None
        sync_folder(path.parent)
        return _tag(path.lstat())

    def list(self, prefix: str) -> Iterator[Entry]:
        folders = [prefix]
        if prefix:
            self._plain_path(prefix)
        while folders:
            folder = folders.pop()
            self._folders.add(folder)
            try:
                with os.scandir(f"{self._top}/{folder}") as found:
                    entries = sorted(found, key=_name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            inside = []
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    inside.append(key)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    yield Entry(key=key, num_bytes=entry.stat(follow_symlinks=False).st_size)
            folders.extend(reversed(inside))

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        path = self._deletable(key)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            return self._remove(path, unless)  # a link or a socket, which no writer of ours holds
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._remove(path, unless)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)

    def _deletable(self, key: str) -> Path:
        """The path of a file below the root: what it is does not matter, the folders on its way must be folders."""
        folder, _, name = key.rpartition("/")
        if not name or {"", ".", ".."} & set(key.split("/")):
            raise PathUnusable(f"{key!r} is no key of a store.")
        if folder:
            self._plain_path(folder)
        return self.root / key

    def _remove(self, path: Path, unless: Callable[[], bool]) -> bool:
        if unless():
            return False
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        return True


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name


def _read(descriptor: int, start: int, length: int) -> bytes:
    """Bytes of a file; one system call returns at most 2 GiB, and what ends early is returned short."""
    data = os.pread(descriptor, length, start)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def _create(temporary: Path, path: Path) -> Tag | None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return None
    sync_folder(path.parent)
    return _tag(path.stat())


def _replace(temporary: Path, path: Path, over: Tag) -> Tag | None:
    if not path.exists() or _tag(path.stat()) != over:
        return None
    temporary.rename(path)
    sync_folder(path.parent)
    return _tag(path.stat())


def _tag(facts: os.stat_result) -> Tag:
    return Tag(f"{facts.st_ino}.{facts.st_mtime_ns}.{facts.st_size}")


def put_same(objects: Objects, key: str, data: bytes) -> None:
    """Create an object; one that exists must hold the same bytes (a repeated, deterministic write).

    Raises:
        StoreCorrupt: It holds other bytes.
    """
    if objects.put(key, data) is not None:
        return
    standing = objects.get(key)
    if standing is None or standing.data != data:
        raise StoreCorrupt(
            f"{key} in {objects.location} exists with other content than this plan produces. It was changed by hand or "
            f"is half of another program's work; move the store aside and repeat the command."
        )


def put_tree(objects: Objects, key: str, folder: Path) -> None:
    """Create an object for every file below `folder`, as `put_same` does; for trees that another library wrote."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        put_same(objects, f"{key}/{path.relative_to(folder).as_posix()}", path.read_bytes())
