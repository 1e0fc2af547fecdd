"""Objects on an object store (S3, GCS, Azure), through obstore.

    open_remote("s3://bucket/runs/demo/store")

Credentials and endpoints come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`), never from the URL. The protocol
needs two conditional writes: create if absent (`If-None-Match: *`) and replace one version (`If-Match: <etag>`).
`probe_conditions` tries both once, on a key of its own, before a store is written: a service that ignores them would
let two writers mix their files, so it is refused by name.

Large files go up as one request, because a multipart upload cannot carry the conditions; shards stay far below the
5 GB that one request may hold.
"""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import ObjectStore, from_url

from lrh_ray.errors import PathUnusable, StoreConflict
from lrh_ray.store.objects import KEY, Blob, Entry, Tag

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "https", "http")


def open_remote(url: str) -> "RemoteObjects":
    """The objects below a URL.

    Raises:
        PathUnusable: An unknown scheme, credentials inside the URL, or settings that obstore refuses.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise PathUnusable(f"{url!r}: unknown scheme {parts.scheme!r}. Known: a folder, or {', '.join(SCHEMES)}.")
    if parts.username or parts.password:
        raise PathUnusable("Credentials do not belong into a store's URL; set them in the environment (AWS_* ...).")
    try:
        options = {"allow_http": True} if _is_loopback() else None
        return RemoteObjects(url, from_url(url, client_options=options))  # type: ignore[arg-type]
    except (BaseError, ValueError) as error:
        raise PathUnusable(f"Cannot open {url!r}: {_first_line(error)}. Check the URL and the environment.") from error


def _is_loopback() -> bool:
    """Plain HTTP is allowed for a server on this machine only, or when the environment allows it by name."""
    import os

    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "") or os.environ.get("AWS_ENDPOINT", ""))
    return endpoint.hostname in ("127.0.0.1", "localhost", "::1")


class RemoteObjects:
    """Objects under the prefix of a bucket."""

    stages = False

    def __init__(self, location: str, store: ObjectStore) -> None:
        self._location, self._store = location, store

    @property
    def location(self) -> str:
        return self._location

    def local_path(self, key: str) -> None:
        del key

    def get(self, key: str, start: int = 0, length: int | None = None) -> Blob | None:
        _check(key)
        try:
            facts = obstore.head(self._store, key)
            end = facts["size"] if length is None else min(facts["size"], start + length)
            data = bytes(obstore.get_range(self._store, key, start=start, end=end)) if end > start else b""
        except (NotFoundError, FileNotFoundError):
            return None
        except BaseError as error:
            raise _refused(error, f"read {key}") from error
        return Blob(data=data, num_bytes=facts["size"], tag=Tag(str(facts["e_tag"])))

    def put(self, key: str, data: bytes | Path, *, over: Tag | None = None) -> Tag | None:
        _check(key)
        try:
            mode = "create" if over is None else {"e_tag": str(over)}
            result = obstore.put(self._store, key, data, mode=mode)  # type: ignore[arg-type]
        except (AlreadyExistsError, PreconditionError):
            return None
        except (NotFoundError, FileNotFoundError):
            return None  # the version to replace is gone
        except BaseError as error:
            raise _refused(error, f"write {key}") from error
        return Tag(str(result["e_tag"]))

    def list(self, prefix: str) -> Iterator[Entry]:
        for part in obstore.list(self._store, prefix):
            for facts in part:
                yield Entry(key=facts["path"], num_bytes=facts["size"])

    def delete(self, key: str, *, unless: Callable[[], bool] = lambda: False) -> bool:
        _check(key)
        if unless():
            return False
        try:
            obstore.delete(self._store, key)
        except (NotFoundError, FileNotFoundError):
            return False
        except BaseError as error:
            raise _refused(error, f"delete {key}") from error
        return True


def probe_conditions(objects: RemoteObjects) -> None:
    """Refuse a service that ignores conditional writes.

    Raises:
        StoreConflict: It overwrote an object it was told to leave alone.
    """
    key = f"staging/probe-{uuid.uuid4().hex}"
    first = objects.put(key, b"1")
    try:
        created_twice = objects.put(key, b"2") is not None
        current = None if first is None else objects.put(key, b"3", over=first)
        replaced_stale = first is not None and objects.put(key, b"4", over=first) is not None
        if created_twice or replaced_stale or current is None:
            raise StoreConflict(
                f"The object store of {objects.location!r} ignores conditional writes (If-None-Match, If-Match), so "
                f"two writers could mix their files. Use a bucket that honours them, or write to a folder."
            )
    finally:
        objects.delete(key)


def _check(key: str) -> None:
    if not KEY.fullmatch(key):
        raise PathUnusable(f"{key!r} is no key of a store: letters, digits, '.', '-', '_' and '/' only.")


def _refused(error: BaseException, what: str) -> PathUnusable:
    return PathUnusable(
        f"The object store did not {what}: {_first_line(error)}. Nothing committed is lost; repeat the same command."
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
