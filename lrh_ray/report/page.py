"""Results as one self-contained HTML page: nothing is fetched, nothing foreign is executed.

The page must be readable in ten years, by mail, without a server, by someone who was not there. So style, figures and
a script of thirty lines (sorting tables; everything else works without it) are inside the file, and a content security
policy forbids all else: no network, and of scripts only the one with the right hash. Text from models and corpora is
hostile until escaped; the template escapes by default.

    html = render_report([result], title="Concepts in SmolLM2")
    Path("report.html").write_text(html, encoding="utf-8")

The same results give the same bytes: no clock, no random names.

What can go wrong: a page may be at most MAX_BYTES; larger results lose rows of tables and panels, and the page says
how many. Without the `analysis` extra there is no template engine: `DependencyMissing`.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrh_ray.errors import DependencyMissing, NotEnoughData
from lrh_ray.records import Result

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise DependencyMissing(
        "The HTML report needs jinja2, which is not installed. Install it with: pip install 'lrh-ray[analysis]'"
    ) from error

from lrh_ray.report.numbers import readable
from lrh_ray.report.view import Budget, result_view

MAX_BYTES = 5_000_000
_FOLDER = Path(__file__).parent


def render_report(results: Sequence[Result], *, title: str) -> str:
    """The page as text to be written as UTF-8, at most MAX_BYTES long.

    Raises `NotEnoughData` when even the shortest form of so many results is too long for one page.
    """
    budget = Budget(measure_rows=4000 // max(1, len(results)))
    while True:
        page = _render(results, title, budget)
        if len(page.encode()) <= MAX_BYTES:
            return page
        if budget == budget.halved():
            raise NotEnoughData(
                f"{len(results)} results do not fit into one page of {MAX_BYTES} bytes; report fewer at a time."
            )
        budget = budget.halved()


def _render(results: Sequence[Result], title: str, budget: Budget) -> str:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(_FOLDER),
    )
    script = (_FOLDER / "sort.js").read_text(encoding="utf-8")
    context: dict[str, Any] = {
        "title": readable(title, 200),
        "results": [result_view(result, anchor=f"r{i}", budget=budget) for i, result in enumerate(results, start=1)],
        "style": Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        "script": Markup(script),  # noqa: S704  our own file
        "script_hash": _source_hash(script),
    }
    return environment.get_template("page.html").render(context)


def _source_hash(script: str) -> str:
    """The hash by which a content security policy allows one inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
