"""Types of the fields of records that come from disk: checked once, where a record is read.

A stamp only says that a record is as it was written; a stranger stamps what he likes. After `require_fields` the rest
of the package may trust the types.
"""

from collections.abc import Mapping
from types import NoneType
from typing import Any, TypeAlias

from lrh_ray.errors import StoreCorrupt

Types: TypeAlias = type | tuple[type, ...]
NUMBER = (int, float)


def require_fields(record: object, fields: Mapping[Any, Types], key: str) -> None:
    """Refuse a record that lacks a field, or has one of another type. A truth value is no number.

    Raises:
        StoreCorrupt: Naming the field and the value.
    """
    if not isinstance(record, dict):
        raise StoreCorrupt(f"{key} holds {repr(record)[:80]} where a record is needed. `lrh verify STORE` tells more.")
    for name, types in fields.items():
        value = record.get(name, MISSING)
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            found = "nothing" if value is MISSING else repr(value)[:80]
            raise StoreCorrupt(f"{key} has {found} as {name!r}. It was edited by hand; `lrh verify STORE` tells more.")


def require_values(record: object, types: Types, key: str) -> None:
    """Refuse a record of which any value has another type.

    Raises:
        StoreCorrupt: Naming the field and the value.
    """
    require_fields(record, dict.fromkeys(record, types) if isinstance(record, dict) else {}, key)


class _Missing:
    pass


MISSING = _Missing()
INTEGER_OR_NONE = (int, NoneType)
