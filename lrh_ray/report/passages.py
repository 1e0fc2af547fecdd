"""Passages with shaded tokens: what a latent fires on, as a reader sees it.

The convention, for whoever makes the result: a table with the columns `latent` and `text` has a row for each passage;
`shown as` (why it was chosen), `code` (at the token it was chosen for) and `document` are shown beside it. Columns
before `latent` say whose latent it is, all others what is true of it (`density`, say). Three arrays of the table's
name hold the tokens, end to end:

    NAME/starts [passages + 1]     the tokens of passage p are starts[p] to starts[p + 1] - 1
    NAME/spans  [tokens, 2]        first and last + 1 character of each token in the passage's text
    NAME/codes  [tokens]           the latent's code there

    for group in latent_groups(table, result.arrays, limit=2000):
        for latent in group.latents:
            latent.passages[0].pieces      # (Piece(text="the ", shade=0.0), Piece(text="socket", shade=1.0), ...)

A shade is the code over the largest code of that latent on the page. Text between tokens, and without arrays all of it,
is not shaded.

What can go wrong: several tokens may share the bytes of one character; the character is shaded by the largest code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from lrh_ray.records import Scalar, Table
from lrh_ray.report.numbers import NO_VALUE, label, number, readable

LATENT, TEXT = "latent", "text"
OF_PASSAGE = ("shown as", "code", "document")
PIECE_LIMIT = 400
LEAST_SHADE = 0.02
"""A paler shade is not seen, and not written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A stretch of text; `shade` in [0, 1], and the exact code as a hint where it is shaded."""

    text: str
    shade: float = 0.0
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """One passage of a latent."""

    shown_as: str
    code: str
    document: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Latent:
    """A latent with what is true of it, in words, and its passages in the order of the table."""

    name: str
    facts: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentGroup:
    """The latents of one autoencoder at one site; `omitted` counts those left out."""

    subject: str
    latents: tuple[Latent, ...]
    omitted: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Row:
    """A row of the table with the spans and codes of its tokens."""

    cells: Mapping[str, Scalar]
    spans: np.ndarray
    codes: np.ndarray


def is_passages(table: Table) -> bool:
    return {LATENT, TEXT} <= set(table.columns)


def latent_groups(table: Table, arrays: Mapping[str, np.ndarray], *, limit: int) -> tuple[LatentGroup, ...]:
    """Latents by whose they are, in order of appearance; `limit` passages in all, as many latents of each."""
    grouped: dict[str, dict[str, list[_Row]]] = {}
    owners = table.columns[: table.columns.index(LATENT)]
    for row in _rows(table, arrays):
        owner = ", ".join(str(row.cells[name]) for name in reversed(owners))
        grouped.setdefault(owner, {}).setdefault(str(row.cells[LATENT]), []).append(row)
    each = max(1, max((len(rows) for latents in grouped.values() for rows in latents.values()), default=1))
    room = max(1, limit // (each * max(1, len(grouped))))
    return tuple(
        LatentGroup(
            subject=readable(owner, 120),
            latents=tuple(_latent(name, rows) for name, rows in list(latents.items())[:room]),
            omitted=max(0, len(latents) - room),
        )
        for owner, latents in grouped.items()
    )


def _rows(table: Table, arrays: Mapping[str, np.ndarray]) -> Iterator[_Row]:
    starts, spans, codes = (arrays.get(f"{table.name}/{part}") for part in ("starts", "spans", "codes"))
    whole = starts is not None and len(starts) == len(table.rows) + 1
    for index, row in enumerate(table.rows):
        cells = dict(zip(table.columns, (*row, *[None] * len(table.columns)), strict=False))
        if whole and starts is not None and spans is not None and codes is not None:
            own = slice(int(starts[index]), int(starts[index + 1]))
            yield _Row(cells=cells, spans=spans[own], codes=codes[own])
        else:
            yield _Row(cells=cells, spans=np.empty((0, 2), np.int64), codes=np.empty(0))


def _latent(name: str, rows: Sequence[_Row]) -> Latent:
    largest = max((float(row.codes.max(initial=0.0)) for row in rows), default=0.0)
    shown = (LATENT, TEXT, *OF_PASSAGE)
    columns = list(rows[0].cells)
    told = [key for key in columns[columns.index(LATENT) :] if key not in shown]
    return Latent(
        name=readable(name, 40),
        facts=readable(" · ".join(f"{label(key)} {_words(rows[0].cells[key])}" for key in told), 200),
        passages=tuple(_passage(row, largest) for row in rows),
    )


def _passage(row: _Row, largest: float) -> Passage:
    why, code, document = (row.cells.get(key) for key in OF_PASSAGE)
    return Passage(
        shown_as="" if why is None else readable(str(why), 40),
        code="" if code is None else _words(code),
        document="" if document is None else readable(str(document), 120),
        pieces=tuple(_pieces(str(row.cells[TEXT] or ""), row.spans, row.codes, largest)),
    )


def _pieces(text: str, spans: np.ndarray, codes: np.ndarray, largest: float) -> Iterator[Piece]:
    """Text cut where the shade changes; every character once, in order."""
    found, borders = np.zeros(len(text)), {0, len(text)}
    for (start, end), code in zip(spans.tolist(), codes.tolist(), strict=True):
        found[start:end] = np.maximum(found[start:end], code)
        borders |= {start, end} & set(range(len(text)))
    stretches = [(text[start:end], float(found[start])) for start, end in pairwise(sorted(borders))]
    for shaded, own in groupby(stretches, key=lambda stretch: largest > 0 and stretch[1] >= LEAST_SHADE * largest):
        if not shaded:
            yield Piece(text=readable("".join(plain for plain, _ in own), PIECE_LIMIT))
            continue
        for token, code in own:
            yield Piece(text=readable(token, PIECE_LIMIT), shade=round(code / largest, 2), hint=number(code))


def _words(value: Scalar) -> str:
    return NO_VALUE if value is None else value if isinstance(value, str) else number(value)
