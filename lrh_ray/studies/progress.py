"""How long work tells where it stands: a protocol that the command line draws and tests ignore."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Receives stages and their advance."""

    def begin(self, what: str, total: int = 0, unit: str = "", done: int = 0) -> None:
        """A stage starts: `total` units are to do, `done` of them stand already; total 0 means unknown."""

    def advance(self, amount: int) -> None:
        """More units are done."""

    def say(self, text: str) -> None:
        """A line worth reading."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int = 0, unit: str = "", done: int = 0) -> None: ...

    def advance(self, amount: int) -> None: ...

    def say(self, text: str) -> None: ...
