"""Progress on a terminal (a bar with rate and time left) and elsewhere (a plain line now and then), on stderr."""

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields.get('unit', '')}/s" if speed and task.total else "")


class TerminalProgress:
    """A live bar for the current stage; finished stages stay as lines."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
        )
        self._bars = Progress(*columns, _Rate(), TimeRemainingColumn(), console=self._console, transient=True)
        self._started = time.monotonic()
        self._what = ""

    def __enter__(self) -> "TerminalProgress":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish()
        self._bars.stop()

    def begin(self, what: str, total: int = 0, unit: str = "", done: int = 0) -> None:
        self._finish()
        self._what, self._started = what, time.monotonic()
        self._bars.add_task(what, total=total or None, completed=done, unit=unit)

    def advance(self, amount: int) -> None:
        self._bars.advance(self._bars.task_ids[-1], amount)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def _finish(self) -> None:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        if self._what:
            self._console.print(f"  {self._what}  [dim]{time.monotonic() - self._started:.1f} s[/dim]", highlight=False)
        self._what = ""


class PlainProgress:
    """Lines for logs: the start of each stage, then its state every ten seconds."""

    def __init__(self) -> None:
        self._what, self._unit = "", ""
        self._total = self._done = self._first = 0
        self._spoken = time.monotonic()
        self._moving: float | None = None

    def __enter__(self) -> "PlainProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def begin(self, what: str, total: int = 0, unit: str = "", done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._moving, self._spoken = done, None, time.monotonic()
        self.say(f"{what} ({done:,} of {total:,} {unit} stand)" if total else what)

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if self._moving is None:  # what came before took its time to start, or stood already
            self._moving, self._first = now, self._done
        if now - self._spoken < SECONDS_BETWEEN_LINES and self._done < self._total:
            return
        self._spoken = now
        self.say(f"{self._what}: {self._done:,} of {self._total:,} {self._unit}{self._pace(now - self._moving)}")

    def _pace(self, seconds: float) -> str:
        made, left = self._done - self._first, self._total - self._done
        if not made or seconds <= 0:
            return ""
        rate = made / seconds
        return f", {rate:,.{0 if rate >= 10 else 1}f}/s" + (f", {left / rate:.0f} s left" if left else "")

    def say(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


@contextlib.contextmanager
def watch_progress() -> Iterator[TerminalProgress | PlainProgress]:
    """A bar where someone looks at a terminal, lines elsewhere.

    Standard output belongs to the verb's answer: what libraries print meanwhile (Ray reports every dead worker there)
    goes to standard error.
    """
    watching = TerminalProgress() if sys.stderr.isatty() else PlainProgress()
    with contextlib.redirect_stdout(sys.stderr), watching:
        yield watching
