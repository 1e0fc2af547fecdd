"""Quiet loading: transformers' progress bars and load reports stay out of the output of workers.

A truncated load leaves the upper layers of a checkpoint unread on purpose, and transformers reports that as a table
of unexpected keys; each of a hundred workers would print it, with a progress bar.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Only errors, and no progress bars, from transformers inside the block; its settings are restored after it."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers does not type it
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
