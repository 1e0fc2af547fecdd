"""One library judges autoencoders in its own environment; called by sae_oracles.py.

    PEER_PYTHON benchmarks/sae_oracle_inside.py sae-lens make --rows rows.npz --folder made      # it saves, and encodes
    PEER_PYTHON benchmarks/sae_oracle_inside.py sae-lens read --rows rows.npz --folder exported  # it loads, and encodes

`make` writes an autoencoder of every architecture with the library's own save function, random in all that can be, into
FOLDER/NAME; `read` loads every FOLDER/NAME with the library's own load function. Both write FOLDER/outputs.npz, with
NAME/codes and NAME/reconstructions. Gemma Scope has no library: SAELens' loader reads its files, with the download
replaced by the folder. Prints versions as JSON.
"""

import argparse
import importlib
import io
import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

D, M, K = 8, 24, 3
HOOK = "blocks.12.hook_resid_post"
MODEL = "tiny"
SEED = 5

Codes = Callable[[torch.Tensor], torch.Tensor]


class Coder(Protocol):
    def encode(self, rows: torch.Tensor) -> torch.Tensor: ...

    def decode(self, codes: torch.Tensor) -> torch.Tensor: ...


Made = tuple[str, Callable[[Path], Any]]
"""A name, and what saves it into a folder."""


@torch.no_grad()
def random_weights(module: torch.nn.Module, noise: torch.Generator) -> None:
    """Every parameter: matrices with rows of about length 1, biases and thresholds not 0."""
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=noise)
        if "log" in name:
            parameter.copy_(0.3 * drawn - 1)
        elif "threshold" in name:
            parameter.copy_(0.2 + 0.2 * drawn.abs())
        else:
            parameter.copy_(drawn * (D**-0.5 if parameter.ndim == 2 else 0.3))


def sae_lens_make(noise: torch.Generator) -> Iterator[Made]:
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        GatedSAE,
        GatedSAEConfig,
        JumpReLUSAE,
        JumpReLUSAEConfig,
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        StandardSAE,
        StandardSAEConfig,
        TopKSAE,
        TopKSAEConfig,
    )

    off: dict[str, Any] = {"apply_b_dec_to_input": False}
    chosen: tuple[tuple[str, Any, Any, dict[str, Any]], ...] = (
        ("standard", StandardSAE, StandardSAEConfig, {}),
        ("standard_without_offset", StandardSAE, StandardSAEConfig, off),
        ("topk", TopKSAE, TopKSAEConfig, {"k": K}),
        ("topk_rescaled", TopKSAE, TopKSAEConfig, {"k": K, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", JumpReLUSAE, JumpReLUSAEConfig, {}),
        ("jumprelu_without_offset", JumpReLUSAE, JumpReLUSAEConfig, off),
        ("gated", GatedSAE, GatedSAEConfig, {}),
        ("gated_without_offset", GatedSAE, GatedSAEConfig, off),
    )
    for name, kind, config, settings in chosen:
        sae = kind(config(d_in=D, d_sae=M, **settings))
        random_weights(sae, noise)
        sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = MODEL, HOOK
        yield name, sae.save_model
    trained: tuple[tuple[str, Any, Any], ...] = (
        ("batchtopk", BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig(d_in=D, d_sae=M, k=K)),
        (
            "matryoshka",
            MatryoshkaBatchTopKTrainingSAE,
            MatryoshkaBatchTopKTrainingSAEConfig(d_in=D, d_sae=M, k=K, matryoshka_widths=[6, 12]),
        ),
    )
    for name, kind, config in trained:
        sae = kind(config)
        random_weights(sae, noise)
        sae.topk_threshold.fill_(0.4)
        sae.cfg.metadata.model_name, sae.cfg.metadata.hook_name = MODEL, HOOK
        yield name, sae.save_inference_model
    yield from sae_lens_transcoders(noise)


def sae_lens_transcoders(noise: torch.Generator) -> Iterator[Made]:
    from sae_lens.saes import transcoder

    for name in ("Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder"):
        config = getattr(transcoder, f"{name}Config")(d_in=D, d_sae=M, d_out=6, apply_b_dec_to_input=False)
        coder = getattr(transcoder, name)(config)
        random_weights(coder, noise)
        coder.cfg.metadata.model_name, coder.cfg.metadata.hook_name = MODEL, HOOK
        yield config.architecture(), coder.save_model


class Whole:
    """What is read is added by a skip connection, and so the library's own forward is asked, with the rows."""

    def __init__(self, coder: Any) -> None:
        self.coder, self.rows = coder, torch.zeros(0)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows = rows
        found: torch.Tensor = self.coder.encode(rows)
        return found

    def decode(self, codes: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  # the library makes them again
        found: torch.Tensor = self.coder(self.rows)
        return found


def sae_lens_read(folder: Path) -> Coder:
    from sae_lens import SAE

    coder = SAE.load_from_disk(str(folder))
    found: Coder = Whole(coder) if hasattr(coder, "W_skip") else coder
    return found


class Sparse:
    """sparsify keeps values and places of codes; dense again."""

    def __init__(self, coder: Any) -> None:
        self.coder, self.places, self.rows = coder, torch.zeros(0), torch.zeros(0)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows = rows
        values, self.places, _ = self.coder.encode(rows)
        return torch.zeros(len(rows), self.coder.num_latents).scatter(1, self.places, values)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        if self.coder.W_skip is not None:
            whole: torch.Tensor = self.coder(self.rows).sae_out
            return whole
        found: torch.Tensor = self.coder.decode(codes.gather(1, self.places), self.places)
        return found


def sparsify_make(noise: torch.Generator) -> Iterator[Made]:
    from sparsify import SparseCoder, SparseCoderConfig

    other = {"num_latents": M, "transcode": True}
    chosen: tuple[tuple[str, dict[str, Any]], ...] = (
        ("topk", {"num_latents": M}),
        ("topk_expanded", {"expansion_factor": M // D}),
        ("topk_transcoder", other),
        ("topk_skip_transcoder", {**other, "skip_connection": True}),
    )
    for name, settings in chosen:
        coder = SparseCoder(D, SparseCoderConfig(k=K, **settings), dtype=torch.float32)
        random_weights(coder, noise)
        yield name, coder.save_to_disk


def sparsify_read(folder: Path) -> Coder:
    from sparsify import SparseCoder

    return Sparse(SparseCoder.load_from_disk(folder))


def stand_in_for_buffers() -> None:
    """Only dictionaries are used: nnsight and zstandard, which its buffers need, are left out.

    datasets looks for zstandard as well, and is imported before there is a stand-in for it.
    """
    importlib.import_module("datasets")
    for name in ("nnsight", "zstandard"):
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].LanguageModel = object  # type: ignore[attr-defined]


def dictionary_learning_make(noise: torch.Generator) -> Iterator[Made]:
    stand_in_for_buffers()
    from dictionary_learning import dictionary
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made: tuple[Any, ...] = (
        dictionary.AutoEncoder(D, M),
        dictionary.AutoEncoderNew(D, M),
        dictionary.GatedAutoEncoder(D, M),
        dictionary.JumpReluAutoEncoder(D, M),
        AutoEncoderTopK(D, M, K),
        BatchTopKSAE(D, M, K),
        MatryoshkaBatchTopKSAE(D, M, K, [6, 6, 12]),
    )
    for coder in made:
        random_weights(coder, noise)
        name = type(coder).__name__
        if hasattr(coder, "k"):
            coder.threshold.fill_(0.4)

        def save(folder: Path, coder: Any = coder, name: str = name) -> None:
            folder.mkdir(parents=True)
            own = {"dict_class": name, "trainer_class": "Trainer", "activation_dim": D, "dict_size": M, "layer": 12}
            own |= {"lm_name": MODEL, "submodule_name": "resid_post_layer_12"}
            own |= {"k": K} if hasattr(coder, "k") else {}
            (folder / "config.json").write_text(json.dumps({"trainer": own, "buffer": {"ctx_len": 128}}))
            torch.save(coder.state_dict(), folder / "ae.pt")  # as its trainSAE does at the end

        yield name, save


def dictionary_learning_read(folder: Path) -> Coder:
    stand_in_for_buffers()
    from dictionary_learning.utils import load_dictionary

    with redirect_stdout(io.StringIO()):
        found: Coder = load_dictionary(str(folder), "cpu")[0]
    return found


class Normalised:
    """llamascopium wants rows normalised by it before, and reconstructions brought back after."""

    def __init__(self, coder: Any) -> None:
        self.coder, self.hook, self.factor = coder, coder.cfg.hook_point_in, torch.ones(())

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        batch, factors = self.coder.normalize_activations({self.hook: rows}, return_scale_factor=True)
        self.factor = factors[self.hook]
        found: torch.Tensor = self.coder.encode(batch[self.hook])
        return found

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.coder.decode(codes) / self.factor
        return found


def llamascopium_make(noise: torch.Generator) -> Iterator[Made]:
    from llamascopium import SAEConfig
    from llamascopium.models.sae import SparseAutoEncoder

    plain = {"sparsity_include_decoder_norm": False, "norm_activation": "inference"}
    normed = {"norm_activation": "inference"}
    data = {"norm_activation": "dataset-wise"}
    chosen: tuple[tuple[str, dict[str, Any]], ...] = (
        ("relu", {"act_fn": "relu", **plain}),
        ("topk", {"act_fn": "topk", "top_k": K, **plain}),
        ("jumprelu", {"act_fn": "jumprelu", **plain}),
        ("relu_normed", {"act_fn": "relu", **normed}),
        ("topk_normed", {"act_fn": "topk", "top_k": K, **normed}),
        ("jumprelu_normed", {"act_fn": "jumprelu", **normed}),
        ("topk_dataset", {"act_fn": "topk", "top_k": K, **data}),
        ("jumprelu_dataset", {"act_fn": "jumprelu", **data}),
        ("relu_without_bias", {"act_fn": "relu", "use_decoder_bias": False, **plain}),
    )
    for name, settings in chosen:
        config = SAEConfig(
            hook_point_in=HOOK,
            hook_point_out=HOOK,
            d_model=D,
            expansion_factor=M / D,
            dtype=torch.float32,
            device="cpu",
            **settings,
        )
        coder = SparseAutoEncoder.from_config(config)
        random_weights(coder, noise)
        coder.set_dataset_average_activation_norm({HOOK: 5.0})

        def save(folder: Path, coder: Any = coder, config: Any = config) -> None:
            coder.save_pretrained(folder)
            config.save_hyperparameters(folder)

        yield name, save


def llamascopium_read(folder: Path) -> Coder:
    from llamascopium.models.sae import SparseAutoEncoder

    return Normalised(SparseAutoEncoder.from_pretrained(str(folder)))


def gemma_scope_make(noise: torch.Generator) -> Iterator[Made]:
    """Files as they are published, by numpy and safetensors."""
    from safetensors.numpy import save_file

    def drawn(*shape: int, scale: float) -> np.ndarray:
        return scale * torch.randn(shape, generator=noise).numpy()

    for name in ("npz", "safetensors"):
        tensors = {
            "w_enc": drawn(D, M, scale=D**-0.5),
            "w_dec": drawn(M, D, scale=D**-0.5),
            "b_enc": drawn(M, scale=0.3),
            "b_dec": drawn(D, scale=0.3),
            "threshold": 0.2 + np.abs(drawn(M, scale=0.2)),
        }

        def save(folder: Path, tensors: dict[str, np.ndarray] = tensors, name: str = name) -> None:
            folder.mkdir(parents=True)
            if name == "npz":
                large: dict[str, Any] = {n.replace("w_", "W_"): t for n, t in tensors.items()}
                np.savez(folder / "params.npz", **large)
                return
            save_file(tensors, folder / "params.safetensors")
            place = "model.layers.12.output"
            about = {"architecture": "jump_relu", "model_name": MODEL, "hf_hook_point_in": place}
            (folder / "config.json").write_text(json.dumps(about))

        yield name, save


def gemma_scope_read(folder: Path) -> Coder:
    """SAELens' own loaders of both versions, on this folder instead of a download."""
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors import safe_open

    def shapes(*_: str) -> dict[str, list[int]]:
        with safe_open(folder / "params.safetensors", framework="np") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def local(repo_id: str, filename: str, **_: Any) -> str:  # noqa: ARG001  # as the loaders call it
        return str(folder / Path(filename).name)

    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = local, shapes
    if (folder / "params.npz").exists():
        size = {"d_in": D, "d_sae": M}
        found = loaders.gemma_2_sae_huggingface_loader(
            "google/gemma-scope-2b-pt-res", "layer_12/width_16k/x", cfg_overrides=size
        )
    else:
        found = loaders.gemma_3_sae_huggingface_loader("google/gemma-scope-2-1b-pt", "layer_12/resid_post/x")
    settings = loaders.handle_config_defaulting(found[0])
    sae = SAE.from_dict(settings)
    sae.load_state_dict(found[1])
    coder: Coder = sae
    return coder


LIBRARIES: dict[str, tuple[Callable[[torch.Generator], Iterator[Made]], Callable[[Path], Coder], str]] = {
    "sae-lens": (sae_lens_make, sae_lens_read, "sae-lens"),
    "sparsify": (sparsify_make, sparsify_read, "eai-sparsify"),
    "dictionary-learning": (dictionary_learning_make, dictionary_learning_read, "dictionary-learning"),
    "llamascopium": (llamascopium_make, llamascopium_read, "llamascopium"),
    "gemma-scope": (gemma_scope_make, gemma_scope_read, "sae-lens"),
}


@torch.no_grad()
def outputs(read: Callable[[Path], Coder], folder: Path, rows: torch.Tensor) -> dict[str, np.ndarray]:
    found = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        coder = read(place)
        codes = coder.encode(rows)
        found[f"{place.name}/codes"] = codes.numpy()
        found[f"{place.name}/reconstructions"] = coder.decode(codes).numpy()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("act", choices=("make", "read"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    make, read, package = LIBRARIES[options.library]
    if options.act == "make":
        with torch.no_grad():
            for name, save in make(torch.Generator().manual_seed(SEED)):
                save(options.folder / name)
    rows = torch.from_numpy(np.load(options.rows)["rows"])
    found: dict[str, Any] = outputs(read, options.folder, rows)
    np.savez(options.folder / "outputs.npz", **found)
    print(json.dumps({package: metadata.version(package), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
