"""Verbs that bring data to a store or take it elsewhere: labels, foreign activations, the hub."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrh_ray.cli.show import show_facts

if TYPE_CHECKING:
    from lrh_ray.records import Receipt

label_app = typer.Typer(help="Labels of a store.", no_args_is_help=True)
StorePlace = Annotated[str, typer.Argument(metavar="STORE", help="Folder, run folder or URL of a store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


class Bits(StrEnum):
    """What uint16 arrays are the bits of."""

    BFLOAT16 = "bfloat16"


@label_app.command("add")
def label_add(
    store: StorePlace,
    labels: Annotated[Path, typer.Argument(metavar="LABELS.jsonl", help="One object per line: id, labels, spans.")],
    name: Annotated[str | None, typer.Option(help="Name of the labels; the file's by default.")] = None,
    as_json: Json = False,
) -> None:
    """Add labels of documents and of character spans; no model is needed."""
    from lrh_ray.studies.labelling import add_labels

    show_facts(add_labels(store, labels, name=name), as_json)


def import_store(
    source: Annotated[
        Path, typer.Argument(help="A .npy or .safetensors file, a folder of them, or SAELens' cached activations.")
    ],
    store: StorePlace,
    site: Annotated[str | None, typer.Option(help="Name of the only array's site.")] = None,
    rename: Annotated[list[str], typer.Option(metavar="FOUND=SITE", help="Name a site; repeatable.")] = [],  # noqa: B006
    rows_per_document: Annotated[int | None, typer.Option(help="Rows cut into one pseudo-document.")] = None,
    bits: Annotated[Bits | None, typer.Option(help="uint16 arrays are the bits of this type.")] = None,
    as_json: Json = False,
) -> None:
    """Write activations made elsewhere as a sealed store with `parity: none`; repeat the command to resume."""
    from lrh_ray.cli.progress import watch_progress
    from lrh_ray.store.foreign import as_pairs, import_activations
    from lrh_ray.store.foreign_source import ROWS_PER_DOCUMENT

    with watch_progress() as progress:
        progress.begin("importing")

        def tell(receipt: "Receipt") -> None:
            progress.advance(receipt.rows)

        facts = import_activations(
            store,
            source,
            site=site,
            rename=as_pairs(rename),
            rows_per_document=rows_per_document or ROWS_PER_DOCUMENT,
            bits=None if bits is None else "bfloat16",
            on_block=tell,
        )
    show_facts(facts, as_json)


def push(
    store: StorePlace,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Data set repository on the hub.")],
    licence: Annotated[str | None, typer.Option(help="Licence for the card.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Create the repository open to everybody.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a sealed store with a card; repeat the command to resume.

    Texts and configuration of the store go with it. A new repository is private. The token is the hub's own (HF_TOKEN).
    """
    from lrh_ray.loads.hub import push_store

    show_facts(push_store(store, repo, licence=licence, private=not public), as_json)
