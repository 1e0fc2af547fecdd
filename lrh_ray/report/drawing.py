"""SVG elements as escaped strings: the few lines that keep hostile text out of every figure.

    element("text", "a < b", x=3.25, text_anchor="middle")   # <text x="3.25" text-anchor="middle">a &lt; b</text>

Attribute names use underscores for hyphens; a trailing underscore avoids Python's keywords (`class_`). Numbers are
rounded to a hundredth of a unit, which is below a pixel and halves the size of a figure.
"""

from collections.abc import Iterable

from markupsafe import Markup, escape


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """One element; children that are not `Markup` are escaped, attributes that are None are left out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inner)


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Path data through the points."""
    return "M" + "L".join(f"{compact(x)} {compact(y)}" for x, y in points)


def compact(value: float) -> str:
    """At most two decimals, without trailing zeros."""
    return f"{round(value, 2) + 0.0:g}"


def _attribute(value: str | float) -> str:
    return value if isinstance(value, str) else compact(value)
