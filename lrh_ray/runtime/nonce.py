"""Before the first lease: does every node see the store's place, or only this one?

    require_shared("runs/demo/store", cluster)

A folder on the driver's own disk looks like any other. On several nodes, each would fill a folder of its own, and the
run would end with blocks missing that were all computed. So the driver writes an object with random content and every
node reads it back, once, before any model is loaded.

What can go wrong: a node that joins later is not asked; a replica that opens there finds no plan, and the run ends with
`unseen`, the same words. A node that leaves or has no room for the question within a minute is not held against the
place.
"""

import secrets
import socket
from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lrh_ray.errors import ClusterError
from lrh_ray.runtime.cluster import Cluster, cause_of
from lrh_ray.store.objects import Location, absolute, open_objects

KEY = "staging/probe-nonce-"  # where `lrh gc` looks for what a killed probe left
WAIT_SECONDS = 60.0
REMEDY = (
    "Use a folder on a file system that every node mounts at the same path, or a bucket "
    "(`store.location: s3://bucket/prefix`)."
)


def require_shared(location: Location, cluster: Cluster) -> None:
    """Have every node read what this process writes at `location`; nothing to do on a single node.

    Raises:
        ClusterError: A node does not see it.
    """
    names = [node.name for node in cluster.nodes]
    if len(names) < 2:
        return
    place, key, nonce = absolute(location), KEY + secrets.token_hex(8), secrets.token_bytes(16)
    objects = open_objects(place)
    objects.put(key, nonce)
    try:
        blind = _blind_nodes(place, key, nonce, names)
    finally:
        objects.delete(key)
    if blind:
        name, reason = blind[0]
        raise ClusterError(
            f"{str(location)!r} is not shared: {len(blind)} of {len(names)} nodes do not see what the driver writes "
            f"there (node {name}: {reason}). {REMEDY}"
        )


def unseen(location: Location) -> ClusterError:
    """What a process says that was sent to work on a store and does not find it."""
    return ClusterError(
        f"{str(location)!r} is not shared: {socket.gethostname()}, which joined the run, does not see the store that "
        f"the driver made there. {REMEDY}"
    )


def reads(location: Location, key: str, nonce: bytes) -> str | None:
    """Whether this process finds the nonce; None if it does, else why not."""
    try:
        found = open_objects(location).get(key)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    if found is None:
        return "nothing there"
    return None if found.data == nonce else "other content"


def _blind_nodes(place: Location, key: str, nonce: bytes, names: Sequence[str]) -> list[tuple[str, str]]:
    """Nodes that answered, and not with the nonce; and what they said."""
    questions = {
        ray.remote(reads)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))
        .remote(place, key, nonce): name
        for name in names
    }
    answered, _ = ray.wait(list(questions), num_returns=len(questions), timeout=WAIT_SECONDS)
    said = [(questions[one], _answer(one)) for one in answered]
    return [(name, reason) for name, reason in said if reason is not None]


def _answer(reference: "ray.ObjectRef[str | None]") -> str | None:
    try:
        answer: str | None = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = cause_of(error)
        return f"{type(cause).__name__}: {cause}"
    except ray.exceptions.RayError:
        return None  # the node is gone
    return answer
