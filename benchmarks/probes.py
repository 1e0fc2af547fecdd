"""Exact probes against scikit-learn, and their Gram pass against the bare matrix product, in one process.

    python benchmarks/probes.py --json benchmarks/results/probes.json       # about five minutes on 2 cores

A hundred logistic probes (20 concepts, 5 penalties) of rows with a power-law spectrum, three massive dimensions and
imbalanced concepts. scikit-learn's newton-cholesky fits the same hundred one after the other.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from store_machine import machine_facts
from threadpoolctl import threadpool_limits

from lrh_ray.analyses.logistic import LogisticProblem, run_in_memory
from lrh_ray.analyses.moments import LabelledMoments
from lrh_ray.analyses.state import merge_tree
from lrh_ray.analyses.tiles import TILE_ROWS

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
PASSES, GRADIENT, COEFFICIENTS, FASTER, GRAM = 20, 1e-8, 1e-7, 30.0, 1.25
BLOCK = 8192
REPEATS = 5


def synthetic(rows: int, features: int, concepts: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, D] float64 and labels [N, C]; logits spread over a standard deviation of 3, offsets from -3 to 1."""
    rng = np.random.default_rng(1)
    q, _ = np.linalg.qr(rng.normal(size=(features, features)))
    scale = 1 / np.arange(1, features + 1) ** 0.9
    x = (rng.normal(size=(rows, features)) * scale) @ q.T
    x[:, :3] += np.array([30.0, -12.0, 8.0]) + 5 * rng.normal(size=(rows, 3))
    z = (x - x.mean(axis=0)) @ (q @ (rng.normal(size=(features, concepts)) / np.sqrt(scale)[:, None]))
    z = 3 * z / z.std(axis=0) + rng.uniform(-3, 1, concepts)
    return x, (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(np.float64)


def probes(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Ours and scikit-learn's, on the same rows."""
    members, populations = np.ones((len(x), 1), bool), np.zeros(y.shape[1], np.int64)
    slices = [slice(first, first + BLOCK) for first in range(0, len(x), BLOCK)]
    taken = []
    for _ in range(REPEATS):  # a second or two each, which one hiccup of the machine would double
        started = time.perf_counter()
        shift = x[:BLOCK].mean(axis=0)
        moments = merge_tree(LabelledMoments.of(x[s], shift, y[s], members[s], populations) for s in slices).finalize()
        problem = LogisticProblem(moments=moments, penalties=np.tile(PENALTIES, (y.shape[1], 1)))
        fit = run_in_memory(problem, [(x[s], members[s]) for s in slices])
        taken.append(time.perf_counter() - started)
    ours = float(np.median(taken))
    differences, theirs = [], 0.0
    for j, column in enumerate(fit.readout.columns):
        penalty = fit.readout.regularisation[j]
        peer = LogisticRegression(C=1 / (penalty * len(x)), solver="newton-cholesky", tol=1e-9, max_iter=100)
        started = time.perf_counter()
        peer.fit(x, y[:, column])
        theirs += time.perf_counter() - started
        w = peer.coef_[0]
        differences.append(float(np.linalg.norm(fit.readout.weights[:, j] - w) / np.linalg.norm(w)))
    return {
        "rows": len(x),
        "features": x.shape[1],
        "probes": len(differences),
        "passes": fit.passes,
        "gram_passes": 1,
        "largest_gradient": float(fit.raw_gradient.max()),
        "largest_certificate": float(fit.certificate.max()),
        "largest_difference": max(differences),
        "seconds": round(ours, 2),
        "scikit_learn_seconds": round(theirs, 2),
        "faster": round(theirs / ours, 1),
    }


def gram(rows: int, features: int, concepts: int, pairs: int, threads: int) -> dict[str, Any]:
    """The fast Gram pass of one block of float32 rows, with labels and counts, over the product of the same tiles."""
    with threadpool_limits(threads):
        return {"threads": threads, **_gram(rows, features, concepts, pairs)}


def _gram(rows: int, features: int, concepts: int, pairs: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    y = (rng.random((rows, concepts)) < 0.3).astype(np.float64)
    members, populations = np.ones((rows, 1), bool), np.zeros(concepts, np.int64)
    shift = x[:1000].astype(np.float64).mean(axis=0)

    def product() -> None:
        for first in range(0, rows, TILE_ROWS):
            tile = x[first : first + TILE_ROWS]
            tile.T @ tile  # its time is what is wanted

    def ours() -> None:
        LabelledMoments.of(x, shift, y, members, populations, "fast")

    seconds: list[list[float]] = []
    for pair in range(pairs + 1):
        times = []
        for run in (product, ours):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        if pair:
            seconds.append(times)
    ratios = sorted(own / bare for bare, own in seconds)
    return {
        "rows": rows,
        "features": features,
        "concepts": concepts,
        "ratio": round(ratios[len(ratios) // 2], 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=25)
    options = parser.parse_args()
    fitted = probes(*synthetic(options.rows, options.features, options.concepts))
    # a task of `reduce` has one CPU; two threads are shown beside it
    products = [
        gram(65_536, features, options.concepts, options.pairs, threads)
        for threads in (1, 2)
        for features in (576, 2048)
    ]
    shown = {
        f"at most {PASSES} passes and one for the Gram": fitted["passes"] <= PASSES,
        f"every gradient component at most {GRADIENT}": fitted["largest_gradient"] <= GRADIENT,
        f"coefficients within {COEFFICIENTS} of newton-cholesky": fitted["largest_difference"] <= COEFFICIENTS,
        f"at least {FASTER:.0f} times as fast": fitted["faster"] >= FASTER,
        f"Gram, labels and counts at most {GRAM} times the product": all(
            one["ratio"] <= GRAM for one in products if one["threads"] == 1
        ),
    }
    facts = {"machine": machine_facts(), "shown": shown, "probes": fitted, "gram": products}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({"probes": fitted, "gram": [one["ratio"] for one in products]}, indent=1))
    for name, met in shown.items():
        print(f"{'shown' if met else 'NOT SHOWN'}: {name}")
    if not all(shown.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
