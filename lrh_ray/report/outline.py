"""Configurations and provenance as text: indented like YAML, or flattened to a list of facts.

    outline({"model": {"name": "smollm2"}, "sites": ["resid.0", "resid.5"]})
    # model:
    #   name: smollm2
    # sites: [resid.0, resid.5]

    facts({"model": {"name": "smollm2"}}, limit=12)   # (Fact(name="model.name", value="smollm2"),)

What can go wrong: this is for reading. It is not promised to parse as YAML; the exact values are in `result.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from lrh_ray.records import Plain
from lrh_ray.report.numbers import quantity, readable

LINE = 96
VALUE_LIMIT = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A dotted name and its value as one line of text."""

    name: str
    value: str


def outline(tree: Mapping[str, Plain], *, limit: int) -> str:
    """The tree as indented lines, cut after `limit` characters."""
    text = "\n".join(_lines(tree, ""))
    return text if len(text) <= limit else text[:limit].rpartition("\n")[0] + "\n…"


def facts(tree: Mapping[str, Plain], *, limit: int) -> tuple[Fact, ...]:
    """The leaves of the tree under dotted names, `limit` at most; empty groups are left out."""
    return tuple(fact for fact, _ in zip(_leaves(tree, ""), range(limit), strict=False))


def _leaves(tree: Mapping[str, Plain], prefix: str) -> Iterator[Fact]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif value is not None and value != [] and value != ():
            yield Fact(name=readable(name, 80), value=_inline(str(key), value))


def _lines(tree: Mapping[str, Plain], indent: str) -> Iterator[str]:
    for key, value in tree.items():
        name = readable(str(key), 120)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif _is_list(value) and (any(isinstance(item, Mapping) for item in value) or len(_literal(value)) > LINE):
            yield f"{indent}{name}:"
            for item in value:
                yield from _item(item, indent + "  ")
        else:
            yield f"{indent}{name}: {_literal(value)}"


def _item(item: Plain, indent: str) -> Iterator[str]:
    if isinstance(item, Mapping) and item:
        first, *rest = _lines(item, "")
        yield f"{indent}- {first}"
        yield from (f"{indent}  {line}" for line in rest)
    else:
        yield f"{indent}- {_literal(item)}"


def _inline(name: str, value: Plain) -> str:
    if _is_list(value):
        return readable(", ".join(_literal(item) for item in value), VALUE_LIMIT)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return readable(quantity(name, value), VALUE_LIMIT)
    return _literal(value)


def _literal(value: Plain) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return readable(value, VALUE_LIMIT) if value else '""'
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{readable(key, 120)}: {_literal(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_literal(item) for item in value) + "]"


def _is_list(value: Plain) -> TypeGuard[Sequence[Plain]]:
    return isinstance(value, Sequence) and not isinstance(value, str)
