"""What takes longer than the everyday tests: kills, calibration of the null, agreement with scikit-learn on SmolLM2.

python benchmarks/prove_spine.py --json benchmarks/results/prove_spine.json
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
from killing import kill
from scipy.stats import binom
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from lrh_ray.analyses.lda import fit_lda
from lrh_ray.analyses.logistic import LogisticProblem, run_in_memory
from lrh_ray.analyses.moments import LabelledMoments, absolute_penalties
from lrh_ray.analyses.ridge import fit_ridge
from lrh_ray.analyses.state import merge_tree
from lrh_ray.artifacts import load_result
from lrh_ray.models.tiny import make_tiny
from lrh_ray.runtime.cluster import connected
from lrh_ray.store.objects import absolute
from lrh_ray.store.reader import open_store
from lrh_ray.studies.demo import demo_config
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.probe_design import make_design
from lrh_ray.studies.probe_passes import Rowset, training_rows
from lrh_ray.studies.probing import probe

Facts = dict[str, Any]
LRH = str(Path(sys.executable).with_name("lrh"))
LONG_SECONDS = 8.0


def kills(folder: Path, number: int, seed: int) -> Facts:
    """SIGKILL driver or worker at random moments, `number` times; the same command must then finish the store."""
    make_tiny("llama", folder / "model", layers=8, hidden=128)
    rng = random.Random(seed)
    lines = [json.dumps({"text": f"{i} " + "many words of text " * rng.randint(4, 11)}) for i in range(900)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "run.yaml").write_text(
        f"name: undisturbed\nruns: {folder}/runs\n"
        "text: {sources: [{kind: jsonl, path: corpus.jsonl}]}\n"
        f"model: {{name: {folder}/model, batch_tokens: 512}}\n"
        f'store: {{sites: ["resid.*", final_norm], min_blocks: 60}}\npool: {{replicas: 2, cpus: 1}}\n'
    )
    expected = _finish(folder, "undisturbed")
    roots, killed, resumed = [], {"driver": 0, "worker": 0}, []
    name = "chaos-0"
    while sum(killed.values()) < number:
        victim = "driver" if sum(killed.values()) % 2 else "worker"
        run = _start(folder, name)
        before = _committed(folder, name)
        if _kill(run, victim, before, folder, name, rng):
            killed[victim] += 1
        output = run.communicate()[0]
        resumed.append(_committed(folder, name) - before)
        if run.returncode == 0:  # a killed worker's block was retried and the run finished by itself
            roots.append(json.loads(output)["root"])
            name = f"chaos-{len(roots)}"
    roots.append(_finish(folder, name)["root"])
    return {
        "kills": killed,
        "blocks": expected["blocks"],
        "stores": len(roots),
        "roots_equal": all(root == expected["root"] for root in roots),
        "blocks_committed_between_kills": resumed,
        "litter": sum(len(list((folder / "runs").glob(f"{run}/store/staging/*"))) for run in ("chaos-*",)),
    }


def _start(folder: Path, name: str) -> subprocess.Popen[str]:
    arguments = [LRH, "extract", str(folder / "run.yaml"), "--set", f"name={name}", "--json"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _finish(folder: Path, name: str) -> Facts:
    run = _start(folder, name)
    facts: Facts = json.loads(run.communicate()[0])
    return facts


def _committed(folder: Path, name: str) -> int:
    return len(list((folder / "runs" / name / "store").glob("commits/*/*.json")))


def _kill(run: subprocess.Popen[str], victim: str, before: int, folder: Path, name: str, rng: random.Random) -> bool:
    """Wait for work to begin, then a random while, then kill; False if the run was over before."""
    if victim == "driver" and rng.random() < 0.3:
        time.sleep(rng.uniform(0, LONG_SECONDS))  # also while planning, starting or loading
    else:
        while _committed(folder, name) <= before and run.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.5))
    if run.poll() is not None:
        return False
    return kill(run, victim, "_Host", rng)


def calibration(runs: str, seeds: int) -> Facts:
    """Over seeds of split and shuffle, how often any shuffled control of a SmolLM2 store leaves its band."""
    rejected, largest = [], []
    for seed in range(seeds):
        overrides = [f"probe.seed={seed}", "probe.penalties=[0.1, 1.0]", "probe.draws=999", "probe.tolerance=1e-6"]
        result = load_result(probe(demo_config("tiny", runs=runs, overrides=overrides)))
        outside = next(m for m in result.measures if m.name == "shuffled_outside_band")
        deviation = next(m for m in result.measures if m.name == "largest_null_deviation")
        rejected.append(outside.value > 0)
        largest.append([deviation.value, deviation.controls["critical"]])
    low, high = (int(bound) for bound in binom.interval(0.95, seeds, 0.05))
    return {
        "seeds": seeds,
        "families_rejected": int(sum(rejected)),
        "binomial_95_interval_of_5_percent": [low, high],
        "within": bool(low <= sum(rejected) <= high),
        "largest_and_critical": largest,
    }


def agreement(runs: str) -> Facts:
    """Solvers against scikit-learn on SmolLM2's rows, and states merged in any split."""
    store = open_store(demo_config("tiny", runs=runs).store_location)
    design = make_design(store, store.labels(), ProbeConfig())
    rowset = Rowset(location=absolute(store.location), labels="corpus", design=design, digest="prove")
    facts: Facts = {}
    for site in store.sites:
        parts = [training_rows(rowset, site, block) for block in range(store.plan.num_blocks)]
        rows = np.concatenate([part[0] for part in parts]).astype(np.float64)
        labels, members = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
        shift = rows.mean(axis=0)
        states = [LabelledMoments.of(p[0], shift, p[1], p[2], design.populations) for p in parts]
        moments = merge_tree(states).finalize()
        penalties = absolute_penalties(moments, [0.01, 1.0])
        problem = LogisticProblem(moments=moments, penalties=penalties, names=design.names)
        fit = run_in_memory(problem, [(p[0], p[2]) for p in parts], tolerance=1e-9, max_passes=400)
        ridge, lda = fit_ridge(moments, penalties), fit_lda(moments, 0.1)
        worst = {"logistic_probability": 0.0, "ridge_score": 0.0, "lda_probability": 0.0}
        for c, column in enumerate(design.columns):
            own = members[:, column.population]
            x, y = rows[own], labels[own, c]
            for k in range(2):
                oracle = LogisticRegression(C=1 / (penalties[c, k] * len(x)), solver="newton-cholesky", tol=1e-11)
                oracle.set_params(max_iter=500).fit(x, y)
                ours = 1 / (1 + np.exp(-fit.readout.scores(x)[:, 2 * c + k]))
                _note(worst, "logistic_probability", ours, oracle.predict_proba(x)[:, 1])
                exact = Ridge(alpha=penalties[c, k] * len(x), solver="cholesky").fit(x, y)
                _note(worst, "ridge_score", ridge.scores(x)[:, 2 * c + k], exact.predict(x))
            known = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(x, y)
            _note(worst, "lda_probability", 1 / (1 + np.exp(-lda.scores(x)[:, c])), known.predict_proba(x)[:, 1])
        backwards = merge_tree(states[::-1]).finalize()
        scale = np.abs(moments.covariance).max()
        facts[site] = {
            **worst,
            "condition": float(fit.condition.max()),
            "certificate": float(fit.certificate.max()),
            "merge_order_relative": float(np.abs(backwards.covariance - moments.covariance).max() / scale),
            "rows": len(rows),
        }
    return facts


def _note(worst: dict[str, float], name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    worst[name] = max(worst[name], float(np.abs(ours - theirs).max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    facts: Facts = {"machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "seed": options.seed}}
    with tempfile.TemporaryDirectory(prefix="prove-") as scratch:
        started = time.monotonic()
        facts["kills"] = kills(Path(scratch), options.kills, options.seed)
        print(json.dumps(facts["kills"]))
        with connected():
            extract(demo_config("tiny", runs=scratch), folder=Path.cwd())
            facts["calibration"] = calibration(scratch, options.seeds)
        print(json.dumps(facts["calibration"]))
        facts["agreement"] = agreement(scratch)
        facts["seconds"] = round(time.monotonic() - started)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts["agreement"], indent=1))
    agrees = all(site["logistic_probability"] <= 1e-6 for site in facts["agreement"].values())
    if not (facts["kills"]["roots_equal"] and facts["calibration"]["within"] and agrees):
        sys.exit(f"not shown; see {options.json}")


if __name__ == "__main__":
    main()
