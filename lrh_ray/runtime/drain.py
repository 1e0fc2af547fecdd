"""What SIGTERM does to a worker process: it finishes its block, or gives it back, and takes no more.

    drain = Drain(grace_seconds=20)              # in the main thread
    receipt = drain.run(lambda: worker.process(block, attempt))     # None: the block was given back

After three quarters of the grace the block in hand is interrupted: an exception in the thread that works on it unwinds
through the worker's own clean-up, so an attempt is discarded like any other. A process that is stuck in native code,
even with Python's lock in its hands, is ended by a watchdog without Python shortly before the grace is over; what it
staged is swept by the next run, as after any death. A process that has let its block go has the grace once more to say
so.

Python runs signal handlers in the main thread only; Ray runs an actor's methods in threads of its own as soon as the
actor has concurrency groups. So the handler sends the exception to the thread that works.

What can go wrong: an exception from another thread is noticed between two Python instructions, when a native call
returns; a single call that outlasts the grace is a stuck process.
"""

import ctypes
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

INTERRUPT_AFTER = 0.75
EXIT_AFTER = 0.95


class _GivenBack(BaseException):
    """Raised in the working thread when the grace runs out; no worker may take it for a failure of its own."""


class Drain:
    """The state of one worker process."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace = grace_seconds
        self._working: int | None = None  # the thread that has a block in hand
        self._hand = threading.RLock()
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGALRM, self._interrupt)

    def run(self, work: Callable[[], T]) -> T | None:
        """The work's result, or None where it was not begun or was interrupted because the process must leave."""
        if self.asked:
            return None
        try:
            return self._in_hand(work)
        except _GivenBack:
            return None
        finally:
            self._leave()

    def _in_hand(self, work: Callable[[], T]) -> T:
        """Run it in such a way that an interruption arrives before this returns, or never."""
        thread = self._working = threading.get_ident()
        try:
            return work()
        finally:
            with self._hand:
                self._working = None
            _send(thread, None)

    def _leave(self) -> None:
        """The block is out of hand: what is left to do, if the process must go, is to let the answer leave."""
        if self.asked:
            self._watch(self._grace)

    def _watch(self, seconds: float) -> None:
        """End the process after that time, whatever it does then."""
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            return
        self.asked = True
        self._watch(EXIT_AFTER * self._grace)
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_AFTER * self._grace)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        with self._hand:
            if self._working == threading.get_ident():
                raise _GivenBack("the time that SIGTERM leaves is over")
            if self._working is not None:
                _send(self._working, _GivenBack)


def _send(thread: int, error: type[BaseException] | None) -> None:
    """Have another thread raise an exception at its next Python instruction; None takes back what has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)
