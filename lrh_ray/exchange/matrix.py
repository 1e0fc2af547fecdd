"""Which kind fits which format, and as what it is written; which foreign architectures are read, and as what.

`write` of every format obeys `EXPORTS` and `TRANSCODER_EXPORTS`, `read` obeys `IMPORTS`, and the tables of
`docs/autoencoders-formats.md` are `export_page`, `transcoder_page` and `import_page`: there is no second place that
says any of it.

- **exact**: the same numbers stand in the file, transposed where the format wants it.
- **folded**: numbers are computed in float64 and rounded once to float32; codes agree to some 1e-7 of their size.
- **refused**: the format has no words for it, and `write` raises with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from lrh_ray.errors import ConfigError, UnknownName, UnsupportedFamily
from lrh_ray.exchange.kinds import ReadAs

Verdict: TypeAlias = Literal["exact", "folded", "refused"]
Format: TypeAlias = Literal["saelens", "sparsify", "dictionary_learning", "openmoss", "gemma_scope", "gemma_scope_2"]
FORMATS: tuple[Format, ...] = get_args(Format)

TITLES: Mapping[Format, str] = {
    "saelens": "SAELens 6",
    "sparsify": "sparsify",
    "dictionary_learning": "dictionary_learning",
    "openmoss": "OpenMOSS (llamascopium)",
    "gemma_scope": "Gemma Scope",
    "gemma_scope_2": "Gemma Scope 2",
}

FILES: Mapping[Format, tuple[str, ...]] = {
    "saelens": ("cfg.json", "sae_weights.safetensors"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "dictionary_learning": ("config.json", "ae.pt"),
    "openmoss": ("config.json", "sae_weights.safetensors"),
    "gemma_scope": ("params.npz",),
    "gemma_scope_2": ("params.safetensors",),
}
"""By which a folder is recognised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """What becomes of an autoencoder on its way: the verdict, and what it is written or read as, or why not."""

    verdict: Verdict
    note: str


def _exact(note: str) -> Fate:
    return Fate(verdict="exact", note=note)


def _folded(note: str) -> Fate:
    return Fate(verdict="folded", note=note)


def _refused(note: str) -> Fate:
    return Fate(verdict="refused", note=note)


_ONLY_TOPK = _refused("has TopK alone")
_ONLY_JUMPS = "has thresholds alone"
_GEMMA: Mapping[ReadAs, Fate] = {
    "topk": _refused(_ONLY_JUMPS),
    "threshold": _folded("the threshold for every latent, offset absorbed"),
    "relu": _folded("thresholds 0, offset absorbed"),
    "jumprelu": _folded("thresholds, offset absorbed"),
    "gated": _refused(_ONLY_JUMPS),
}
_NOWHERE: Mapping[ReadAs, Fate] = {
    "structured": _refused("no format adds a second branch to the codes"),
    "conca": _refused("no format normalises codes over latents"),
}

EXPORTS: Mapping[Format, Mapping[ReadAs, Fate]] = {
    "saelens": {
        "topk": _exact("`topk` without rescaling"),
        "threshold": _exact("`jumprelu`, the threshold for every latent"),
        "relu": _exact("`standard`"),
        "jumprelu": _folded("`jumprelu`, thresholds out of their logarithms"),
        "gated": _exact("`gated`"),
        **_NOWHERE,
    },
    "sparsify": {
        "topk": _exact("`topk`"),
        "threshold": _ONLY_TOPK,
        "relu": _ONLY_TOPK,
        "jumprelu": _ONLY_TOPK,
        "gated": _ONLY_TOPK,
        **_NOWHERE,
    },
    "dictionary_learning": {
        "topk": _exact("`AutoEncoderTopK`"),
        "threshold": _exact("`BatchTopKSAE`"),
        "relu": _folded("`AutoEncoder`, decoder rows to length 1 as its loader does; exact where they have it"),
        "jumprelu": _folded("`JumpReluAutoEncoder`, offset absorbed"),
        "gated": _exact("`GatedAutoEncoder`"),
        **_NOWHERE,
    },
    "openmoss": {
        "topk": _folded("`topk`, offset absorbed"),
        "threshold": _folded("`jumprelu`, logarithm of the threshold for every latent, offset absorbed"),
        "relu": _folded("`relu`, offset absorbed"),
        "jumprelu": _folded("`jumprelu`, offset absorbed"),
        "gated": _refused("has no gates"),
        **_NOWHERE,
    },
    "gemma_scope": {**_GEMMA, **_NOWHERE},
    "gemma_scope_2": {**_GEMMA, **_NOWHERE},
}
"""What is written."""

_NO_TRANSCODERS = _refused("is not written for transcoders")
_UNSHOWN = _refused("is not written for transcoders, as no loader at hand reads them as they are published")
_PLAIN_KINDS: tuple[ReadAs, ...] = ("topk", "threshold", "relu", "jumprelu", "gated")
_ALL_REFUSED: Mapping[ReadAs, Fate] = {**dict.fromkeys(_PLAIN_KINDS, _NO_TRANSCODERS), **_NOWHERE}

TRANSCODER_EXPORTS: Mapping[Format, Mapping[ReadAs, Fate]] = {
    "saelens": {
        "topk": _refused("has no TopK in transcoders"),
        "threshold": _folded("`jumprelu_transcoder`, `jumprelu_skip_transcoder`, offset absorbed"),
        "relu": _folded("`transcoder`, `skip_transcoder`, offset absorbed"),
        "jumprelu": _folded("`jumprelu_transcoder`, `jumprelu_skip_transcoder`, offset absorbed"),
        "gated": _refused("has no gates in transcoders"),
        **_NOWHERE,
    },
    "sparsify": {
        **dict.fromkeys(_PLAIN_KINDS, _ONLY_TOPK),
        "topk": _folded("`transcode`, `skip_connection`, offset absorbed; both sites of one width"),
        **_NOWHERE,
    },
    "dictionary_learning": _ALL_REFUSED,
    "openmoss": _ALL_REFUSED,
    "gemma_scope": _ALL_REFUSED,
    "gemma_scope_2": {**dict.fromkeys(_PLAIN_KINDS, _UNSHOWN), **_NOWHERE},
}
"""The same of transcoders."""

_JUMPS = "threshold where all are the same, relu where they are 0"
IMPORTS: Mapping[Format, Mapping[str, Fate]] = {
    "saelens": {
        "standard": _exact("relu"),
        "topk": _exact("topk; folded where it rescales by decoder norms"),
        "jumprelu": _folded(f"jumprelu; {_JUMPS}, and then exact"),
        "gated": _exact("gated"),
        "batchtopk": _refused("a training checkpoint; `save_inference_model` writes it as jumprelu"),
        "matryoshka_batchtopk": _refused("a training checkpoint; `save_inference_model` writes it as jumprelu"),
        "abstopk": _refused("chooses codes by size and keeps negative ones"),
        "matching_pursuit": _refused("encodes in several steps"),
        "temporal": _refused("reads other positions"),
        "transcoder": _exact("relu, a transcoder"),
        "skip_transcoder": _exact("relu, a transcoder with a skip connection"),
        "jumprelu_transcoder": _folded(f"jumprelu, a transcoder; {_JUMPS}, and then exact"),
        "jumprelu_skip_transcoder": _folded(f"jumprelu, a transcoder with a skip connection; {_JUMPS}, and then exact"),
    },
    "sparsify": {
        "topk": _exact("topk; with `transcode` a transcoder"),
        "groupmax": _refused("keeps the largest latent of each group"),
    },
    "dictionary_learning": {
        "AutoEncoder": _folded("relu, decoder rows to length 1 as its loader does; exact where they have it"),
        "AutoEncoderNew": _folded("relu, offset released"),
        "AutoEncoderTopK": _exact("topk; its threshold is left out, as its encoder does"),
        "BatchTopKSAE": _exact("threshold"),
        "MatryoshkaBatchTopKSAE": _exact("threshold"),
        "GatedAutoEncoder": _exact("gated"),
        "JumpReluAutoEncoder": _folded(f"jumprelu, offset released; {_JUMPS}"),
        "IdentityDict": _refused("has no weights"),
    },
    "openmoss": {
        "relu": _folded("relu, offset released"),
        "topk": _folded("topk, offset released; where it ranks by decoder norms, codes come times these norms"),
        "jumprelu": _folded(f"jumprelu, offset released, decoder norms in thresholds; {_JUMPS}"),
        "batchtopk": _refused("keeps no threshold, so that codes depend on a batch"),
        "layertopk": _refused("is for transcoders across layers"),
        "batchlayertopk": _refused("is for transcoders across layers"),
    },
    "gemma_scope": {"jump_relu": _folded(f"jumprelu, offset released; {_JUMPS}")},
    "gemma_scope_2": {
        "jump_relu": _folded(f"jumprelu, offset released, which transcoders do not have; {_JUMPS}"),
    },
}
"""What is read, under the name that the format has for it."""


def format_named(name: str) -> Format:
    """A format of the list.

    Raises:
        UnknownName: It is not in the list.
    """
    for known in FORMATS:
        if known == name:
            return known
    raise UnknownName(f"No format {name!r}. Known: {', '.join(FORMATS)}.")


def require_export(kind: ReadAs, form: Format, *, transcodes: bool = False, side_by_side: bool = False) -> Fate:
    """What a kind is written as, or a transcoder of that kind; nothing of several sites side by side.

    Raises:
        ConfigError: It cannot be written; the message says why, and which formats take it.
    """
    if side_by_side:
        raise ConfigError(
            f"{TITLES[form]} holds one site at each end, as all formats do; several side by side are read only here, "
            f"from the result."
        )
    exports = TRANSCODER_EXPORTS if transcodes else EXPORTS
    fate = exports[form][kind]
    if fate.verdict == "refused":
        takers = [other for other in FORMATS if exports[other][kind].verdict != "refused"]
        remedy = f"These formats take it: {', '.join(takers)}." if takers else "Its result can be read only here."
        what = "transcoder" if transcodes else "autoencoder"
        raise ConfigError(f"A {kind} {what} cannot be written as {form}: {TITLES[form]} {_reason(fate)}. {remedy}")
    return fate


def _reason(fate: Fate) -> str:
    return f"cannot, as {fate.note}" if fate.note.startswith("no format") else fate.note


def require_import(architecture: object, form: Format, place: object) -> str:
    """The name of a foreign architecture that is read.

    Raises:
        UnsupportedFamily: It is not, or nobody here knows it.
    """
    known = IMPORTS[form]
    readable = ", ".join(name for name, fate in known.items() if fate.verdict != "refused")
    fate = known.get(architecture) if isinstance(architecture, str) else None
    if fate is None or not isinstance(architecture, str):
        raise UnsupportedFamily(f"{place} has the architecture {architecture!r}, unknown for {form}. Read: {readable}.")
    if fate.verdict == "refused":
        raise UnsupportedFamily(f"{place} has the architecture {architecture!r}: {fate.note}. Read: {readable}.")
    return architecture


def export_page() -> str:
    """A table of every kind and format."""
    return _export_table(FORMATS, EXPORTS)


def transcoder_page() -> str:
    """The same of transcoders, for the formats that have any."""
    return _export_table(("saelens", "sparsify"), TRANSCODER_EXPORTS)


def _export_table(forms: tuple[Format, ...], exports: Mapping[Format, Mapping[ReadAs, Fate]]) -> str:
    kinds: tuple[ReadAs, ...] = get_args(ReadAs)
    lines = ["| kind | " + " | ".join(TITLES[form] for form in forms) + " |", "|---" * (len(forms) + 1) + "|"]
    for kind in kinds:
        cells = [f"**{exports[form][kind].verdict}**: {exports[form][kind].note}" for form in forms]
        lines.append(f"| `{kind}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def import_page() -> str:
    """A table of every foreign architecture."""
    lines = ["| format | its name | | read as, or why not |", "|---|---|---|---|"]
    for form in FORMATS:
        lines += [f"| {TITLES[form]} | `{name}` | **{f.verdict}** | {f.note} |" for name, f in IMPORTS[form].items()]
    return "\n".join(lines) + "\n"
