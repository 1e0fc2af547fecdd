"""An autoencoder as SAEBench wants to hold it: a torch module with its own weights, settings, `encode` and `decode`.

    from sae_bench.evals.core import main as core
    module = benchable(Exchanged.of_result(load_result("runs/demo/results/1f3a"), "resid.15", "topk"), "pythia-70m")
    core.multiple_evals(selected_saes=[("ours", module)], ...)

SAEBench (0.6) asks of an autoencoder only attributes: `W_enc` [D, M], `W_dec` [M, D], `b_enc`, `b_dec`, `device`,
`dtype`, and `cfg` with TransformerLens' names of the model and of the place. It moves the module to its device and data
type. Codes and reconstructions are those of our own readers, so that every kind of autoencoder can be benched, not only
those that SAELens knows.

What can go wrong: SAEBench runs models of TransformerLens, whose names `model_name` must be one of; sites without a
block of their own have no layer, and are refused. So are transcoders: SAEBench puts what is decoded in the place of
what was read, and decodes without the rows that a skip connection reads.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lrh_ray.errors import ConfigError
from lrh_ray.exchange.hooks import block_of, lens_name
from lrh_ray.exchange.record import Exchanged


@dataclass(kw_only=True)
class BenchSettings:
    """What SAEBench reads of an autoencoder's settings; it changes `dtype` and `device`."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    architecture: str
    dtype: str = "float32"
    device: str = "cpu"
    context_size: int | None = None
    hook_head_index: int | None = None
    apply_b_dec_to_input: bool = True
    finetuning_scaling_factor: bool = False
    activation_fn_str: str = ""
    activation_fn_kwargs: dict[str, Any] = field(default_factory=dict)
    prepend_bos: bool = True
    normalize_activations: str = "none"
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)
    dataset_path: str = ""
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[int | None, ...] = (None,)
    training_tokens: int = -1
    sae_lens_training_version: str | None = None
    neuronpedia_id: str | None = None


class BenchModule(nn.Module):
    """An autoencoder whose tensors move with the module."""

    def __init__(self, own: Exchanged, settings: BenchSettings) -> None:
        super().__init__()
        self.cfg, self._own = settings, own
        self._tensors = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(tensor), requires_grad=False) for name, tensor in own.tensors.items()}
        )

    def _tensor(self, name: str) -> Tensor:
        found: Tensor = self._tensors[name]
        return found

    @property
    def device(self) -> torch.device:
        return self._tensor("decoder").device

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor("decoder").dtype

    @property
    def W_enc(self) -> Tensor:  # noqa: N802  # their name
        """Encoder [D, M]."""
        return self._tensor("encoder").T

    @property
    def W_dec(self) -> Tensor:  # noqa: N802
        """Decoder [M, D]."""
        return self._tensor("decoder")

    @property
    def b_enc(self) -> Tensor:
        """Bias of pre-activations [M]; of a gated one that of its gate."""
        return self._tensor("encoder_bias" if "encoder_bias" in self._tensors else "gate_bias")

    @property
    def b_dec(self) -> Tensor:
        """Offset of the reconstruction [D]."""
        return self._tensor("decoder_bias")

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes [..., M] of rows [..., D]."""
        rows = x.reshape(-1, x.shape[-1]).to(self.dtype)
        return self._own.reader_with(dict(self._tensors.items())).codes(rows).reshape(*x.shape[:-1], -1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Rows [..., D] that codes [..., M] stand for."""
        return codes @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of rows [..., D]."""
        return self.decode(self.encode(x))


def benchable(own: Exchanged, model_name: str) -> BenchModule:
    """The module that SAEBench evaluates.

    Args:
        own: The autoencoder.
        model_name: TransformerLens' name of the model.

    Raises:
        ConfigError: A site that is no block's, a transcoder or a crosscoder.
    """
    if own.transcodes:
        raise ConfigError(
            f"SAEBench holds a reconstruction against the rows that were read, and a transcoder explains those of "
            f"{own.writes or 'another place'}. Its held-out fvu is in the result of `lrh sae`; bench an autoencoder."
        )
    if own.beside:
        raise ConfigError(
            f"SAEBench evaluates at one place, and {own.site} has {', '.join(own.beside)} beside it. Its held-out fvu "
            f"is in the result of `lrh sae`; bench an autoencoder."
        )
    layer, hook = block_of(own.site), lens_name(own.site)
    if layer is None or hook is None:
        raise ConfigError(
            f"Site {own.site!r} belongs to no block, and SAEBench evaluates at blocks: resid.1, attn_out.1, mlp_out.1 "
            f"and so on."
        )
    settings = BenchSettings(
        model_name=model_name,
        d_in=own.width,
        d_sae=own.num_latents,
        hook_layer=layer,
        hook_name=hook,
        architecture=own.trained_as or own.kind,
    )
    return BenchModule(own, settings)
