"""Known architectures: descriptions of named checkpoints, so that a run is planned before its weights are anywhere.

The folder `architectures` holds one config.json per checkpoint: numbers of layers, widths and heads as the authors
published them, and no weights. `known:llama-3-70b` names one; so does the hub id that the description carries. A
folder with a description alone is a checkpoint in all but the reading of weights, so facts, site maps and costs come
from it by the same way as from a real one.

    known_checkpoint("known:llama-3-70b").path        # .../architectures/llama-3-70b
    known_name("meta-llama/Meta-Llama-3-70B")         # "llama-3-70b"

What can go wrong: an unknown name is `UnknownName`, with the nearest known ones. Extraction from a description is
refused by `resolve_checkpoint`: there is nothing to load.
"""

import difflib
import json
from functools import cache
from pathlib import Path

from lrh_ray.errors import UnknownName
from lrh_ray.models.checkpoints import KNOWN_PREFIX, Checkpoint

FOLDER = Path(__file__).with_name("architectures")


def known_names() -> tuple[str, ...]:
    """Names of all descriptions, sorted."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/config.json")))


def known_name(name: str) -> str | None:
    """The description that a model's name means: `known:NAME`, or the hub id it carries; None for other names.

    Raises `UnknownName` for `known:` before a name that no description has.
    """
    if not name.startswith(KNOWN_PREFIX):
        return _by_hub_id().get(name)
    short = name.removeprefix(KNOWN_PREFIX)
    if short not in known_names():
        close = difflib.get_close_matches(short, known_names(), n=1)
        hint = f"did you mean {KNOWN_PREFIX + close[0]!r}?" if close else f"known are {', '.join(known_names())}."
        raise UnknownName(f"No architecture is called {name!r}; {hint} A checkpoint folder or a hub id works too.")
    return short


def known_checkpoint(name: str) -> Checkpoint:
    """The folder of a description, under the name it was asked for; raises `UnknownName`."""
    short = known_name(name)
    if short is None:
        raise UnknownName(f"No architecture is called {name!r}; known are {', '.join(known_names())}.")
    return Checkpoint(name=name, path=FOLDER / short)


@cache
def _by_hub_id() -> dict[str, str]:
    found = {}
    for short in known_names():
        description = json.loads((FOLDER / short / "config.json").read_text(encoding="utf-8"))
        found[str(description["_name_or_path"])] = short
    return found
