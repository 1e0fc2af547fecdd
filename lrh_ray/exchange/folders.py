"""Two functions for a caller: an autoencoder out of a result into another tool's folder, and out of such a folder.

    export_result("runs/demo/results/1f3a", "resid.15", "topk", "saelens", "exported/resid.15")
    import_folder("exported/resid.15").reader().codes(rows)

A folder is recognised by its files; where two formats would fit, none is guessed.
"""

import importlib
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from lrh_ray.artifacts import load_result
from lrh_ray.errors import CheckpointMissing, ConfigError
from lrh_ray.exchange.matrix import FILES, FORMATS, Format, format_named
from lrh_ray.exchange.record import Exchanged


@runtime_checkable
class Codec(Protocol):
    """What the file of a format has."""

    def read(self, folder: Path) -> Exchanged: ...

    def write(self, exchanged: Exchanged, folder: Path) -> None: ...


def export_result(result_folder: str | Path, site: str, name: str, format: str, target: str | Path) -> Path:
    """Write the autoencoder `name` of `site`, from a result of `lrh sae`, into the new folder `target`; returns it.

    Raises:
        UnknownName: No such site, autoencoder or format.
        ConfigError: The format cannot hold the kind; the message says which can.
        ResultMissing: No result there.
        PathUnusable: `target` has something already.
    """
    chosen = codec(format_named(format))
    place = Path(target)
    chosen.write(Exchanged.of_result(load_result(result_folder), site, name), place)
    return place


def import_folder(folder: str | Path, format: str | None = None) -> Exchanged:
    """The autoencoder of another tool's folder; without a `format`, of the one that its files are of.

    Raises:
        UnknownName: No such format.
        CheckpointMissing: The files are of no format.
        ConfigError: They are of several; name one.
        CheckpointBroken: Settings or tensors are not as the format has them.
        UnsupportedFamily: An architecture that has no counterpart here.
    """
    place = Path(folder)
    return codec(recognise(place) if format is None else format_named(format)).read(place)


def recognise(folder: Path) -> Format:
    """The format that a folder's files are of."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    found = [form for form in FORMATS if there.issuperset(FILES[form])]
    if not found:
        known = "; ".join(f"{form}: {' and '.join(FILES[form])}" for form in FORMATS)
        raise CheckpointMissing(
            f"{folder} holds no autoencoder: it has {', '.join(sorted(there)) or 'no files'}. Known: {known}."
        )
    if len(found) > 1:
        raise ConfigError(f"{folder} has the files of {' and '.join(found)}. Name one of them as the format.")
    return found[0]


def codec(form: Format) -> Codec:
    """What reads and writes a format."""
    return cast(Codec, importlib.import_module(f"lrh_ray.exchange.{form}"))
