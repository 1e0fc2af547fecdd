"""Golden files of `make oracles`, and autoencoders to write."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from lrh_ray.exchange.matrix import EXPORTS, TRANSCODER_EXPORTS
from lrh_ray.exchange.record import Exchanged

GOLDEN = Path(__file__).parent / "golden"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
OURS = load_file(GOLDEN / "ours.safetensors")
ROWS = OURS["rows"]
K, THRESHOLD = 3, float(np.float32(0.4))
KINDS = ("topk", "threshold", "relu", "gated", "jumprelu")
TRANSCODERS = tuple(sorted({name.partition("/")[0] for name in OURS if "transcoder" in name}))
LIBRARIES = tuple(name for name in FACTS if isinstance(FACTS[name], dict))

CLOSE = 1e-6
"""Of the largest value: products of float32 are summed in another order, and folded numbers rounded once more."""


def ours(name, **changes):
    """The autoencoder or transcoder that the libraries were shown."""
    kind, wiring = kind_of(name), {"writes": "mlp_out.14"} if name in TRANSCODERS else {}
    tensors = {key.partition("/")[2]: tensor for key, tensor in OURS.items() if key.startswith(f"{name}/")}
    settings = {"topk": {"k": K}, "threshold": {"k": K, "threshold": THRESHOLD}}.get(kind, {})
    own = {"kind": kind, "tensors": tensors, "site": "resid.13", "model": "tiny", **settings, **wiring}
    return Exchanged(**{**own, **changes})


def kind_of(name):
    return name.partition("_")[0]


def fate(form, name):
    """What becomes of it in a format."""
    return (TRANSCODER_EXPORTS if name in TRANSCODERS else EXPORTS)[form][kind_of(name)]


def read_rows(exchanged, rows=ROWS):
    """Codes and reconstructions."""
    reader = exchanged.reader()
    with torch.no_grad():
        codes = reader.codes(torch.tensor(rows))
        return codes.numpy(), reader.decode(codes, torch.tensor(rows)).numpy()


def close(found, wanted):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()
    assert np.array_equal(found != 0, wanted != 0)  # the same latents fire


def judged():
    """What the libraries found, as a table."""
    lines = ["| library | version | read from it | written for it |", "|---|---|---|---|"]
    for library in LIBRARIES:
        about = FACTS[library]
        package = next(name for name in about["versions"] if name != "torch")
        sent = max(value for table in about["export"].values() for value in table.values())
        name = library if library != "gemma-scope" else "Gemma Scope, by SAELens' loaders"
        read = max(about["import"].values())
        lines.append(f"| {name} | {about['versions'][package]} | {read:.1e} | {sent:.1e} |")
    return "\n".join(lines) + "\n"
