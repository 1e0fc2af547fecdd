"""Matrices at the ends of a model, without the model between them: embedding, final norm, unembedding.

Questions about the vocabulary need no forward pass: which tokens lie along a direction, what a row of the residual
stream would predict. These tensors are a few per cent of a checkpoint; here they are found in its safetensors files by
name and mapped into memory, and no other tensor is read.

    lens = Lens(checkpoint)
    lens.logits(rows, site="resid.12")          # [rows, vocabulary] float32
    embedding(checkpoint)                       # [vocabulary, feature], as in the file

Logits at `final_norm` and at the last `resid` are the model's own, with soft caps and scales where the architecture has
them. At an earlier `resid` they are the logit lens: what the model would say if it stopped there (nostalgebraist 2020),
a reading and not a fact, since later blocks expect to run.

What can go wrong: rows of any other site have no logits (`SiteError`); a checkpoint without one of these tensors is
`CheckpointBroken`. All logits of a million rows fit no memory: `Lens.batches` gives them piece by piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from lrh_ray.errors import CheckpointBroken, SiteError
from lrh_ray.layouts import Rows
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.facts import read_architecture
from lrh_ray.models.families import family_of
from lrh_ray.models.random_weights import base_name, declared_dtype, draw, truncate
from lrh_ray.models.sites import FINAL_NORM, kind_of, resolve_sites
from lrh_ray.models.skeleton import skeleton

ROWS_AT_ONCE, WORDS_AT_ONCE = 1024, 16384
"""Rows of one batch; rows of the unembedding that are in float32 at a time (0.5 GB at a width of 8192)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unembedding:
    """What turns a row of `final_norm` into logits: weight [vocabulary, feature] and, in few models, a bias."""

    weight: Tensor
    bias: Tensor | None


def embedding(checkpoint: Checkpoint) -> Tensor:
    """The token table [vocabulary, feature] in the file's number format; its rows are the site `embed`."""
    return _Ends(checkpoint).tensors("embed")["weight"]


def unembedding(checkpoint: Checkpoint) -> Unembedding:
    """The output matrix in the file's number format; the token table itself where the model ties the two."""
    tensors = _Ends(checkpoint).tensors("head")
    return Unembedding(weight=tensors["weight"], bias=tensors.get("bias"))


def final_norm(checkpoint: Checkpoint) -> nn.Module:
    """The norm after the last block, in float32: rows of the last `resid` in, rows of `final_norm` out."""
    return _Ends(checkpoint).final_norm()


def logits(checkpoint: Checkpoint, rows: Rows | Tensor, site: str) -> Float32[Tensor, "rows vocabulary"]:
    """Logits of rows of a site, in float32 on the CPU; raises `SiteError`. Opens the files; a `Lens` keeps them."""
    return Lens(checkpoint).logits(rows, site)


class Lens:
    """The end of a model, opened once: rows of the residual stream or of `final_norm` in, logits out."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        ends = _Ends(checkpoint)
        self._architecture = ends.architecture
        tensors = ends.tensors("head")
        self._head = Unembedding(weight=tensors["weight"], bias=tensors.get("bias"))
        self._norm = ends.final_norm()

    def logits(self, rows: Rows | Tensor, site: str) -> Float32[Tensor, "rows vocabulary"]:
        """All logits at once: 4 bytes for each row and word."""
        out = torch.empty((len(rows), len(self._head.weight)), dtype=torch.float32)
        for start, part in self.batches(rows, site):
            out[start : start + len(part)] = part
        return out

    def batches(
        self, rows: Rows | Tensor, site: str, *, rows_at_once: int = ROWS_AT_ONCE
    ) -> Iterator[tuple[int, Tensor]]:
        """The first row and the logits [some rows, vocabulary] of each batch, in order."""
        normed = self._is_normed(site)
        for start in range(0, len(rows), rows_at_once):
            with torch.inference_mode():
                part = _float32(rows[start : start + rows_at_once])
                part = self._unembed(part if normed else self._norm(part))
            yield start, part

    def _is_normed(self, site: str) -> bool:
        architecture = self._architecture
        num_layers, width = int(architecture.num_hidden_layers), int(architecture.hidden_size)
        if kind_of(site) not in ("resid", FINAL_NORM) or site.endswith("*") or ":" in site:
            raise SiteError(
                f"Rows of {site!r} have no logits; allowed is one of resid.0 … resid.{num_layers} and {FINAL_NORM}."
            )
        (spec,) = resolve_sites([site], num_layers=num_layers, hidden_size=width)
        return spec.name == FINAL_NORM

    def _unembed(self, rows: Tensor) -> Tensor:
        weight, bias = self._head.weight, self._head.bias
        out = torch.empty((len(rows), len(weight)), dtype=torch.float32)
        for first in range(0, len(weight), WORDS_AT_ONCE):
            words = slice(first, first + WORDS_AT_ONCE)
            out[:, words] = rows @ weight[words].float().T
            if bias is not None:
                out[:, words] += bias[words].float()
        return shaped(out, self._architecture)


def shaped(logits: Tensor, architecture: PreTrainedConfig) -> Tensor:
    """What an architecture does to logits after the unembedding: scales (Cohere, Granite), a soft cap (Gemma 2)."""
    if (scale := getattr(architecture, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(architecture, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(architecture, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


class _Ends:
    """A model of one block without memory, which knows the names of what stands before and after its blocks."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.architecture = read_architecture(checkpoint)
        self._checkpoint = checkpoint
        shallow = read_architecture(checkpoint)
        truncate(shallow, 1)
        self._declared = declared_dtype(shallow)
        self._model = skeleton(shallow, AutoModelForCausalLM, dtype=self._declared)
        family, base = family_of(shallow.model_type), self._model.base_model
        self._norm: nn.Module = base.get_submodule(family.final_norm)
        table = base.get_submodule(family.embed)
        head: nn.Module = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._modules = {"embed": table, "head": table if shallow.tie_word_embeddings else head, "norm": self._norm}

    def tensors(self, end: str) -> dict[str, Tensor]:
        """The weights of `embed`, `head` or `norm` by their names there, mapped from the files or drawn."""
        module = self._modules[end]
        (name,) = (name for name, one in self._model.named_modules() if one is module)
        own = [parameter for parameter, _ in module.named_parameters()]
        if self._checkpoint.random_seed is not None:
            named, seed = (base_name(self._model, name), module), self._checkpoint.random_seed
            draw(self._model, [named], seed=seed, declared=self._declared)
            return {parameter: module.get_parameter(parameter).data for parameter in own}
        found = _places(self._checkpoint, self._model, [f"{name}.{parameter}" for parameter in own])
        return {parameter: _read(*found[f"{name}.{parameter}"]) for parameter in own}

    def final_norm(self) -> nn.Module:
        for name, tensor in self.tensors("norm").items():
            setattr(self._norm, name, nn.Parameter(tensor.float(), requires_grad=False))
        return self._norm


def _places(checkpoint: Checkpoint, model: PreTrainedModel, names: list[str]) -> dict[str, tuple[Path, str]]:
    """File and key of each tensor: under its own name, under its name in the base model, or as transformers maps it."""
    keys: dict[str, Path] = {}
    for path in sorted(checkpoint.path.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            keys.update(dict.fromkeys(file.keys(), path))
    found = {}
    for name in names:
        key = next((one for one in (name, base_name(model, name)) if one in keys), None)
        key = _renamed(model, keys).get(name) if key is None else key
        if key is None:
            raise CheckpointBroken(
                f"The checkpoint {str(checkpoint.path)!r} lacks the tensor {name!r}. Download or convert it again."
            )
        found[name] = keys[key], key
    return found


def _renamed(model: PreTrainedModel, keys: dict[str, Path]) -> dict[str, str]:
    """Name in the model -> key on disk, by transformers' own conversion."""
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    wanted, prefix = model.state_dict(), model.base_model_prefix
    return {rename_source_key(key, renamings, converters, prefix, wanted)[0]: key for key in keys}


def _read(path: Path, key: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(key)
    return tensor


def _float32(rows: Rows | Tensor) -> Tensor:
    return rows.float() if isinstance(rows, Tensor) else torch.from_numpy(np.asarray(rows).astype(np.float32))
