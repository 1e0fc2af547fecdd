"""Steps of one peer in its own environment, against the bare product of its own process; called by sae.py.

    PEER_PYTHON benchmarks/sae_inside_peer.py sparsify --start start.npz --d 512 --m 8192 --k 32 --batch 1024 --pairs 9

One step of a TopK autoencoder on rows given from memory, with each library's own trainer and defaults. Nothing is dead
in so few steps, so that no auxiliary loss runs. `start.npz` has the first weights that sparsify also begins with, to be
compared after the same rows. Prints one JSON list of records.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
import torch
from sae_rows import batch_of
from store_pairs import Quiet, Record, Side, measure

Step = Callable[[], object]
NEVER = 10**12


def batches(options: argparse.Namespace) -> Iterator[torch.Tensor]:
    return (torch.from_numpy(batch_of(options.d, options.batch, number)) for number in itertools.count())


def sae_lens(options: argparse.Namespace) -> Iterator[tuple[str, Step]]:
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sparse = {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
    for name, chosen in (("defaults", {}), ("sparse, without rescaling", sparse)):
        config = SAETrainerConfig(
            total_training_samples=NEVER,
            train_batch_size_samples=options.batch,
            device="cpu",
            lr=1e-4,
            lr_end=1e-5,
            dead_feature_window=NEVER,
        )
        own = TopKTrainingSAEConfig(d_in=options.d, d_sae=options.m, k=options.k, device="cpu", **chosen)
        trainer = SAETrainer(config, TopKTrainingSAE(own), batches(options))

        def step(trainer: Any = trainer) -> None:
            trainer.step(next(trainer.data_provider))
            trainer.n_training_steps += 1

        yield name, step


def sparsify(options: argparse.Namespace) -> Iterator[tuple[str, Step]]:
    """Its trainer wants a language model; this is the body of its loop (trainer.py, fit and hook)."""
    from schedulefree import ScheduleFreeWrapper
    from sparsify import SparseCoder
    from sparsify.sign_sgd import SignSGD

    for name in ("SignSGD, its default", "Adam"):
        coder = sparse_coder(options)
        size = (options.m / 2**14) ** 0.5
        if name == "Adam":
            optimiser: Any = torch.optim.Adam(coder.parameters(), lr=options.rate)
        else:
            optimiser = ScheduleFreeWrapper(SignSGD([{"params": coder.parameters(), "lr": 5e-3 / size}]), momentum=0.95)
            optimiser.train()
        rows, seen = batches(options), torch.zeros(options.m, dtype=torch.long)

        def step(
            coder: SparseCoder = coder,
            optimiser: Any = optimiser,
            rows: Iterator[torch.Tensor] = rows,
            seen: torch.Tensor = seen,
        ) -> None:
            sparsify_step(coder, optimiser, next(rows), seen)

        yield name, step


def sparse_coder(options: argparse.Namespace) -> Any:
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(options.d, SparseCoderConfig(num_latents=options.m, k=options.k), dtype=torch.float32)
    start = np.load(options.start)
    with torch.no_grad():
        for name, tensor in (
            ("encoder", coder.encoder.weight),
            ("encoder_bias", coder.encoder.bias),
            ("decoder", coder.W_dec),
            ("decoder_bias", coder.b_dec),
        ):
            tensor.copy_(torch.from_numpy(start[name]))
    return coder


def sparsify_step(coder: Any, optimiser: Any, rows: torch.Tensor, seen: torch.Tensor) -> None:
    coder.set_decoder_norm_to_unit_norm()
    found = coder(x=rows, y=rows, dead_mask=None, total_variance=(rows - rows.mean(0)).pow(2).sum())
    fired = torch.zeros(len(seen), dtype=torch.bool)
    fired[found.latent_indices.flatten()] = True
    found.fvu.backward()
    coder.remove_gradient_parallel_to_decoder_directions()
    optimiser.step()
    optimiser.zero_grad()
    seen.add_(len(rows))
    seen[fired] = 0


def dictionary_learning(options: argparse.Namespace) -> Iterator[tuple[str, Step]]:
    """Only the trainers run: nnsight and zstandard, which its buffers need, are left out."""
    for name in ("nnsight", "zstandard"):
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].LanguageModel = object  # type: ignore[attr-defined]
    from dictionary_learning.trainers.top_k import TopKTrainer

    settings = {"steps": 10**6, "activation_dim": options.d, "dict_size": options.m, "k": options.k, "layer": 0}
    try:
        trainer = TopKTrainer(**settings, lm_name="none", device="cpu", warmup_steps=10)
    except TypeError:
        trainer = TopKTrainer(**settings, lm_name="none", device="cpu")
    rows, count = batches(options), itertools.count(1)
    yield "TopK", lambda: trainer.update(next(count), next(rows))


def llamascopium(options: argparse.Namespace) -> Iterator[tuple[str, Step]]:
    from llamascopium import SAEConfig, Trainer, TrainerConfig
    from llamascopium.models.sae import SparseAutoEncoder

    config = SAEConfig(
        sae_type="sae",
        hook_point_in="h",
        hook_point_out="h",
        d_model=options.d,
        expansion_factor=options.m / options.d,
        act_fn="topk",
        top_k=options.k,
        dtype=torch.float32,
        device="cpu",
        norm_activation="inference",
        sparsity_include_decoder_norm=False,
    )
    coder = SparseAutoEncoder.from_config(config)
    coder.init_parameters(encoder_uniform_bound=options.d**-0.5, decoder_uniform_bound=options.d**-0.5)
    coder.set_current_k(options.k)
    trainer = Trainer(
        TrainerConfig(
            total_training_tokens=options.batch * 10**6,
            l1_coefficient=None,
            amp_dtype=torch.float32,
            lr=1e-4,
            initial_k=options.k,
            k_warmup_steps=0,
            n_checkpoints=0,
            exp_result_path=tempfile.mkdtemp(),
            log_frequency=10**9,
            skip_metrics_calculation=True,
        )
    )
    tokens, mask = torch.zeros(options.batch, dtype=torch.long), torch.ones(options.batch, dtype=torch.bool)
    rows = ({"h": batch, "tokens": tokens, "mask": mask} for batch in batches(options))
    trainer._initialize_trainer(coder, rows)
    trainer._initialize_optimizer(coder)

    def step() -> None:
        found = trainer._training_step(coder, coder.normalize_activations(next(rows)))
        found["loss"].backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        trainer.scheduler.step()
        trainer.cur_step += 1

    yield "TopK", step


PEERS = {
    "sae-lens": sae_lens,
    "sparsify": sparsify,
    "dictionary-learning": dictionary_learning,
    "llamascopium": llamascopium,
}
PACKAGES = {"sparsify": "eai-sparsify"}


def after(options: argparse.Namespace) -> dict[str, Any]:
    """Variance left unexplained by sparsify with Adam, after steps from the given start."""
    coder, seen = sparse_coder(options), torch.zeros(options.m, dtype=torch.long)
    optimiser, rows = torch.optim.Adam(coder.parameters(), lr=options.rate), batches(options)
    for _ in range(options.steps):
        sparsify_step(coder, optimiser, next(rows), seen)
    coder.set_decoder_norm_to_unit_norm()
    held_out = torch.from_numpy(batch_of(options.d, options.batch, -1))
    with torch.no_grad():
        found = coder(x=held_out, y=held_out, dead_mask=None)
    error, spread = found.sae_out - held_out, held_out - held_out.mean(0)
    return {"steps": options.steps, "fvu": (error.pow(2).sum() / spread.pow(2).sum()).item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--start", required=True)
    for name in ("--d", "--m", "--k", "--batch", "--pairs"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--steps", type=int, default=0, help="sparsify: compare after so many steps")
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    os.environ["WANDB_MODE"] = "disabled"
    rows, weights = torch.from_numpy(batch_of(options.d, options.batch, 0)), torch.randn(options.d, options.m)
    out = torch.empty(options.batch, options.m)
    unit = Side(name="X @ W", run=lambda: torch.mm(rows, weights, out=out))
    records: list[Record] = []
    for name, step in PEERS[options.peer](options):
        record = measure(unit, Side(name=f"{options.peer}: {name}", run=step), pairs=options.pairs, quiet=Quiet())
        record["version"] = metadata.version(PACKAGES.get(options.peer, options.peer))
        records.append(record)
    facts: dict[str, Any] = {"records": records}
    if options.steps and options.peer == "sparsify":
        facts["after"] = after(options)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
