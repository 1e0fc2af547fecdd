"""One autoencoder, whoever trained it, in our conventions: what every format is read into and written from.

    exchanged = Exchanged.of_result(load_result("runs/demo/results/1f3a"), "resid.15", "topk")
    reader = exchanged.reader()
    codes = reader.codes(rows)                      # [N, M] of rows [N, D] in the model's own unit
    reader.decode(codes)                            # [N, D]

Tensors are float32: `encoder` [M, D], `decoder` [M, D], both with a row for each latent, `encoder_bias` [M],
`decoder_bias` [D]; pre = encoder (x - decoder_bias) + encoder_bias. `kinds` says what becomes of pre.

A transcoder has `input_offset` [D] beside them, which stands in the place of decoder_bias in pre; what it writes,
`writes`, may have another width W than what it reads, and with `skip` [W, D] it adds skip (x - input_offset).

What can go wrong: tensors that do not fit together, or are not numbers, are `CheckpointBroken`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from lrh_ray.analyses.sae.architectures.conca import ConCA, Norm
from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import LowRank, Relu
from lrh_ray.analyses.sae.parameters import OFFSET
from lrh_ray.analyses.sae.reader import Reader, ThresholdReader, TopKReader
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.errors import CheckpointBroken
from lrh_ray.exchange.kinds import READ_AS, ReadAs, ends_of, settings_of
from lrh_ray.records import Result

SHAPES: Mapping[str, str] = {
    "encoder": "MD",
    "decoder": "MW",
    "decoder_bias": "W",
    "encoder_bias": "M",
    "gate_bias": "M",
    "magnitude_bias": "M",
    "log_gain": "M",
    "log_threshold": "M",
    "low_encoder": "MD",
    "low_bias": "M",
    OFFSET: "D",
    "skip": "WD",
}
"""Axes of every tensor: M latents, D features that are read, W features that are written; D = W but in transcoders."""

_PLAIN = ("encoder", "encoder_bias", "decoder", "decoder_bias")
TENSORS: Mapping[ReadAs, tuple[str, ...]] = {
    "topk": _PLAIN,
    "threshold": _PLAIN,
    "relu": _PLAIN,
    "structured": (*_PLAIN, "low_encoder", "low_bias"),
    "gated": ("encoder", "gate_bias", "magnitude_bias", "log_gain", "decoder", "decoder_bias"),
    "jumprelu": (*_PLAIN, "log_threshold"),
    "conca": _PLAIN,
}
TRANSCODER = (OFFSET, "skip")
"""What a transcoder has beside these; the second only with a skip connection."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Exchanged:
    """An autoencoder between two tools."""

    kind: ReadAs
    """How codes are read."""

    tensors: Mapping[str, np.ndarray]
    """Those that `TENSORS` names for the kind, and those of a transcoder, float32."""

    k: int | None = None
    """Codes of a row: of each for `topk`; on average for `threshold`, where it is known."""

    threshold: float | None = None
    """Of `threshold`, at least 0: a latent fires at or above it."""

    norm: Norm | None = None
    """Of `conca`: what codes are normalised over."""

    trained_as: str | None = None
    """The name its trainer gives to the architecture."""

    site: str | None = None
    """Where rows come from: a site of ours, or the name that the other tool has for a place we have no name for."""

    beside: tuple[str, ...] = ()
    """Further sites whose features are read after those of `site`: of a crosscoder, or a transcoder from several."""

    writes: str | None = None
    """Of a transcoder: where the rows come from that it explains; several sites side by side are joined by `+`."""

    model: str | None = None
    """Name of the model, as the source gives it."""

    code_scale: np.ndarray | None = None
    """What codes of the source [M] are multiplied by to be ours; None: they are the same."""

    def __post_init__(self) -> None:
        if problem := next(_problems(self), None):
            raise CheckpointBroken(f"These tensors are no {self.kind} autoencoder: {problem}.")

    @classmethod
    def of_result(cls, result: Result, site: str, name: str) -> "Exchanged":
        """The autoencoder `name` of `site`, or of a map of that name, in a result of `lrh sae`.

        Raises:
            UnknownName: No such site, map or autoencoder.
            ConfigError: A result of another study, or an autoencoder of which it does not keep everything.
            CheckpointBroken: Arrays that do not fit together.
        """
        chosen, (reads, writes) = settings_of(result, name), ends_of(result, site)
        prefix = f"{site}/{name}/"
        arrays = {key.removeprefix(prefix): a for key, a in result.arrays.items() if key.startswith(prefix)}
        kind = READ_AS[str(chosen["kind"])]
        kind = "relu" if kind == "structured" and chosen.get("rank") is None else kind
        return cls(
            kind=kind,
            tensors={key: arrays[key].astype(np.float32) for key in (*TENSORS[kind], *TRANSCODER) if key in arrays},
            k=chosen.get("k"),  # type: ignore[arg-type]
            threshold=float(np.float32(arrays["threshold"].item())) if "threshold" in arrays else None,
            norm="none" if chosen.get("norm") == "batch" else chosen.get("norm"),  # type: ignore[arg-type]
            trained_as=str(chosen["kind"]),
            site=reads[0],
            beside=reads[1:],
            writes=None if reads == writes else "+".join(writes),
            model=_model_of(result),
        )

    @property
    def num_latents(self) -> int:
        return len(self.tensors["encoder"])

    @property
    def width(self) -> int:
        """Features that are read."""
        return int(self.tensors["encoder"].shape[1])

    @property
    def side_by_side(self) -> bool:
        """Whether several sites are read or explained."""
        return bool(self.beside) or "+" in (self.writes or "")

    @property
    def transcodes(self) -> bool:
        """Whether other rows are explained than those that are read."""
        return OFFSET in self.tensors

    def reader(self) -> Reader:
        """Rows to codes and back, with the same code that reads what is trained here."""
        return self.reader_with({name: torch.tensor(tensor) for name, tensor in self.tensors.items()})

    def reader_with(self, own: Mapping[str, torch.Tensor]) -> Reader:
        """The same with these tensors, of any data type and on any device."""
        no_penalty = PowerPenalty(weight=0.0)
        match self.kind:
            case "topk":
                return TopKReader(parameters=own, k=self.k or 0)
            case "threshold":
                return ThresholdReader(parameters=own, threshold=self.threshold or 0.0)
            case "relu":
                return Relu(own, no_penalty)
            case "structured":
                return Relu(own, no_penalty, LowRank())
            case "gated":
                return Gated(own, no_penalty)
            case "jumprelu":
                return JumpRelu(own, weight=0.0)
            case "conca":
                return ConCA(own, norm=self.norm or "layer")


def _problems(one: Exchanged) -> Iterator[str]:
    """What does not hold, in words; the first is enough."""
    names, found = TENSORS[one.kind], one.tensors
    if one.transcodes:
        names = (*names, *(name for name in TRANSCODER if name in found))
    if set(names) != set(found):
        yield f"they are {', '.join(sorted(found))}; it has {', '.join(names)}"
        return
    encoder, decoder = found["encoder"], found["decoder"]
    if encoder.ndim != 2 or not encoder.size:
        yield f"encoder is {list(encoder.shape)}; it is [latents, features]"
        return
    axes = dict(zip("MD", encoder.shape, strict=True))
    axes["W"] = decoder.shape[-1] if one.transcodes and decoder.ndim else axes["D"]
    for name in names:
        wanted = [axes[letter] for letter in SHAPES[name]]
        if list(found[name].shape) != wanted:
            yield f"{name} is {list(found[name].shape)} beside an encoder of {list(encoder.shape)}; it is {wanted}"
        if found[name].dtype != np.float32:
            yield f"{name} is {found[name].dtype}; it is float32"
        limited = np.maximum(found[name], -1e30) if name == "log_threshold" else found[name]  # a threshold may be 0
        if not np.isfinite(limited).all():
            yield f"{name} has values that are not finite"
    if one.kind == "topk" and not (one.k and 0 < one.k <= axes["M"]):
        yield f"k is {one.k!r}; it is from 1 to the number of latents, {axes['M']}"
    if one.kind == "threshold" and not (one.threshold is not None and 0 <= one.threshold < np.inf):
        yield f"threshold is {one.threshold!r}; it is a number from 0"


def _model_of(result: Result) -> str | None:
    """What the store's plan calls the model."""
    store = result.provenance.get("store")
    model = store.get("model") if isinstance(store, Mapping) else None
    name = model.get("name") if isinstance(model, Mapping) else model
    return name if isinstance(name, str) else None
