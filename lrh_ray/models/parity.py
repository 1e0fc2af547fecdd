"""Parity: are the extracted rows the model's, at the layer they claim?

A batched, padded, truncated forward in bfloat16 can be wrong in ways no exception shows: a layer off by one, padding
that leaks, a missing scale. So a few documents are computed a second time by the dullest means there is, one document
at a time, float32, eager attention, one layer in memory at a time, and the rows are compared.

Measure: per row, ||h - h*|| / ||h*|| with h* the reference. The naive choice, the largest difference of any element,
is useless where norms run from 1 to 25,000 within one site; a cosine forgives a wrong scale. The median and the 99th
percentile must pass; the maximum is reported only, because rounding alone moves single rows where a router or an
attention sink is near a tie.

    sample = parity_sample(tokens)
    reference = reference_rows(checkpoint, sample.tokens, sites)
    compare_rows(rows, reference, dtype="bfloat16").passed

What can go wrong: in bfloat16 the first token of a document, where models park attention, rounds worst (.03 to .08 on
SmolLM2, with plain transformers as with this backend). Where such rows are more than one in a hundred, because all
documents are shorter than about 100 tokens, p99 sees them and fails; float32 does not have the problem. Rows and
reference of different sites or shapes are a `ParityError`, not a failed certificate.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from lrh_ray.errors import ParityError
from lrh_ray.layouts import RowFloats, Rows, Rows32
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.sites import EMBED, FINAL_NORM, kind_of, num_blocks_needed
from lrh_ray.models.streaming import StreamedModel
from lrh_ray.models.taps import Tap, block_tap, listening
from lrh_ray.records import Plain, SiteSpec, TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """Bounds on the median and the 99th percentile of the relative error of rows."""

    p50: float
    p99: float


TOLERANCES = {
    "float32": Tolerance(p50=1e-5, p99=1e-4),
    "float16": Tolerance(p50=0.005, p99=0.0125),
    "bfloat16": Tolerance(p50=0.02, p99=0.05),
}
"""By dtype of the rows. bfloat16 keeps 8 bits: thirty layers of rounding measure .011 and .03 on a 135 M model.
float16 keeps 11, so a quarter of that is generous."""

SAME_EXPERTS = {"float32": Tolerance(p50=0.0, p99=0.0)}
MOSTLY_SAME_EXPERTS = Tolerance(p50=0.0, p99=1.0)
"""Of `experts` sites, whose error is the share of other experts. Below float32 rounding flips near ties of a router."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParitySample:
    """The sequences of a batch that are compared, by index, each cut to its first tokens."""

    sequences: tuple[int, ...]
    tokens: TokenBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteParity:
    """Relative errors ||h - h*|| / ||h*|| of the rows of one site."""

    site: str
    rows: int
    p50: float
    p99: float
    maximum: float
    tolerance: Tolerance
    passed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityCertificate:
    """The comparison of some rows of every site with the plain float32 forward."""

    dtype: str
    sites: tuple[SiteParity, ...]

    @property
    def passed(self) -> bool:
        return all(site.passed for site in self.sites)

    def as_plain(self) -> dict[str, Plain]:
        """For JSON; an error that is not finite, which JSON cannot say, becomes None."""
        return {
            "measure": "per row, ||h - h*|| / ||h*||, h* from a plain float32 forward",
            "dtype": self.dtype,
            "passed": self.passed,
            "sites": [
                {name: _finite(value) for name, value in asdict(site).items()}  # a Tolerance becomes a mapping
                for site in self.sites
            ],
        }

    def require(self) -> None:
        """Raise `ParityError`, naming the worst site, unless the certificate passed."""
        failed = [site for site in self.sites if not site.passed]
        if failed:
            worst = max(failed, key=lambda site: site.p50)
            raise ParityError(
                f"{len(failed)} of {len(self.sites)} sites differ from the float32 reference; worst {worst.site!r}: "
                f"p50 {worst.p50:.2g} (allowed {worst.tolerance.p50:g}), p99 {worst.p99:.2g} (allowed "
                f"{worst.tolerance.p99:g}). Do not use these rows. Repeat with dtype: float32; if that fails too, the "
                "layers are not the ones asked for."
            )


def parity_sample(
    tokens: TokenBatch, *, sequences: int = 8, max_tokens: int = 256, among: np.ndarray | None = None
) -> ParitySample:
    """Which rows to compare: half of the sequences the longest, half spread evenly over all lengths.

    The long ones test depth of context, the short ones the padding beside them. A sequence is cut to `max_tokens`,
    which changes no row before the cut, because the models are causal. A pure function of its arguments; `among` limits
    the choice to some sequences.
    """
    by_length = np.argsort(-tokens.lengths, kind="stable")
    by_length = by_length if among is None else by_length[np.isin(by_length, among)]
    count = min(sequences, len(by_length))
    longest = (count + 1) // 2
    spread = np.linspace(longest, len(by_length) - 1, count - longest).round().astype(np.int64)
    chosen = np.sort(np.concatenate([by_length[:longest], by_length[spread]]))
    lengths = np.minimum(tokens.lengths[chosen], max_tokens)
    kept = np.concatenate([tokens.starts[s] + np.arange(n) for s, n in zip(chosen, lengths, strict=True)])
    sample = TokenBatch(
        document_ids=tuple(tokens.document_ids[sequence] for sequence in chosen),
        token_ids=tokens.token_ids[kept],
        positions=tokens.positions[kept],
        char_start=tokens.char_start[kept],
        char_end=tokens.char_end[kept],
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    return ParitySample(sequences=tuple(int(sequence) for sequence in chosen), tokens=sample)


def reference_rows(checkpoint: Checkpoint, tokens: TokenBatch, sites: Sequence[SiteSpec]) -> dict[str, Rows32]:
    """Rows [tokens, feature] of `sites` by a plain float32 forward on the CPU, sequence after sequence.

    Layers are the outer loop: each layer's weights are read once and advance every sequence. Memory: one float32
    layer and the embedding table, plus the stream and the wanted rows of all sequences.
    """
    model = StreamedModel(checkpoint)
    depth = num_blocks_needed(sites, model.num_layers)
    parts: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}

    def keep(site: str, value: torch.Tensor) -> None:
        if site in parts:
            parts[site].append(value.detach().reshape(-1, value.shape[-1]).float().clone())

    with torch.inference_mode():
        sequences = _sequences(tokens)
        calls = [model.enter(ids) for ids in sequences]
        streams = [call.stream for call in calls]
        for index in range(depth):
            _keep_all(keep, f"resid.{index}", streams)
            with model.layer(index) as layer, listening(_taps_inside(model, layer, index, sites), keep):
                streams = [
                    model.advance(layer, stream, call.arguments[index])
                    for stream, call in zip(streams, calls, strict=True)
                ]
        _keep_all(keep, f"resid.{depth}", streams)
        if EMBED in parts:
            _keep_all(keep, EMBED, [model.embed(ids) for ids in sequences])
        if FINAL_NORM in parts:
            _keep_all(keep, FINAL_NORM, [model.final_norm(stream) for stream in streams])
    return {site: torch.cat(rows).numpy() for site, rows in parts.items()}


def _taps_inside(model: StreamedModel, layer: torch.nn.Module, index: int, sites: Sequence[SiteSpec]) -> list[Tap]:
    inside = [s.name for s in sites if s.layer == index + 1 and kind_of(s.name) != "resid"]
    return [block_tap(name, layer, model.family) for name in inside]


def _keep_all(keep: Callable[[str, torch.Tensor], None], site: str, streams: Sequence[torch.Tensor]) -> None:
    for stream in streams:
        keep(site, stream)


def compare_rows(
    rows: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], *, dtype: str
) -> ParityCertificate:
    """The certificate of `rows` against `reference`, site -> [rows, feature], at the tolerance of `dtype`."""
    if rows.keys() != reference.keys():
        raise ParityError(f"Rows of {sorted(rows)} cannot be compared with a reference of {sorted(reference)}.")
    if dtype not in TOLERANCES:
        raise ParityError(f"No parity tolerance for dtype {dtype!r}; known: {', '.join(TOLERANCES)}.")
    return ParityCertificate(
        dtype=dtype,
        sites=tuple(_site_parity(site, rows[site], reference[site], dtype) for site in reference),
    )


def _site_parity(site: str, rows: np.ndarray, reference: np.ndarray, dtype: str) -> SiteParity:
    if rows.shape != reference.shape or len(reference) == 0:
        raise ParityError(f"Site {site!r}: rows of shape {rows.shape} against a reference of {reference.shape}.")
    if kind_of(site) == "experts":
        tolerance, errors_N = SAME_EXPERTS.get(dtype, MOSTLY_SAME_EXPERTS), other_experts(rows, reference)
    else:
        tolerance, errors_N = TOLERANCES[dtype], relative_errors(rows, reference)
    p50, p99 = (float(np.quantile(errors_N, q, method="higher")) for q in (0.5, 0.99))
    return SiteParity(
        site=site,
        rows=len(errors_N),
        p50=p50,
        p99=p99,
        maximum=float(errors_N.max()),
        tolerance=tolerance,
        passed=p50 <= tolerance.p50 and p99 <= tolerance.p99,
    )


def relative_errors(rows: Rows, reference: Rows32) -> RowFloats:
    """||h - h*|| / ||h*|| per row in float64; infinite where a row is not finite, or differs from a zero reference."""
    h_ND, reference_ND = rows.astype(np.float64), reference.astype(np.float64)
    difference_N = np.linalg.norm(h_ND - reference_ND, axis=1)
    norm_N = np.linalg.norm(reference_ND, axis=1)
    errors_N = np.divide(difference_N, norm_N, out=np.full_like(norm_N, math.inf), where=norm_N > 0)
    errors_N[(norm_N == 0) & (difference_N == 0)] = 0.0
    return np.where(np.isfinite(errors_N), errors_N, math.inf)


def other_experts(rows: Rows, reference: Rows32) -> RowFloats:
    """Share of a row's expert ids that the reference does not have, in float64; the order of ids means nothing."""
    ids_NKK, reference_NKK = rows.astype(np.float64)[:, :, None], reference.astype(np.float64)[:, None, :]
    found_N: RowFloats = (ids_NKK == reference_NKK).any(axis=2).mean(axis=1)
    return 1.0 - found_N


def _sequences(tokens: TokenBatch) -> list[torch.Tensor]:
    ids = torch.from_numpy(tokens.token_ids.astype(np.int64))
    return list(torch.tensor_split(ids, torch.from_numpy(tokens.starts[1:-1])))


def _finite(value: Plain) -> Plain:
    return None if isinstance(value, float) and not math.isfinite(value) else value
