"""A cluster without nodes whose autoscaler starts them when somebody waits for a place: what a test of demand runs on.

    with autoscaled_cluster(cpus=1, most=2, idle_seconds=6) as address:
        with connected(address): ...

Ray's own autoscaler runs, with Ray's provider of "machines" that are raylets of this one. Ray's ready-made
`AutoscalingCluster` begins and ends with `ray stop`, which ends every Ray of the machine; this one knows its processes
by the folder it gave them.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from lrh_ray.runtime.cluster import TOKEN_BYTES
from lrh_ray.testing.simulated import SETTINGS, STORE_BYTES

HEAD = "f" * 51 + "00000"  # the name that the provider knows its head by
EVERY_SECOND = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
LOCAL = "127.0.0.1"


@contextlib.contextmanager
def autoscaled_cluster(*, cpus: int, most: int, idle_seconds: float) -> Iterator[str]:
    """The address of a head without CPUs; nodes of `cpus` CPUs come on demand, up to `most`, and go when idle."""
    folder = Path(tempfile.mkdtemp(prefix="lrh-as-", dir="/tmp"))  # short: it holds sockets
    before = dict(os.environ)
    os.environ.update(SETTINGS, RAY_AUTH_TOKEN=secrets.token_hex(TOKEN_BYTES))
    address = f"{LOCAL}:{_free_port()}"
    try:
        _start(folder, address, _scaling(address, cpus, most, idle_seconds))
        yield address
    finally:
        _end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)


def _scaling(address: str, cpus: int, most: int, idle_seconds: float) -> dict[str, object]:
    """The configuration of Ray's autoscaler."""
    return {
        "cluster_name": "autoscaled",
        "max_workers": most,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "head_node_id": HEAD,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": cpus, "object_store_memory": STORE_BYTES},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


def _start(folder: Path, address: str, scaling: dict[str, object]) -> None:
    (config := folder / "autoscaler.json").write_text(json.dumps(scaling))
    port = address.rpartition(":")[2]
    options = {
        "--port": port,
        "--node-ip-address": LOCAL,
        "--num-cpus": "0",
        "--object-store-memory": str(STORE_BYTES),
        "--include-dashboard": "false",
        "--temp-dir": str(folder / "ray"),
        "--autoscaling-config": str(config),
    }
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head"]
    command += [f"{name}={value}" for name, value in options.items()]
    started = subprocess.run(command, env={**os.environ, **EVERY_SECOND}, capture_output=True, text=True, check=False)  # noqa: S603
    if started.returncode:
        raise RuntimeError(started.stdout + started.stderr)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def _end_processes_of(folder: Path) -> None:
    """Kill every process that has the cluster's folder among its arguments, and those that they started."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and str(folder) in " ".join(process.cmdline()):
                found |= {process, *process.children(recursive=True)}
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=10)
