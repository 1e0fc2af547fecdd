"""What to do when a replica or its block fails: pure functions, tested as a table.

A worker that died or hung says nothing about the block, unless it does so on the same block again and again. An error
the user must fix (full disk, another plan, a broken checkpoint) fails every retry too, so the run stops at once. A
worker that was asked to leave (SIGTERM, a node about to be taken away) gives its block back, and that is no attempt at
all. Anything else is retried on a fresh replica, and a block that keeps failing is poison: it is set aside and named,
the others go on.
"""

from enum import Enum, auto


class Failure(Enum):
    """How an attempt ended."""

    WORKER_DIED = auto()
    """A process of the replica, or its node, is gone."""
    HUNG = auto()
    """The replica was silent for too long, or held its block beyond the deadline."""
    DRAINED = auto()
    """The replica was asked to leave and gave its block back."""
    USER_ERROR = auto()
    """An error that only the user can mend."""
    OTHER_ERROR = auto()
    """Any other exception of the worker."""


class Decision(Enum):
    """What happens next."""

    RETRY = auto()
    REQUEUE = auto()
    """Try again, and do not count what happened."""
    QUARANTINE = auto()
    STOP = auto()


def decide(failure: Failure, *, attempt: int, attempts: int) -> Decision:
    """Decide about a block after attempt number `attempt` (from 1) of at most `attempts`."""
    if failure is Failure.USER_ERROR:
        return Decision.STOP
    if failure is Failure.DRAINED:
        return Decision.REQUEUE
    return Decision.RETRY if attempt < attempts else Decision.QUARANTINE


def decide_opening(failure: Failure, *, in_a_row: int, allowed: int) -> Decision:
    """Decide after the opening of a replica failed, `in_a_row` times without a success in between."""
    if failure is Failure.DRAINED:
        return Decision.REQUEUE
    if failure is Failure.USER_ERROR or in_a_row >= allowed:
        return Decision.STOP
    return Decision.RETRY
