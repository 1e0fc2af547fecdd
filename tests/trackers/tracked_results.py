"""A result with curves, intervals, controls, and names and numbers that trackers refuse."""

import math

import numpy as np

from lrh_ray.records import Measure, Result, Table

STEPS = (0, 5, 10)
NAMES = ("topk", "matryoshka groups (0.5, 1.0)")


def curves() -> np.ndarray:
    found = np.arange(12.0).reshape(2, 3, 2) + 0.5
    found[0, 1, 1] = math.nan
    return found


def tracked_result(title: str = "Autoencoders") -> Result:
    measures = [
        Measure(
            name="fvu",
            value=0.25 + number / 4,
            unit="",
            keys={"site": "resid.1", "layer": 1, "autoencoder": name},
            low=0.25,
            high=0.75,
            controls={"untrained": 0.875, "worst": math.inf},
        )
        for number, name in enumerate(NAMES)
    ]
    rows = tuple(
        ("resid.1", name, step, *curves()[number, point].tolist())
        for number, name in enumerate(NAMES)
        for point, step in enumerate(STEPS)
    )
    table = Table(name="training", description="", columns=("site", "autoencoder", "step", "loss", "l0"), rows=rows)
    return Result(
        kind="sae",
        title=title,
        summary=("At resid.1, topk leaves a quarter.",),
        asked={},
        resolved={"latents": 64, "kinds": [{"kind": "topk"}], "rate": None, "nested": {"seed": 0}},
        inputs={"store": "f00d"},
        measures=tuple(measures),
        tables=(table,),
        arrays={"training": curves()},
    )


SERIES = {
    f"training/{fact}/resid.1/{name}": [
        (step, float(curves()[number, point, column]))
        for point, step in enumerate(STEPS)
        if math.isfinite(curves()[number, point, column])
    ]
    for number, name in enumerate(("topk", "matryoshka_groups__0.5__1.0_"))
    for column, fact in enumerate(("loss", "l0"))
}
FINALS = {
    f"fvu/resid.1/{name}{suffix}": value
    for name, own in (("topk", 0.25), ("matryoshka_groups__0.5__1.0_", 0.5))
    for suffix, value in (("", own), ("/low", 0.25), ("/high", 0.75), ("/untrained", 0.875))
}
"""All of them are exact in float32, which is what TensorBoard keeps."""
