"""Both jobs through `ray job submit` on a token-authenticated cluster give the digests of the embedded run."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lrh_ray.models.tiny import make_tiny

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PORTS = (
    "--port=6479",
    "--dashboard-port=8465",
    "--ray-client-server-port=20471",
    "--dashboard-agent-listen-port=52471",
)
DASHBOARD = "http://127.0.0.1:8465"


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    make_tiny("llama", folder / "model")
    lines = [json.dumps({"id": f"d{i}", "text": f"entry {i} (a note) with {i * 13} items"}) for i in range(60)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "run.yaml").write_text(
        f"name: run\nruns: {folder}/cluster\ntext:\n  sources: [{{kind: jsonl, path: corpus.jsonl}}]\n"
        f"  concepts: [number, in_parentheses]\nmodel: {{name: {folder}/model}}\n"
        "store: {sites: [resid.0, resid.2]}\nprobe: {draws: 100}\n"
    )
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head started as the README says, with its own token; stopped by its process ids."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    temporary = Path(tmp_path_factory.mktemp("r")).resolve()
    short = Path("/tmp") / f"lrh{os.getpid()}"  # Ray's sockets need a short path
    short.symlink_to(temporary)
    head = subprocess.Popen(
        [
            RAY,
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            "--dashboard-host=127.0.0.1",
            f"--temp-dir={short}",
            *PORTS,
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = []
        for line in head.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        assert head.poll() is None, "".join(said)
        yield environment
    finally:
        head.terminate()
        head.communicate(timeout=60)
        short.unlink()


def submit(environment: dict[str, str], job: str, run_file: Path) -> str:
    """Submit and wait; a head that has just started needs some seconds until its agent takes jobs."""
    where = ["--address", DASHBOARD, "--working-dir", str(ROOT / "jobs")]
    for _ in range(12):
        done = subprocess.run(
            [RAY, "job", "submit", *where, "--", "python", job, str(run_file)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        if "No available agent" not in done.stderr:
            break
        time.sleep(5)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_submitted_jobs_give_the_digests_of_the_embedded_run(cluster, run_file):
    output = submit(cluster, "extract.py", run_file)
    root = re.search(r"root ([0-9a-f]{32})", output).group(1)
    result = Path(re.search(r"result (\S+)", submit(cluster, "fit.py", run_file)).group(1))
    lrh = str(Path(sys.executable).with_name("lrh"))
    embedded = ["--set", f"runs={run_file.parent}/embedded", "--json"]
    extracted = subprocess.run([lrh, "extract", str(run_file), *embedded], capture_output=True, text=True, timeout=240)
    fitted = subprocess.run([lrh, "fit", str(run_file), *embedded], capture_output=True, text=True, timeout=240)
    assert json.loads(extracted.stdout)["root"] == root
    assert Path(json.loads(fitted.stdout)["result"]).name == result.name
    bodies = [
        json.loads((place / "result.json").read_text())["result"]
        for place in (result, Path(json.loads(fitted.stdout)["result"]))
    ]
    assert [m["value"] for m in bodies[0]["measures"]] == [m["value"] for m in bodies[1]["measures"]]


def test_a_job_without_the_token_is_refused(cluster, run_file):
    strangers = {name: value for name, value in cluster.items() if not name.startswith("RAY_AUTH")}
    for environment in (strangers, strangers | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        done = subprocess.run(
            [RAY, "job", "list", "--address", DASHBOARD], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0


def test_the_rayjob_runs_the_jobs_that_exist_with_token_authentication():
    job = yaml.safe_load((ROOT / "cluster" / "kuberay" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"
    for path in re.findall(r"(?:jobs|configs)/\S+\.(?:py|yaml)", job["spec"]["entrypoint"]):
        assert (ROOT / path).exists()
