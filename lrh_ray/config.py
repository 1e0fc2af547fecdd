"""Configuration: YAML <-> frozen dataclasses, strict, with messages that name file, line and the nearest valid key.

The owner of a component declares its settings with `@settings` beside the component; a parent holds the child's
settings object, never its fields. A string under each field documents it and becomes its description in the JSON
Schema. Validation is pydantic's; what this module adds is the place in the file and the way out of the mistake.

    @settings
    class Example:
        rate: float = 0.5
        \"\"\"Fraction of documents held out, in (0, 1).\"\"\"

    example = load_config(Path("run.yaml"), Example, overrides=["rate=0.25"])

What can go wrong: every mistake of the file is a `ConfigError`; YAML anchors, duplicate keys and tags are refused,
because two readers of the same file must see the same run.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from lrh_ray.errors import ConfigError
from lrh_ray.records import Plain

T = TypeVar("T")
Place = tuple[str | int, ...]

MAX_CONFIG_BYTES = 1 << 20
OVERRIDE = "--set"
REASONS = {
    "tuple_type": "this is a list; write [one, other]",
    "dict_type": "these are settings; write {key: value}",
    "dataclass_type": "these are settings; write {key: value}",
    "model_attributes_type": "these are settings; write {key: value}",
}
"""Where pydantic's words speak of Python's types."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen, keyword-only, strict dataclass whose unknown keys are errors."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def load_config(path: Path, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Read, override (`key.path=value`, the value as YAML) and validate; every mistake is a `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"No configuration file {str(path)!r}. {_files_nearby(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read configuration {str(path)!r}: {error}") from error
    return parse_config(text, kind, source=str(path), overrides=overrides)


def parse_config(text: str, kind: type[T], *, source: str, overrides: Sequence[str] = ()) -> T:
    """Like `load_config`, for text already in memory; `source` stands in messages."""
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: a configuration of {len(text)} characters; at most {MAX_CONFIG_BYTES} are read.")
    places: dict[Place, str] = {}
    tree = _plain_tree(_compose(text, source), source, (), places)
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}:1: a configuration is a mapping of keys; this file holds {type(tree).__name__}.")
    for override in overrides:
        _apply_override(tree, override, places)
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(error, kind, source, places))) from error


def as_plain(config: object) -> dict[str, Plain]:
    """A settings object as plain JSON values, defaults filled in."""
    return cast(dict[str, Plain], TypeAdapter(type(config)).dump_python(config, mode="json"))


def as_yaml(config: object) -> str:
    return yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True, width=120)


def config_schema(kind: type) -> dict[str, Any]:
    """JSON Schema, for editors (`# yaml-language-server: $schema=...`) and for people."""
    return TypeAdapter(kind).json_schema()


def _files_nearby(path: Path) -> str:
    nearby = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, nearby, n=3)
    if close:
        return f"Did you mean {', '.join(close)}?"
    return f"Configurations there: {', '.join(nearby)}." if nearby else "`lrh config schema` shows what one looks like."


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(f"{source}:{line}: YAML aliases (*{event.anchor}) are refused; write the value out.")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}.") from error


def _plain_tree(node: yaml.Node | None, source: str, place: Place, places: dict[Place, str]) -> object:
    """Plain Python values of a YAML node; `places` learns the file:line of every key and item."""
    if node is None:
        return {}
    places.setdefault(place, _where(source, node))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            where = _where(source, key_node)
            key = _scalar(key_node, source)
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {key!r} is not a string; quote it.")
            if key in mapping:
                raise ConfigError(f"{where}: the key {key!r} appears twice; keep one.")
            places[(*place, key)] = where
            mapping[key] = _plain_tree(value_node, source, (*place, key), places)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_plain_tree(item, source, (*place, index), places) for index, item in enumerate(node.value)]
    return _scalar(node, source)


def _where(source: str, node: yaml.Node) -> str:
    """File and line; what stands on the command line has no lines."""
    return source if source.startswith(OVERRIDE) else f"{source}:{node.start_mark.line + 1}"


def _scalar(node: yaml.Node, source: str) -> object:
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, KeyError) as error:
        shown = node.value if isinstance(node, yaml.ScalarNode) else node.tag
        raise ConfigError(
            f"{_where(source, node)}: {shown!r} ({node.tag}) is no plain value; quote it to have a string."
        ) from error


def _apply_override(tree: dict[str, Any], override: str, places: dict[Place, str]) -> None:
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{OVERRIDE} {override!r}: write key.path=value, for example --set store.seed=1.")
    source = f"{OVERRIDE} {dotted.strip()}"
    branch = tree
    for depth, key in enumerate(keys[:-1], start=1):
        branch = branch.setdefault(key, {})
        places.setdefault(tuple(keys[:depth]), OVERRIDE)
        if not isinstance(branch, dict):
            raise ConfigError(f"{source}: {'.'.join(keys[:depth])!r} holds a value, not a group of settings.")
    place = tuple(keys)
    for known in [known for known in places if known[: len(place)] == place]:
        del places[known]
    places[place] = source
    branch[keys[-1]] = _plain_tree(_compose(value, source), source, place, places) if value.strip() else None


def _messages(error: ValidationError, kind: type, source: str, places: Mapping[Place, str]) -> Iterator[str]:
    seen = set()
    for details in error.errors(include_url=False):
        message = _message(details, kind, source, places)
        if message not in seen:
            seen.add(message)
            yield message


def _message(details: ErrorDetails, kind: type, source: str, places: Mapping[Place, str]) -> str:
    place = _without_tags(details["loc"], places)
    known = next((place[:n] for n in range(len(place), -1, -1) if place[:n] in places), ())
    where = places.get(known, source)
    dotted = ".".join(map(str, place))
    if details["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown_key(where, place, _settings_at(kind, details["loc"][:-1]))
    if details["type"] == "union_tag_invalid":
        kinds = re.findall("'([^']+)'", details["ctx"]["expected_tags"])
        return f"{places.get((*place, 'kind'), where)}: {dotted}: {_nearest('kind', details['ctx']['tag'], kinds)}"
    if details["type"] == "union_tag_not_found":
        return f"{where}: {dotted}: the key 'kind' is missing; it says which settings these are."
    if details["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{where}: the key {dotted!r} is missing; it has no default."
    reason = REASONS.get(details["type"], details["msg"].removeprefix("Value error, "))
    shown = "" if isinstance(details["input"], dict | list) else f" (given: {details['input']!r})"
    named = ".".join(map(str, known))
    return f"{where}: {reason}{shown}" if where == f"{OVERRIDE} {named}" else f"{where}: {named}: {reason}{shown}"


def _without_tags(loc: Place, places: Mapping[Place, str]) -> Place:
    """Where in the file `loc` points: pydantic adds the tag of a union's member, which is no key of the file."""
    place: Place = ()
    for part in loc[:-1]:
        place = (*place, part) if (*place, part) in places else place
    return (*place, *loc[-1:])


def _unknown_key(where: str, place: Place, owner: type | None) -> str:
    names = sorted(field.name for field in fields(owner)) if owner is not None and is_dataclass(owner) else []
    group = f" in {'.'.join(map(str, place[:-1]))!r}" if len(place) > 1 else ""
    return f"{where}: {_nearest('key', str(place[-1]), names, group)}"


def _nearest(what: str, given: str, names: Sequence[str], group: str = "") -> str:
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"valid {what}s: {', '.join(names)}."
    return f"unknown {what} {given!r}{group}; {hint}"


def _settings_at(kind: object, place: Place) -> type | None:
    """The settings class that holds `place`, looking through optionals, tuples and unions told apart by `kind`."""
    if not place:
        return kind if isinstance(kind, type) and is_dataclass(kind) else next(_dataclasses_in(kind), None)
    for owner in _dataclasses_in(kind):
        if place[0] in get_args(get_type_hints(owner).get("kind")):
            return _settings_at(owner, place[1:])
    for owner in _dataclasses_in(kind):
        hints = get_type_hints(owner)
        if str(place[0]) in hints:
            return _settings_at(hints[str(place[0])], place[1:])
    return _settings_at(kind, place[1:])


def _dataclasses_in(kind: object) -> Iterator[type]:
    if isinstance(kind, type) and is_dataclass(kind):
        yield kind
    for inner in get_args(kind):
        yield from _dataclasses_in(inner)
