"""How a study of autoencoders begins that another result keeps: what it reads, and the question as its result has it.

    store, saved = open_saved(config, config.sae_bound, setting="sae_bound")
    question = saved_question(config, config.sae_bound, store, saved, kind="sae-bound", title=..., resolved={...})
    if standing := standing_result(question, config.results_path): ...

What can go wrong: a store that is not sealed, and all that `sae_saved` names.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from lrh_ray.config import as_plain
from lrh_ray.records import Plain, Result
from lrh_ray.store.reader import Store, open_sealed
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.sae_saved import SavedResult, saved_autoencoders


@runtime_checkable
class Asked(Protocol):
    """Settings of such a study."""

    @property
    def result(self) -> str | None:
        """Folder of the result that has the autoencoders; None: the only one of the run."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of store and result; empty for all that both have."""


def open_saved(config: RunConfig, asked: Asked, *, setting: str) -> tuple[Store, SavedResult]:
    """The store of a run, and the autoencoders that `asked` names; `setting` is where they are asked for.

    Raises:
        StoreIncomplete: The store is not sealed.
        Everything that `saved_autoencoders` raises.
    """
    store = open_sealed(config.store_location)
    return store, saved_autoencoders(config, asked.result, store, asked=asked.sites, setting=setting)


def saved_question(
    config: RunConfig,
    asked: Asked,
    store: Store,
    saved: SavedResult,
    *,
    kind: str,
    title: str,
    resolved: Mapping[str, Plain],
    inputs: Mapping[str, str],
) -> Result:
    """A result without numbers; `resolved` and `inputs` are what the study adds to its settings, store and weights."""
    settled = {**as_plain(asked), "sites": list(saved.sites), **resolved}
    del settled["result"]  # where it stands is no part of the question; its digest is an input
    return Result(
        kind=kind,
        title=title,
        summary=(),
        asked=as_plain(config),
        resolved=settled,
        inputs={"store": store.root, "autoencoders": saved.digest, **inputs},
        measures=(),
    )
