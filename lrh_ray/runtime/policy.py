"""What to do when a block fails: one pure function, tested as a table.

A worker that died says nothing about the block, unless it dies on the same block again and again. An error the user
must fix (full disk, another plan, a broken checkpoint) fails every retry too, so the run stops at once. Anything else
is retried on a fresh worker, and a block that keeps failing is poison: it is set aside and named, the others go on.
"""

from enum import Enum, auto


class Failure(Enum):
    """How an attempt ended."""

    WORKER_DIED = auto()
    USER_ERROR = auto()
    OTHER_ERROR = auto()


class Decision(Enum):
    """What happens next."""

    RETRY = auto()
    QUARANTINE = auto()
    STOP = auto()


def decide(failure: Failure, *, attempt: int, attempts: int) -> Decision:
    """Decide after attempt number `attempt` (from 1) of at most `attempts`."""
    if failure is Failure.USER_ERROR:
        return Decision.STOP
    return Decision.RETRY if attempt < attempts else Decision.QUARANTINE
