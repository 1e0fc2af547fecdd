"""Optional libraries: imported where they are used, and named with what installs them where they are missing."""

import importlib
from typing import Any

from lrh_ray.errors import DependencyMissing


def optional(name: str, *, pip: str) -> Any:
    """The module `name`; `pip` is what `pip install` takes to bring it.

    Raises:
        DependencyMissing: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyMissing(f"This needs the library {name} ({error}): pip install {pip}.") from error
