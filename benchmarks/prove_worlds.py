"""The theorem's tests at full size: A0, exact; A1, trained; A2, the paper's figure; `prove_worlds_further` beyond.

python benchmarks/prove_worlds.py --json benchmarks/results/prove_worlds.json       # about fifteen minutes on 2 cores
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import prove_worlds_further as further
from scipy.stats import spearmanr
from store_machine import machine_facts

from lrh_ray.analyses.worlds import ConceptPrior, TokenWorld, chain, diversity, identity_error, random_graph, regime
from lrh_ray.studies.worlds import direct_test, masked_test, over_seeds, summarise

NOISES = (0.3, 0.1, 0.03, 0.01)
LEAST = {0.3: 0.80, 0.03: 0.93, 0.01: 0.95}
MINUTES = 12
BITS = (4, 5, 6, 7, 8, 9, 10)
GRAPHS = {4: 12, 6: 20}
"""Observed bits of random graphs, by their number of concepts."""
READ = ("probe", "ceiling", "raw")
SHARPNESS = ((0.5, 0.5), (0.5, 2.0), (0.5, 4.0), (1.0, 4.0), (2.0, 4.0))


def exact(seeds: int) -> dict[str, Any]:
    """A0: the identity, the rank and the regime of worlds of several kinds."""
    records = []
    for kind in ("chain", "ER2", "categorical"):
        for x, y in SHARPNESS:
            for seed in range(seeds):
                rng = np.random.default_rng([seed, 0])
                graph = random_graph(3, 2, rng) if kind == "ER2" else chain(2 if kind == "categorical" else 3)
                values = (3, 3) if kind == "categorical" else None
                prior = ConceptPrior.random(graph, rng, values)
                world = TokenWorld.random(prior, rng, sharpness=x, next_sharpness=y)
                here, found = regime(world), diversity(world)
                records.append(
                    {
                        "world": kind,
                        "sharpness": [x, y],
                        "seed": seed,
                        "identity_error": identity_error(world),
                        "rank": found.rank,
                        "configurations": len(prior.log_probabilities),
                        "largest_column_sum": found.largest_sum,
                        **{name: round(getattr(here, name), 4) for name in here.__dataclass_fields__},
                    }
                )
    return {
        "largest_identity_error": max(record["identity_error"] for record in records),
        "every_rank_is_one_less": all(record["rank"] == record["configurations"] - 1 for record in records),
        "largest_column_sum": max(record["largest_column_sum"] for record in records),
        "worlds": records,
    }


def figure(seeds: int) -> dict[str, Any]:
    """A2: accuracy over the number of bits, for a chain of three concepts and for random graphs of four and of six."""
    chains, rows = masked_test(BITS, seeds=seeds), []
    for num_bits in BITS:
        own = [trial for trial in chains if trial.num_bits == num_bits]
        rows.append({"bits": num_bits, **means(own, READ)})
    graphs = {
        concepts: {
            f"ER{edges}": means(masked_test([num_bits], seeds=3, num_concepts=concepts, edges_per_concept=edges), READ)
            for edges in (1, 2, 3)
        }
        for concepts, num_bits in GRAPHS.items()
    }
    return {"chain": rows, "random graphs": graphs}


def means(trials: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Mean and interval over seeds of each number."""
    return {name: over_seeds([getattr(trial, name) for trial in trials]) for name in names}


def verdicts_of_figure(a2: dict[str, Any]) -> dict[str, bool]:
    """What the issue asks of A2, by name."""
    rows = [{name: row[name]["mean"] for name in READ} for row in a2["chain"]]
    graphs = [
        [{name: row[name]["mean"] for name in READ} for row in own.values()] for own in a2["random graphs"].values()
    ]
    room = [row for own in (rows, *graphs) for row in own if row["ceiling"] - row["raw"] >= 0.08]
    spread = [max(row["probe"] for row in own) - min(row["probe"] for row in own) for own in graphs]
    return {
        "A2: accuracy rises with the bits": bool(spearmanr(BITS, [row["probe"] for row in rows]).statistic >= 0.9),
        "A2: probe >= ceiling - .03": all(row["probe"] >= row["ceiling"] - 0.03 for row in rows),
        "A2: probe - raw >= .05 where there is room": bool(room)
        and all(row["probe"] - row["raw"] >= 0.05 for row in room),
        "A2: random graphs differ by <= .05": max(spread) <= 0.05,
    }


def verdicts(a0: dict[str, Any], a1: list[dict[str, Any]]) -> dict[str, bool]:
    """What the issue asks of A0 and A1, by name."""
    logits = [row["logits"]["mean"] for row in a1]
    return {
        "A0: identity < 1e-9": a0["largest_identity_error"] < 1e-9,
        "A0: rank = configurations - 1": a0["every_rank_is_one_less"],
        "A0: columns sum to 0": a0["largest_column_sum"] < 1e-12,
        "A1: R^2 rises as the noise falls": all(a < b for a, b in pairwise(logits)),
        **{f"A1: R^2 >= {least} at {noise}": logits[NOISES.index(noise)] >= least for noise, least in LEAST.items()},
        "A1: |trained - population| <= .03": all(
            abs(row["logits"]["mean"] - row["population"]["mean"]) <= 0.03 for row in a1
        ),
        "A1: gap to the best control >= .25": all(
            row["features"]["mean"] - max(one["mean"] for one in row["controls"].values()) >= 0.25 for row in a1
        ),
        "A1: shuffled |R^2| < .01": all(abs(row["controls"]["shuffled rows"]["mean"]) < 0.01 for row in a1),
    }


def trained(seeds: int) -> list[dict[str, Any]]:
    """A1, summarised."""
    return summarise(direct_test(NOISES, seeds=seeds))


PARTS: dict[str, Callable[[int], Any]] = {
    "A1": trained,
    "A2": figure,
    "D": lambda _: further.spheres(),
    "E": lambda _: further.runs(),
    "F": lambda _: further.steering(),
    "G": lambda _: further.phases(),
    "A0": exact,
}
"""Each from the number of seeds; those beyond A2 have their own. A0 is last, for it is the longest to read."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    parts, seconds = {}, {}
    for name, part in PARTS.items():
        started = time.monotonic()
        parts[name] = part(options.seeds)
        seconds[name] = round(time.monotonic() - started)
        print(f"{name}: {seconds[name]} s", flush=True)
    a0, a1, a2 = parts["A0"], parts["A1"], parts["A2"]
    shown = (
        verdicts(a0, a1)
        | verdicts_of_figure(a2)
        | {f"A0, A1 and A2 within {MINUTES} minutes": sum(seconds[one] for one in ("A0", "A1", "A2")) <= 60 * MINUTES}
        | further.verdicts_of_spheres(parts["D"])
        | further.verdicts_of_runs(parts["E"])
        | further.verdicts_of_steering(parts["F"])
        | further.verdicts_of_phases(parts["G"])
    )
    facts = {"machine": machine_facts(), "seconds": seconds, "shown": shown, **parts}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    show(a0, a1, a2)
    further.show({name: parts[name] for name in "DEFG"})
    for name, met in shown.items():
        print(f"{'shown' if met else 'NOT SHOWN'}: {name}")
    if not all(shown.values()):
        sys.exit(1)


def show(a0: dict[str, Any], a1: list[dict[str, Any]], a2: dict[str, Any]) -> None:
    for row in a1:
        cells = [f"{name} {row[name]['mean']:.3f}" for name in ("population", "logits", "features", "divergence")]
        controls = ", ".join(f"{name} {value['mean']:.3f}" for name, value in row["controls"].items())
        print(f"noise {row['noise']}: {'; '.join(cells)}; controls: {controls}")
    for row in a2["chain"]:
        print(f"{row['bits']} bits: " + "; ".join(f"{name} {row[name]['mean']:.3f}" for name in READ))
    for concepts, graphs in a2["random graphs"].items():
        for kind, row in graphs.items():
            print(f"{kind}, {concepts} concepts: " + "; ".join(f"{name} {row[name]['mean']:.3f}" for name in READ))
    print(f"A0: identity within {a0['largest_identity_error']:.1e} in {len(a0['worlds'])} worlds")


if __name__ == "__main__":
    main()
