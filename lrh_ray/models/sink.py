"""Where rows go: the one thing a backend asks of whoever stores them.

Rows leave a model site by site and sequence by sequence, in any order, so a sink takes rows at an offset. A list of
arrays is a sink; so is a shard writer.

    class Collected:
        def write(self, site: str, offset: int, rows: Rows) -> None:
            self.rows[site][offset : offset + len(rows)] = rows

What can go wrong: `rows` may be a view of memory that the next layer reuses. A sink that keeps it past `write`
must copy; one that writes it out need not.
"""

from typing import Protocol, runtime_checkable

from lrh_ray.layouts import Rows


@runtime_checkable
class RowSink(Protocol):
    """Receives the rows of one block."""

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Take rows `offset : offset + len(rows)` of the block at `site`, valid until this call returns.

        `rows` has the dtype of the model: float32, float16, or bfloat16 as `ml_dtypes.bfloat16`.
        """
        ...
