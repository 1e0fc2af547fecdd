"""The command line: one verb per thing people do, each with `--json`, strict configuration and a proper exit code.

Exit codes: 0 done; 1 a bug of ours, with its traceback; 2 a mistake of the user, one message and no traceback; 130
interrupted. Heavy libraries load inside the verbs, so that `lrh --help` answers at once.
"""

import json
import sys

import typer

from lrh_ray.cli.verbs import app
from lrh_ray.errors import LrhError

USER_ERROR, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Run `lrh`; the entry point of the installed command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(arguments)
    except LrhError as error:
        _tell(error, as_json="--json" in arguments)
        sys.exit(USER_ERROR)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            typer.echo("interrupted: what is finished stands; the same command goes on from there", err=True)
        raise


def _tell(error: LrhError, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"error": {"type": type(error).__name__, "message": str(error)}}))
    else:
        typer.echo(f"error: {error}", err=True)
