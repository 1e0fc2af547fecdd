"""The card of a store on a hub: what it holds, whether anyone compared it with its model, and how to load it.

Everything in it is read from the store: model, sites, rows, data type, digests, parity certificate. The licence is the
user's to name; without one the card names none. The three lines that load the store stand in the card as code.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import yaml

from lrh_ray.records import Plain
from lrh_ray.store.reader import Store

TAGS = ("lrh-ray", "activations", "interpretability", "zarr")


def make_card(store: Store, repo: str, licence: str | None = None) -> str:
    """Markdown with a YAML head, for a sealed store that will stand at `repo`."""
    head: dict[str, object] = {"tags": list(TAGS)}
    if licence is not None:
        head["license"] = licence
    facts = "\n".join(f"| {name} | {_cell(value)} |" for name, value in card_facts(store).items())
    sites = "\n".join(f"| `{site.name}` | {site.width} |" for site in store.plan.sites)
    return f"""---
{yaml.safe_dump(head, sort_keys=False).strip()}
---

# Activations of {_cell(_model_name(store))}

Rows of a language model's activations, one per token, as [lrh_ray](https://pypi.org/project/lrh-ray/) stores them:
plain Zarr v3 in `data.zarr`, with checksums, a sealed plan and one commit record per block.

| fact | value |
|---|---|
{facts}

| site | width |
|---|---|
{sites}

## Load it

```python
{loading_lines(store, repo)}
```

`lrh verify store` checks every byte against the digests. Without the package: `zarr.open("store/data.zarr")`; its array
`doc` is -1 on padding rows.
"""


def loading_lines(store: Store, repo: str) -> str:
    """Three lines that fetch the store and read a site; real files, because a store holds no symbolic links."""
    return "\n".join(
        (
            "from huggingface_hub import snapshot_download; from lrh_ray.store.reader import open_store",
            f'store = open_store(snapshot_download("{repo}", repo_type="dataset", local_dir="store"))',
            f'rows = store.rows("{store.sites[0]}")  # [rows, {store.plan.sites[0].width}] float32',
        )
    )


def card_facts(store: Store) -> dict[str, Plain]:
    """What the card tells, in order."""
    manifest, model = store.manifest or {}, store.plan.identity.get("model")
    digest = model.get("digest") if isinstance(model, Mapping) else None
    missing = f" ({len(store.missing_blocks)} missing)" if store.missing_blocks else ""
    return {
        "model": _model_name(store),
        "model digest": digest,
        "rows": f"{manifest.get('rows', store.plan.num_valid_rows):,}",
        "data type": store.plan.dtype,
        "bytes": f"{manifest.get('bytes', 0):,}",
        "blocks": f"{store.plan.num_blocks:,}{missing}",
        "sequences": f"{len(store.plan.starts):,}, their texts in `plan/documents.parquet`",
        "root digest": store.root,
        "plan digest": store.plan.digest,
        "parity": parity_words(cast(Mapping[str, Plain], manifest.get("parity") or {})),
    }


def parity_words(certificate: Mapping[str, Plain]) -> str:
    """What the certificate says: none, failed, or passed with the worst site's errors."""
    passed = certificate.get("passed")
    if passed is None:
        reason = certificate.get("reason")
        return f"none: {reason}" if reason else "none: these rows were not compared with their model"
    entries = certificate.get("sites")
    sites = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, Sequence) else []
    words = "passed" if passed else "FAILED"
    if not sites:
        return words
    worst = max(sites, key=lambda entry: float(str(entry.get("p99") or 0.0)))
    return f"{words}; worst site {worst.get('site')}: relative error p50 {worst.get('p50')}, p99 {worst.get('p99')}"


def _model_name(store: Store) -> str:
    model = store.plan.identity.get("model")
    return str(model.get("name")) if isinstance(model, Mapping) else "an unknown model"


def _cell(value: Plain) -> str:
    """One line that cannot leave its table cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
