"""Connect to Ray: an embedded local cluster, or one that runs already, always with a token.

Ray's control processes listen on every interface whatever address they are told, so an open cluster is a remote shell
for the whole network. The embedded cluster gets a fresh random token that lives in the environment of this process and
its children only. A running cluster is joined with the token the user has (`RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH` or
~/.ray/auth_token).
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray import _raylet

from lrh_ray.errors import ClusterError, LrhError

EMBEDDED = "embedded"
TOKEN_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What one living node has; `name` is Ray's id of it."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What the cluster offers, in all and by node; without `nodes` it counts as one node."""

    address: str
    cpus: float
    gpus: float
    nodes: tuple[Node, ...] = ()


@contextlib.contextmanager
def connected(address: str = EMBEDDED) -> Iterator[Cluster]:
    """Connect for the length of a `with` block; nested uses share the outer connection.

    Raises:
        ClusterError: The cluster cannot be reached or refuses the token.
    """
    if ray.is_initialized():
        yield _describe(address)
        return
    before = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    try:
        _start_embedded() if address == EMBEDDED else _join(address)
        yield _describe(address)
    finally:
        ray.shutdown()
        for name, value in before.items():  # the embedded cluster's token dies with it
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _start_embedded() -> None:
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(TOKEN_BYTES)
    require_token_mode()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address="local", dashboard_host="127.0.0.1", log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ConnectionError, TimeoutError, OSError, ValueError) as error:
        raise ClusterError(
            f"The embedded Ray did not start: {_first_line(error)} `lrh doctor` checks memory and disk."
        ) from error


def _join(address: str) -> None:
    require_token_mode()
    if not _has_token():
        raise ClusterError(
            f"No token for the Ray cluster {address!r}. Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or put the "
            f"cluster's token into ~/.ray/auth_token (mode 0600). Open clusters are not joined."
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ConnectionError, TimeoutError, OSError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"Cannot join the Ray cluster {address!r}: {_first_line(error)}. Check the address, that the cluster runs, "
            f"and that your token is the cluster's."
        ) from error


def require_token_mode() -> None:
    """Token mode for this process and its children, whatever the environment says.

    Ray reads the mode and the token once, when it is imported; its own start-up refreshes them in the same way.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    compiled: Any = _raylet  # a compiled module without types
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


def _describe(address: str) -> Cluster:
    nodes = living_nodes()
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return Cluster(address=address, cpus=cpus, gpus=gpus, nodes=nodes)


def living_nodes() -> tuple[Node, ...]:
    """Nodes that can take work now."""
    leaving = draining_nodes()
    return tuple(
        Node(name=node["NodeID"], cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    )


def draining_nodes() -> Mapping[str, float | None]:
    """Nodes that are about to be taken away (`ray drain-node`, spot notice, SIGTERM), and when, in Unix seconds.

    None: no time is known. Ray has no public call for this; its own libraries use this one.
    """
    deadlines: Mapping[str, int] = ray._private.state.state.get_draining_nodes()
    return {name: milliseconds / 1000 if milliseconds else None for name, milliseconds in deadlines.items()}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def cause_of(error: ray.exceptions.RayTaskError) -> BaseException:
    """What a remote function raised, as it was raised there."""
    cause: BaseException = error.cause if isinstance(error.cause, BaseException) else error
    return cause


def raise_cause(error: ray.exceptions.RayTaskError) -> NoReturn:
    """Raise the user's mistake itself if a worker hit one; everything else keeps Ray's traceback of the worker."""
    cause = cause_of(error)
    if isinstance(cause, LrhError):
        raise cause from error
    raise error
