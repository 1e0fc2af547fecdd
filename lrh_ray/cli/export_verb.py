"""`lrh export-sae`: an autoencoder in the files of another tool."""

from pathlib import Path
from typing import Annotated

import typer

from lrh_ray.cli.data_verbs import Json
from lrh_ray.cli.show import show_facts


def export_sae(
    result: Annotated[Path, typer.Argument(help="Folder of a result of `lrh sae`.")],
    site: Annotated[str, typer.Argument(help="Site, for example resid.15, or map, resid.15-to-mlp_out.16.")],
    name: Annotated[str, typer.Argument(help="The autoencoder's name in the report, for example topk.")],
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="saelens, sparsify, dictionary_learning, openmoss, gemma_scope or gemma_scope_2.",
        ),
    ],
    target: Annotated[Path, typer.Argument(help="New folder.")],
    as_json: Json = False,
) -> None:
    """Write an autoencoder as another tool reads it, or say why that tool cannot."""
    from lrh_ray.exchange.folders import export_result

    folder = export_result(result, site, name, form, target)
    show_facts({"format": form, "folder": str(folder)}, as_json)
