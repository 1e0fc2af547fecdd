"""A realistic result of probes, made of arithmetic: 12 concepts, 8 sites, 3 probes, 3 metrics, with controls."""

import math

import numpy as np

from lrh_ray.records import Measure, Result, Scalar, Table

SITES = (*((f"resid.{layer}", layer) for layer in (0, 5, 10, 15, 20, 25, 30)), ("final_norm", None))
PROBES = {"logistic": 0.0, "lda": 0.012, "ridge": 0.021}  # how much worse each is
CONCEPTS = {
    # name: (its highest auc, the layer of its peak, share of positives)
    "inside parentheses": (0.993, 12, 0.09),
    "number": (0.999, 2, 0.05),
    "capitalised word": (0.986, 4, 0.18),
    "first of sentence": (0.962, 9, 0.06),
    "inside quotes": (0.941, 16, 0.11),
    "documents networking": (0.905, 22, 0.22),
    "documents text processing": (0.872, 20, 0.25),
    "documents concurrency": (0.851, 24, 0.14),
    "imperative verb": (0.823, 14, 0.04),
    "names a country": (0.774, 18, 0.01),
    "deprecated interface": (0.652, 25, 0.03),
    "even line number": (0.514, 15, 0.50),
}
FLAG = "condition number 3e+09: predictions hold, coefficients do not"
STORE_ROOT = "5f2d9c6a1b7e4380a1c2d3e4f5061728"


def wobble(*parts: object) -> float:
    """A number in [-1, 1] that depends on the text of the parts only."""
    seed = sum((index + 1) * ord(letter) for index, letter in enumerate(repr(parts)))
    return math.sin(seed * 12.9898)


def auc_measure(concept: str, site: str, layer: int | None, probe: str) -> Measure:
    highest, peak, share = CONCEPTS[concept]
    depth = 31 if layer is None else layer
    distance = (depth - peak) / (11 if depth < peak else 34)
    height = (highest - 0.5) * math.exp(-(distance**2) / 2) * (1 - 2 * PROBES[probe])
    value = min(0.5 + height + 0.006 * wobble(concept, site, probe), 0.9995)
    half = (0.004 + 0.004 / math.sqrt(share)) * (1.1 - (value - 0.5))
    null = 0.012 + 0.006 / math.sqrt(share)
    shuffled = 0.5 + 0.5 * null * wobble(probe, concept, site)
    ill_posed = layer == 30 and probe != "logistic" and concept.startswith("documents")
    return Measure(
        name="auc",
        value=value,
        unit="",
        keys={"concept": concept, "site": site, "probe": probe} | ({} if layer is None else {"layer": layer}),
        low=value - half,
        high=min(1.0, value + half),
        controls={"shuffled": shuffled, "null_low": 0.5 - null, "null_high": 0.5 + null},
        flags=(FLAG,) if ill_posed else (),
    )


def companions(auc: Measure) -> tuple[Measure, Measure]:
    """Accuracy and log-loss as they would stand beside an auc."""
    share = CONCEPTS[str(auc.keys["concept"])][2]
    majority = max(share, 1 - share)
    gain = 2 * (auc.value - 0.5)
    accuracy = majority + (1 - majority) * 0.93 * gain
    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    loss = entropy * (1.02 - 0.95 * gain)
    chance = {"majority": majority, "shuffled": majority - 0.01, "null_low": majority - 0.02}
    return (
        Measure(
            name="accuracy",
            value=accuracy,
            unit="",
            keys=auc.keys,
            low=accuracy - 0.006,
            high=min(1.0, accuracy + 0.006),
            controls={**chance, "null_high": majority + 0.01},
        ),
        Measure(
            name="log_loss",
            value=loss,
            unit="nats",
            keys=auc.keys,
            low=loss * 0.93,
            high=loss * 1.08,
            controls={"majority": entropy},
        ),
    )


def fake_measures() -> tuple[Measure, ...]:
    aucs = [auc_measure(concept, *site, probe) for concept in CONCEPTS for site in SITES for probe in PROBES]
    return tuple(measure for auc in aucs for measure in (auc, *companions(auc)))


def fake_tables() -> tuple[Table, ...]:
    facts = {"rows": 24576, "bytes": 226492416, "documents": 412, "model": "smollm2", "root": STORE_ROOT}
    names = [site for site, _ in SITES]
    strongest = list(CONCEPTS.items())[:5]
    return (
        table("store", "What was extracted.", "fact value", [tuple(fact) for fact in facts.items()]),
        table(
            "sites",
            "A sink is a row whose norm exceeds ten times the median of its site.",
            "site width rows bytes median_norm sinks",
            [(name, 576, 24576, 28311552, 148.2 + 3 * i, 31 - i) for i, name in enumerate(names)],
        ),
        table(
            "parity",
            "Relative distance of stored rows from a plain float32 forward pass.",
            "site p50 p99 max passed",
            [(name, 0.011 + 0.0004 * i, 0.029 + 0.001 * i, 0.041 + 0.001 * i, True) for i, name in enumerate(names)],
        ),
        table(
            "strongest",
            "The concepts that are read out best.",
            "concept site auc one_in",
            [(name, f"resid.{5 * (peak // 5)}", auc, round(1 / share)) for name, (auc, peak, share) in strongest],
        ),
        table("examples", "", "concept site score label before token after", example_rows()),
    )


def table(name: str, description: str, columns: str, rows: list[tuple[Scalar, ...]]) -> Table:
    return Table(name=name, description=description, columns=tuple(columns.split()), rows=tuple(rows))


def example_rows() -> list[tuple[Scalar, ...]]:
    lines = """
        inside parentheses|positive|Return an array of the given shape and type (the default is |float64|), with zeros
        inside parentheses|positive|the underlying socket is closed (see also |shutdown|, a hint to the peer) and cannot
        inside parentheses|positive|a tuple of three values (type, value, |traceback|)~where the last may be None
        inside parentheses|negative|closing the file. Note that ) is |ignored| by the lexer here, as it is everywhere
        number|positive|raises an error when fewer than |128| bytes are available at once, whatever the size
        number|positive|was added in version 3.|11| and replaces the older spelling
        number|negative|at least one of the |two| arguments must be given
        documents networking|positive|Create a connection to the |remote| host and return the socket object, once done
        documents networking|positive|the default timeout of |sockets| made here
    """.strip().splitlines()
    split = [line.strip().replace("~", "\n").split("|") for line in lines]
    return [(concept, "resid.10", 9.4 - 0.9 * i, *rest) for i, (concept, *rest) in enumerate(split)]


def fake_result(**changes: object) -> Result:
    controls = {"shuffles": 20, "level": "as labelled"}
    sites = [site for site, _ in SITES]
    asked = {"store": "runs/demo/store", "sites": sites, "probes": list(PROBES), "seed": 0, "controls": controls}
    solver = {"kind": "newton", "tolerance": 1e-9, "max_passes": None}
    fields = {
        "kind": "probe",
        "title": "Linear probes of 12 concepts in SmolLM2",
        "summary": (
            "Eleven of twelve concepts can be read linearly from the residual stream; the best, “number”, with an AUC "
            "of 0.997 (95 % interval 0.984 to 1.000) before the first layer.",
            "The control concept “even line number” stays close to the band of shuffled labels at every site.",
            "Concepts of the word peak in the first third of the model, concepts of the document in the last third.",
        ),
        "asked": asked,
        "resolved": {**asked, "rows": 24576, "held_out": 0.25, "penalties": [0.01, 0.1, 1.0], "solver": solver},
        "inputs": {"store": STORE_ROOT, "labels": "90ab12cd34ef56789012345678901234"},
        "measures": fake_measures(),
        "tables": fake_tables(),
        "arrays": {"coefficients": np.arange(12.0).reshape(3, 4)},
        "provenance": {
            "command": "lrh fit configs/demo.yaml --set seed=0",
            "seconds": 83.4,
            "versions": {"lrh_ray": "0.1.0", "torch": "2.13.0", "numpy": "2.4.0", "zarr": "3.1.6"},
        },
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]
