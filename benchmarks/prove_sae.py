"""What takes longer than the everyday tests of autoencoders: kills, and every kind on a real model's rows.

python benchmarks/prove_sae.py --json benchmarks/results/prove_sae.json

A store of SmolLM2's `resid.15` of more than 200,000 tokens is made first. Then trainers and their workers are killed at
random steps, `--kills` times: the same command must end with the bits of a run that nobody disturbed, and with two
workers instead of one go on with its losses. At last every kind is trained, and measured on held-out documents.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from killing import kill

from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.artifacts import load_result
from lrh_ray.records import Result
from lrh_ray.store.reader import Store, open_store

Facts = dict[str, Any]
LRH = str(Path(sys.executable).with_name("lrh"))
SITE, LEAST_TOKENS = "resid.15", 200_000
FOLLOWED, TOLERANCE = 20, 1e-5
"""Steps after a change of workers whose losses are compared, and how nearly they agree."""
LARGE_GAMMA, SMALL_SHARE = 1e3, 1e-3
CONFIG = """\
name: {name}
runs: {runs}
text:
  sources: [{{kind: python-docs, max_characters: 1500, passages: first, limit: {documents}}}]
model: {{name: smollm2}}
store: {{sites: [resid.15], location: {runs}/store}}
"""
KINDS = (
    *("{kind: topk, k: 32}", "{kind: batchtopk, k: 32}", "{kind: matryoshka, k: 32}", "{kind: relu}"),
    *("{kind: p_anneal}", "{kind: structured}", "{kind: structured, rank: null}"),
    f"{{kind: structured, gamma: {LARGE_GAMMA}}}",
    *("{kind: gated}", "{kind: jumprelu}", "{kind: conca}"),
)
OF_KINDS = (
    *(f"sae.kinds=[{', '.join(KINDS)}]", "sae.latents=2048", "sae.steps=800", "sae.batch_rows=1024"),
    *("sae.checkpoints=1", "sae.splice_documents=20"),
)
OF_KILLS = (
    *("sae.kinds=[{kind: topk, k: 16}, {kind: batchtopk, k: 16}, {kind: p_anneal}]", "sae.latents=512"),
    *("sae.steps=150", "sae.batch_rows=512", "sae.checkpoints=30", "sae.dead_after=2000"),
)


def make_store(folder: Path, documents: int) -> Facts:
    """Hidden states of the middle of SmolLM2."""
    config = folder / "run.yaml"
    config.write_text(CONFIG.format(name="store", runs=folder, documents=documents))
    facts: Facts = json.loads(_lrh("extract", config, "extraction"))
    tokens = int(open_store(folder / "store").plan.num_rows)
    if tokens < LEAST_TOKENS:
        sys.exit(f"{tokens} tokens of {documents} documents; raise --documents")
    return {"tokens": tokens, "root": facts["root"]}


def _command(verb: str, config: Path, name: str, *settings: str) -> list[str]:
    return [LRH, verb, str(config), "--set", f"name={name}", "--json", *(f"--set={one}" for one in settings)]


def _lrh(verb: str, config: Path, name: str, *settings: str) -> str:
    done = subprocess.run(_command(verb, config, name, *settings), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lrh {verb} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _result(folder: Path, name: str) -> Result:
    (found,) = (folder / name / "results").iterdir()
    return load_result(found)


def kills(folder: Path, number: int, changes: int, seed: int) -> Facts:
    """SIGKILL trainer or worker at random steps; the same command must end with the same bits."""
    config, rng = folder / "run.yaml", random.Random(seed)
    _lrh("sae", config, "undisturbed", *OF_KILLS)
    expected = _result(folder, "undisturbed")
    killed: dict[str, int] = {"trainer": 0, "worker": 0}
    steps: list[int] = []
    equal: list[bool] = []
    while sum(killed.values()) < number:
        name = f"chaos-{len(equal)}"
        if _finish(folder, name, rng, killed, steps, number):
            equal.append(_same(_result(folder, name), expected))
    last = f"chaos-{len(equal)}"
    _lrh("sae", config, last, *OF_KILLS)
    equal.append(_same(_result(folder, last), expected))
    others = [_changed(folder, f"changed-{one}", rng, expected) for one in range(changes)]
    return {
        "kills": killed,
        "saved_steps_when_killed": steps,
        "runs": len(equal),
        "bit_equal": all(equal),
        "changed_workers": others,
    }


def _same(found: Result, expected: Result) -> bool:
    """Weights, densities, curves of every step, and all numbers."""
    arrays = found.arrays.keys() == expected.arrays.keys() and all(
        np.array_equal(array, expected.arrays[name], equal_nan=True) for name, array in found.arrays.items()
    )
    return arrays and [m.value for m in found.measures] == [m.value for m in expected.measures]


def _finish(folder: Path, name: str, rng: random.Random, killed: dict[str, int], steps: list[int], number: int) -> bool:
    """Run, and kill as often as the run gives occasion; True if it came to its end."""
    run = subprocess.Popen(
        _command("sae", folder / "run.yaml", name, *OF_KILLS), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    saved = _saved(folder, name)
    while run.poll() is None:
        if sum(killed.values()) >= number or not _wait(folder, name, saved, rng, run):
            break
        victim = "trainer" if rng.random() < 0.5 else "worker"
        if not kill(run, victim, "TrainWorker", rng):
            continue
        saved = _saved(folder, name)
        killed[victim] += 1
        steps.append(saved)
        print(json.dumps({"killed": victim, "saved": saved, "of": name}), flush=True)
    return run.wait() == 0


def _wait(folder: Path, name: str, saved: int, rng: random.Random, run: subprocess.Popen[bytes]) -> bool:
    """Until a checkpoint more than `saved` is there, and a random while longer; False if the run ends before."""
    while _saved(folder, name) <= saved:
        if run.poll() is not None:
            return False
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 2))
    return run.poll() is None


def _saved(folder: Path, name: str) -> int:
    """Steps of the last checkpoint of a run; -1 of none."""
    return max((int(path.name[5:]) for path in (folder / name / "training").glob("*/step-*")), default=-1)


def _changed(folder: Path, name: str, rng: random.Random, expected: Result) -> Facts:
    """Kill a run of one worker at a random step and go on with two; its losses beside those of the undisturbed run."""
    run = subprocess.Popen(
        _command("sae", folder / "run.yaml", name, *OF_KILLS), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait(folder, name, rng.randrange(0, 100), rng, run)
    run.kill()
    run.wait()
    saved, parts = _saved(folder, name), rng.choice([1, 2])
    _lrh("sae", folder / "run.yaml", name, *OF_KILLS, "sae.workers={workers: 2, cpus: 1}", f"sae.latent_parts={parts}")
    found, curves = _result(folder, name).arrays["training"], expected.arrays["training"]
    next_steps = slice(saved, saved + FOLLOWED)
    off = np.abs(found[:, next_steps, 0] / curves[:, next_steps, 0] - 1).max()
    facts = {"parts": parts, "from_step": saved, "largest_relative_difference": float(off)}
    print(json.dumps(facts), flush=True)
    return facts


def all_kinds(folder: Path) -> Facts:
    """Every kind on the same rows: what it leaves, with how many codes, and what the model loses by it."""
    started = time.monotonic()
    _lrh("sae", folder / "run.yaml", "kinds", *OF_KINDS)
    result = _result(folder, "kinds")
    found: dict[str, Facts] = {}
    for measure in result.measures:
        own = found.setdefault(str(measure.keys["autoencoder"]), {})
        own[measure.name] = {"value": measure.value, "interval": [measure.low, measure.high], **measure.controls}
    names = {
        "annealed": "p_anneal",
        "without_branch": next(name for name in found if "rank None" in name),
        "tight": next(name for name in found if f"gamma {LARGE_GAMMA}" in name),
    }
    return {
        "seconds": round(time.monotonic() - started),
        "kinds": found,
        "rows": [list(row) for table in result.tables if table.name == "rows" for row in table.rows],
        "rank_none_is_annealing": _equal_weights(result, names["annealed"], names["without_branch"]),
        "low_rank_share_at_large_gamma": _share_of_branch(open_store(folder / "store"), result, names["tight"]),
    }


def _weights(result: Result, name: str) -> dict[str, np.ndarray]:
    prefix = f"{SITE}/{name}/"
    return {key.removeprefix(prefix): array for key, array in result.arrays.items() if key.startswith(prefix)}


def _equal_weights(result: Result, one: str, other: str) -> bool:
    left, right = _weights(result, one), _weights(result, other)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def _share_of_branch(store: Store, result: Result, name: str) -> float:
    """|R| / |S| of the first block's rows."""
    tensors = {key: torch.from_numpy(array) for key, array in _weights(result, name).items() if "density" not in key}
    structured = Relu(tensors, PowerPenalty(weight=1.0), LowRank())
    kept = ~store.sink_mask(0)
    rows = torch.from_numpy(store.block_rows(SITE, 0)[kept].astype(np.float32))
    with torch.no_grad():
        sparse, low = structured.branches(rows)
    return float(low.norm() / sparse.norm()) if low is not None else float("nan")


def shown(facts: Facts) -> dict[str, bool]:
    """What the figures show."""
    disturbed, kinds = facts["kills"], facts["kinds"]["kinds"]
    family = [name for name in kinds if name.split()[0] in ("topk", "batchtopk", "matryoshka")]
    return {
        "killed runs end with the same bits": disturbed["bit_equal"],
        "with other workers the losses go on": all(
            one["largest_relative_difference"] <= TOLERANCE for one in disturbed["changed_workers"]
        ),
        "every kind explains more than its first weights": all(
            own["fvu"]["value"] < own["fvu"]["untrained"] for own in kinds.values()
        ),
        "TopK kinds leave less than principal components": all(
            kinds[name]["fvu"]["value"] < kinds[name]["fvu"]["principal_components"] for name in family
        ),
        "cross-entropy recovered is there": all("ce_recovered" in own for own in kinds.values()),
        "rank null is p-annealing bit for bit": facts["kinds"]["rank_none_is_annealing"],
        "at a large gamma no branch is left": facts["kinds"]["low_rank_share_at_large_gamma"] < SMALL_SHARE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--changes", type=int, default=4, help="Kills after which another number of workers goes on.")
    parser.add_argument("--documents", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    facts: Facts = {"machine": {"python": platform.python_version(), "cpus": os.cpu_count()}, "seed": options.seed}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prove-sae-") as scratch:
        folder = Path(scratch)
        facts["store"] = make_store(folder, options.documents)
        print(json.dumps(facts["store"]), flush=True)
        facts["kinds"] = all_kinds(folder)
        print(json.dumps(facts["kinds"]), flush=True)
        facts["kills"] = kills(folder, options.kills, options.changes, options.seed)
    facts["seconds"] = round(time.monotonic() - started)
    facts["shown"] = shown(facts)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    for claim, held in facts["shown"].items():
        print(f"{'shown' if held else 'NOT SHOWN'}: {claim}")
    if not all(facts["shown"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
