"""Presentation: results become one self-contained page, or text on a terminal.

    Path("report.html").write_text(render_report([result], title="What SmolLM2 represents"), encoding="utf-8")
    print_result(result, rich.console.Console())

| file | turns | into |
|---|---|---|
| `numbers` | a number, a quantity, a foreign string | text that is safe and easy to read |
| `ranking` | measures | the primary metric, the best, what clears its null |
| `series` | measures | places on an axis, lines, panels |
| `panels`, `margins`, `drawing` | a panel | SVG |
| `axes`, `plot` | numbers against numbers | axes with ticks, SVG |
| `curves` | tables with a column `step` | curves |
| `curve_figures`, `densities`, `trade_offs` | curves; how often latents fire; what is left and what is spent | plots |
| `heatmap` | measures | a table of concepts by sites |
| `tables`, `examples`, `outline` | tables, example texts, configurations | cells, reading lines, indented text |
| `passages` | texts with a code for each token | pages of latents |
| `figures`, `view`, `page` | results | everything the template shows; the page |
| `text`, `reading` | a result, its example texts | terminal output |

Rendering goes by the keys of measures and the names and columns of tables, never by the kind of analysis: a new
analysis is shown without a change here. Nothing in this folder knows how a number was computed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrh_ray.report.page import render_report
    from lrh_ray.report.text import print_result

__all__ = ["print_result", "render_report"]


def __getattr__(name: str) -> Any:
    """Load the page or the terminal on first use, because each needs a library the other does not."""
    if name == "render_report":
        from lrh_ray.report.page import render_report

        return render_report
    if name == "print_result":
        from lrh_ray.report.text import print_result

        return print_result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
