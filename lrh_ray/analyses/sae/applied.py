"""A fitted object applied to rows: columns of numbers, one row of them for each row given.

    application = SparseCodes(reader=reader, most=32)
    application.columns              # index [32] int32, value [32] float32
    application.of(rows)             # {"index": [N, 32], "value": [N, 32]}

| application | columns |
|---|---|
| `SparseCodes` | `index`, `value`: codes of a row in the order of latents, then pairs of 0 and 0 |
| `DenseCodes` | `code`: all codes, where most are not 0 |
| `Scores` | `score`: of each probe, log-odds in nats or what else the probe was fitted to |

What can go wrong: a row with more codes than there is room for is `TooLarge`; `MostCodes` counts them beforehand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from lrh_ray.analyses.readout import LinearReadout
from lrh_ray.analyses.sae.codes import Codes
from lrh_ray.analyses.sae.reader import Reader, codes_by_tile
from lrh_ray.errors import TooLarge
from lrh_ray.layouts import Rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One array of an application: [rows, width]."""

    name: str
    width: int
    dtype: Literal["float32", "int32"]


@runtime_checkable
class Application(Protocol):
    """Rows to columns; each row by itself."""

    @property
    def columns(self) -> tuple[Column, ...]: ...

    def of(self, rows: Rows) -> Mapping[str, np.ndarray]:
        """The columns of rows [N, D], by name."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SparseCodes:
    """The positive codes of a row, at most `most` of them."""

    reader: Reader
    most: int

    @property
    def columns(self) -> tuple[Column, ...]:
        index = Column(name="index", width=self.most, dtype="int32")
        return index, Column(name="value", width=self.most, dtype="float32")

    def of(self, rows: Rows) -> Mapping[str, np.ndarray]:
        index = np.zeros((len(rows), self.most), np.int32)
        value = np.zeros((len(rows), self.most), np.float32)
        for tile, dense in codes_by_tile(self.reader, rows):
            codes = Codes.of(dense)
            num = codes.index.shape[1]
            if num > self.most:
                raise TooLarge(
                    f"A row has {num} codes where {self.most} were counted before; this machine rounds in another way "
                    f"than the one that counted. Apply once more, to a new place, on one kind of machine."
                )
            index[tile, :num], value[tile, :num] = codes.index, codes.value
        return {"index": index, "value": value}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DenseCodes:
    """All codes of a row."""

    reader: Reader
    num_latents: int

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column(name="code", width=self.num_latents, dtype="float32"),)

    def of(self, rows: Rows) -> Mapping[str, np.ndarray]:
        code = np.empty((len(rows), self.num_latents), np.float32)
        for tile, dense in codes_by_tile(self.reader, rows):
            code[tile] = dense
        return {"code": code}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scores:
    """What linear probes say, computed in float64."""

    readout: LinearReadout

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column(name="score", width=len(self.readout.intercepts), dtype="float32"),)

    def of(self, rows: Rows) -> Mapping[str, np.ndarray]:
        return {"score": self.readout.scores(rows).astype(np.float32)}


@dataclass(frozen=True, kw_only=True, slots=True)
class MostCodes:
    """Mergeable: the most codes that a row has."""

    count: int

    @classmethod
    def of(cls, rows: Rows, reader: Reader) -> "MostCodes":
        return cls(count=max(int((dense > 0).sum(axis=1).max(initial=0)) for _, dense in codes_by_tile(reader, rows)))

    def merge(self, other: "MostCodes") -> "MostCodes":
        return max(self, other, key=lambda one: one.count)
