"""One peer in its own environment, against the bare forward of its own process; called by extract_peers.py.

    PEER_PYTHON benchmarks/extract_inside_peer.py nnsight --model FOLDER --tokens tokens.npy --layers 7 15 22 30

`tokens.npy` is [documents, tokens] int64, all of one block. A run saves the residual stream at `--layers` as each
peer's documentation says, and syncs the files. Prints one JSON record.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from store_pairs import Quiet, Side, measure
from transformers import AutoModel

Batches = Sequence[torch.Tensor]
Run = Callable[[Path], None]


def save(folder: Path, batch: int, states: dict[int, Any]) -> None:
    """One file per layer and batch; NumPy has no bfloat16, so its bits are saved."""
    for layer, state in states.items():
        rows = state.detach().to(torch.bfloat16).contiguous()
        np.save(folder / f"{batch}.{layer}.npy", rows.view(torch.int16).numpy())


def nnsight(options: argparse.Namespace, batches: Batches) -> Run:
    from nnsight import LanguageModel

    model = LanguageModel(options.model, dtype=options.dtype, dispatch=True)

    def run(folder: Path) -> None:
        for number, ids in enumerate(batches):
            states = {}
            with torch.inference_mode(), model.trace(ids):
                for layer in options.layers:
                    value = model.model.layers[layer - 1].output if layer else model.model.embed_tokens.output
                    states[layer] = (value[0] if isinstance(value, tuple) else value).save()
            save(folder, number, states)

    return run


def transformer_lens(options: argparse.Namespace, batches: Batches) -> Run:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(options.model, device="cpu", dtype=options.dtype)
    names = {layer: f"blocks.{layer - 1}.hook_out" if layer else "blocks.0.hook_in" for layer in options.layers}

    def run(folder: Path) -> None:
        for number, ids in enumerate(batches):
            with torch.inference_mode():
                _, cache = model.run_with_cache(ids, names_filter=list(names.values()), return_type=None)
            save(folder, number, {layer: cache[name] for layer, name in names.items()})

    return run


def sae_lens(options: argparse.Namespace, batches: Batches) -> Run:
    """Arrow has no bfloat16, so its cache is float32; it takes one site."""
    from datasets import Dataset
    from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig

    if len(options.layers) > 1 or not options.layers[0]:
        sys.exit("SAELens caches one site, behind a block")
    ids = torch.cat(list(batches))
    width = AutoModel.from_pretrained(options.model).config.hidden_size
    config = CacheActivationsRunnerConfig(
        dataset_path="not used",
        model_name=options.model,
        model_class_name="AutoModelForCausalLM",
        model_batch_size=len(batches[0]),
        hook_name=f"model.layers.{options.layers[0] - 1}",
        d_in=width,
        training_tokens=ids.numel(),
        context_size=ids.shape[1],
        new_cached_activations_path="set for each run",
        shuffle=False,
        dtype="float32",
        device="cpu",
        buffer_size_gb=ids.numel() * width * 4 / 1e9 + 1e-9,
        model_from_pretrained_kwargs={"dtype": options.dtype},
        prepend_bos=False,
        streaming=False,
    )
    documents = Dataset.from_dict({"tokens": ids.repeat(options.pairs + 3, 1).tolist()})
    runner = CacheActivationsRunner(config, override_dataset=documents)

    def run(folder: Path) -> None:
        config.new_cached_activations_path = str(folder / "cache")
        runner.run()

    return run


PEERS: dict[str, tuple[str, Callable[[argparse.Namespace, Batches], Run]]] = {
    "nnsight": ("nnsight", nnsight),
    "transformer-lens": ("transformer-lens", transformer_lens),
    "sae-lens": ("sae-lens", sae_lens),
}


def bare(model: Any, batches: Batches) -> None:
    with torch.inference_mode():
        for ids in batches:
            model(ids, use_cache=False)


def synced(run: Run, folder: Path) -> None:
    run(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fdatasync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--dtype", type=partial(getattr, torch), required=True, help="of weights and products")
    parser.add_argument("--batch", type=int, default=8, help="documents of a batch")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--disk", type=Path, default=Path("runs"))
    parser.add_argument("--patience", type=float, default=30.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokens = torch.from_numpy(np.load(options.tokens))
    batches = torch.split(tokens, options.batch)
    limit = AutoModel.from_pretrained(options.model, dtype=options.dtype, num_hidden_layers=max(options.layers)).eval()
    package, make = PEERS[options.peer]
    run = make(options, batches)
    scratch = Path(tempfile.mkdtemp(dir=options.disk))

    def tidy() -> None:
        shutil.rmtree(scratch)
        scratch.mkdir()

    try:
        record = measure(
            Side(name="bare forward to the same depth", run=partial(bare, limit, batches)),
            Side(name=package, run=partial(synced, run, scratch), after=tidy),
            pairs=options.pairs,
            quiet=Quiet(patience=options.patience, allowance=options.patience, budget=options.patience * 2),
        )
    finally:
        shutil.rmtree(scratch)
    print(json.dumps({**record, "version": metadata.version(package), "sites": len(options.layers)}))


if __name__ == "__main__":
    main()
