"""Do other libraries read our autoencoders as we do, and do we read theirs as they do? Each library judges.

    python benchmarks/sae_oracles.py                                    # make oracles; about three minutes

For every format: the library saves an autoencoder of each architecture and encodes rows; we read the folder and must
get the same codes and reconstructions. Then we write every kind that the matrix allows, the library loads it, and must
get what we get. Differences are the largest ones, divided by the largest value; above BAR the command fails.

Everything the libraries wrote and found goes to tests/exchange/golden, which the everyday tests compare with.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_environments import Absent, environment, last_line
from safetensors.numpy import save_file
from store_pairs import say

from lrh_ray.exchange.folders import codec, import_folder
from lrh_ray.exchange.kinds import ReadAs
from lrh_ray.exchange.matrix import EXPORTS, TRANSCODER_EXPORTS, Format
from lrh_ray.exchange.record import TENSORS, Exchanged

FORMATS: dict[str, tuple[Format, ...]] = {
    "sae-lens": ("saelens",),
    "sparsify": ("sparsify",),
    "dictionary-learning": ("dictionary_learning",),
    "llamascopium": ("openmoss",),
    "gemma-scope": ("gemma_scope", "gemma_scope_2"),
}
"""Formats of each library."""

GOLDEN = Path("tests/exchange/golden")
INSIDE = Path("benchmarks/sae_oracle_inside.py")
COMMAND = "make oracles"
BAR = 1e-6
SECONDS = 600
ROWS, D, M, K = 16, 8, 24, 3
KINDS: tuple[ReadAs, ...] = ("topk", "threshold", "relu", "gated", "jumprelu")
TRANSCODERS = (
    *("topk_transcoder", "topk_skip_transcoder", "relu_transcoder", "relu_skip_transcoder"),
    *("threshold_transcoder", "jumprelu_skip_transcoder"),
)
"""A kind, and how it is wired; TopK ones write the width they read, which is all that sparsify has, others 6."""


def rows_of() -> np.ndarray:
    return (1.5 * np.random.default_rng(0).standard_normal((ROWS, D)) + 0.3).astype(np.float32)


def kind_of(name: str) -> ReadAs:
    return next(kind for kind in KINDS if name.startswith(kind))


def ours_of(name: str) -> Exchanged:
    """An autoencoder or a transcoder as it is trained here: decoder rows of length 1, all else free."""
    kind, transcodes = kind_of(name), name in TRANSCODERS
    noise = np.random.default_rng(1 + (*KINDS, *TRANSCODERS).index(name))
    written = 6 if transcodes and kind != "topk" else D
    shapes = {"encoder": (M, D), "decoder": (M, written), "decoder_bias": (written,)}
    shapes |= {"input_offset": (D,), "skip": (written, D)}
    more = ("input_offset", *(("skip",) if "skip" in name else ())) if transcodes else ()
    tensors = {name: noise.standard_normal(shapes.get(name, (M,))) for name in (*TENSORS[kind], *more)}
    scaled = {name: t * (D**-0.5 if t.ndim == 2 else 0.3) for name, t in tensors.items()}
    scaled["decoder"] /= np.linalg.norm(scaled["decoder"], axis=1, keepdims=True)
    if kind == "jumprelu":
        scaled["log_threshold"] -= 1
    return Exchanged(
        kind=kind,
        tensors={name: t.astype(np.float32) for name, t in scaled.items()},
        k=K if kind in ("topk", "threshold") else None,
        threshold=float(np.float32(0.4)) if kind == "threshold" else None,
        site="resid.13",
        writes="mlp_out.14" if transcodes else None,
        model="tiny",
    )


def inside(library: str, act: str, folder: Path, rows: Path) -> dict[str, str]:
    """Let the library work; its versions."""
    python = environment("sae-lens" if library == "gemma-scope" else library)
    command = [str(python), str(INSIDE), library, act, "--rows", str(rows), "--folder", str(folder)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=offline)
    if done.returncode:
        raise Absent(f"{library} cannot {act}: {last_line(done.stderr)}")
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(exchanged: Exchanged, rows: np.ndarray, codes: np.ndarray, reconstructions: np.ndarray) -> float:
    """The largest difference, over the largest value."""
    reader = exchanged.reader()
    with torch.no_grad():
        own = reader.codes(torch.from_numpy(rows))
        back = reader.decode(own, torch.from_numpy(rows)).numpy()
    theirs = codes if exchanged.code_scale is None else codes * exchanged.code_scale
    return max(
        float(np.abs(found - wanted).max() / np.abs(wanted).max())
        for found, wanted in ((own.numpy(), theirs), (back, reconstructions))
    )


def imported(library: str, work: Path, rows: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Differences of what the library saved, by name; golden files are written."""
    folder = work / "made" / library
    versions = inside(library, "make", folder, rows)
    told = np.load(folder / "outputs.npz")
    found = {
        place.name: compare(
            import_folder(place), rows_of(), told[f"{place.name}/codes"], told[f"{place.name}/reconstructions"]
        )
        for place in sorted(path for path in folder.iterdir() if path.is_dir())
    }
    keep(folder, GOLDEN / "import" / library)
    return found, versions


def exported(library: str, form: Format, work: Path, rows: Path) -> dict[str, float]:
    """Differences of what the library reads of ours, by kind; golden files are written."""
    folder = work / "written" / form
    names: list[str] = [kind for kind in KINDS if EXPORTS[form][kind].verdict != "refused"]
    names += [name for name in TRANSCODERS if TRANSCODER_EXPORTS[form][kind_of(name)].verdict != "refused"]
    for name in names:
        codec(form).write(ours_of(name), folder / name)
    inside(library, "read", folder, rows)
    told = np.load(folder / "outputs.npz")
    found: dict[str, float] = {
        name: compare(ours_of(name), rows_of(), told[f"{name}/codes"], told[f"{name}/reconstructions"])
        for name in names
    }
    keep(folder, GOLDEN / "export" / form)
    return found


def keep(folder: Path, golden: Path) -> None:
    """A folder among the golden files, its outputs as safetensors."""
    shutil.rmtree(golden, ignore_errors=True)
    shutil.copytree(folder, golden, ignore=shutil.ignore_patterns("outputs.npz"))
    with np.load(folder / "outputs.npz") as told:
        save_file({name: np.ascontiguousarray(told[name]) for name in told.files}, golden / "outputs.safetensors")


def keep_ours() -> None:
    """Rows and our autoencoders, for the everyday tests."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    names = (*KINDS, *TRANSCODERS)
    tensors = {f"{name}/{key}": tensor for name in names for key, tensor in ours_of(name).tensors.items()}
    save_file({"rows": rows_of(), **tensors}, GOLDEN / "ours.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FORMATS, action="append", help="libraries; all if none is named")
    options = parser.parse_args()
    keep_ours()
    facts_file = GOLDEN / "facts.json"
    facts: dict[str, Any] = json.loads(facts_file.read_text()) if options.only and facts_file.exists() else {}
    facts |= {"command": COMMAND, "bar": BAR}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        np.savez(work / "rows.npz", rows=rows_of())
        for library in options.only or FORMATS:
            say(library)
            found, versions = imported(library, work, work / "rows.npz")
            say(f"  import {found}")
            sent = {form: exported(library, form, work, work / "rows.npz") for form in FORMATS[library]}
            say(f"  export {sent}")
            facts[library] = {"versions": versions, "import": found, "export": sent}
    facts_file.write_text(json.dumps(facts, indent=1) + "\n")
    worst = max(
        difference
        for library in options.only or FORMATS
        for table in (facts[library]["import"], *facts[library]["export"].values())
        for difference in table.values()
    )
    say(f"largest difference {worst:.2e}, bar {BAR:.0e}")
    if not worst <= BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
