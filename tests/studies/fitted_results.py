"""Results whose weights a test chooses, so that it knows what they make of rows."""

import numpy as np

from lrh_ray.artifacts import save_result
from lrh_ray.config import as_plain
from lrh_ray.records import Measure, Result

SITE = "resid.1"


def directions(width, seed=3):
    """[width, width] orthonormal rows."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0].T


def weights_of(decoder):
    latents, width = decoder.shape
    return {
        "encoder": decoder.astype(np.float32),
        "encoder_bias": np.zeros(latents, np.float32),
        "decoder": decoder.astype(np.float32),
        "decoder_bias": np.zeros(width, np.float32),
    }


def sae_result(config, root, decoder, kinds, *, threshold=1.0, sinks="drop"):
    """A result of `lrh sae` whose autoencoders all have the directions of `decoder` [M, D]; saved, its folder."""
    arrays = {}
    for kind in kinds:
        arrays |= {f"{SITE}/{kind['kind']}/{key}": array for key, array in weights_of(decoder).items()}
        arrays[f"{SITE}/{kind['kind']}/density"] = np.zeros(len(decoder))
        if kind["kind"] == "batchtopk":
            arrays[f"{SITE}/{kind['kind']}/threshold"] = np.array([threshold])
    result = Result(
        kind="sae",
        title="Sparse autoencoders of a test",
        summary=(),
        asked=as_plain(config),
        resolved={"kinds": list(kinds), "sites": [SITE], "sinks": sinks},
        inputs={"store": root},
        measures=(),
        arrays=arrays,
    )
    return save_result(result, config.results_path)


def probe_result(config, root, weights, intercepts, concepts):
    """A result of `lrh fit` with these probes [K, D]; saved, its folder."""
    arrays = {"weights": weights, "intercepts": intercepts, "regularisation": np.ones(len(intercepts))}
    result = Result(
        kind="probe",
        title="Linear probes of a test",
        summary=(),
        asked=as_plain(config),
        resolved={},
        inputs={"store": root},
        measures=tuple(
            Measure(name="auc", value=0.9, unit="fraction", keys={"site": SITE, "probe": "logistic", "concept": name})
            for name in concepts
        ),
        arrays={f"{SITE}/logistic/{name}": array for name, array in arrays.items()}
        | {f"{SITE}/mlp/weights": np.zeros((2, 2))},
    )
    return save_result(result, config.results_path)
