"""The place of a loader in its run of epochs, and how it is written down.

A place is plain values (integers, strings, lists), as small for a billion rows as for ten, so it goes into any
checkpoint. It carries what it is meaningless without: root digest, seed, window, filters, deal (`Loader.state_dict`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lrh_ray.errors import StateConflict
from lrh_ray.records import Plain
from lrh_ray.store.deal import Dealt

STATE_VERSION = 1
ALL_ROWS = 1 << 62
OWN = ("epoch", "consumed", "rank", "world", "dealt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a loader stands: an epoch, the rows consumed in it, and how its windows were dealt before."""

    epoch: int
    consumed: int = 0
    """Rows of the global sequence with deal='batch', of this rank with deal='window'."""
    dealt: tuple[Dealt, ...] = ()


def encode_place(place: Place) -> dict[str, Plain]:
    dealt: list[Plain] = [[world, list(consumed)] for world, consumed in place.dealt]
    return {"epoch": place.epoch, "consumed": place.consumed, "dealt": dealt}


def decode_place(state: Mapping[str, Plain]) -> Place:
    """The place in a state.

    Raises:
        StateConflict: It is none.
    """
    try:
        numbers = cast(Mapping[str, Any], state)
        dealt = tuple((int(world), tuple(int(rows) for rows in consumed)) for world, consumed in numbers["dealt"])
        place = Place(epoch=int(numbers["epoch"]), consumed=int(numbers["consumed"]), dealt=dealt)
    except (KeyError, TypeError, ValueError) as error:
        raise StateConflict(f"This is no place of a loader ({error!r}): {dict(state)!r}.") from error
    if place.epoch < 0 or place.consumed < 0 or any(len(consumed) != world for world, consumed in dealt):
        raise StateConflict(f"This is no place of a loader: {dict(state)!r}.")
    return place


def join_states(states: Sequence[Mapping[str, Plain]]) -> dict[str, Plain]:
    """One state of a whole run from the states of all its ranks, for any number of ranks to go on from.

    With deal='batch' all ranks' states are the same, and that one is returned.

    Raises:
        StateConflict: States of several runs, of an incomplete set of ranks, or of more than two epochs.
    """
    if not states:
        raise StateConflict("No states to join.")
    shared = [{name: value for name, value in state.items() if name not in OWN} for state in states]
    if any(one != shared[0] for one in shared):
        raise StateConflict("These states belong to different runs. Join the states of all ranks of one run.")
    if shared[0].get("deal") == "batch":
        if any(state != states[0] for state in states):
            raise StateConflict("These states were taken at different batches. Take them after the same batch.")
        return dict(states[0])
    ranks = sorted(states, key=lambda state: cast(int, state.get("rank", -1)))
    places = [decode_place(state) for state in ranks]
    expected = [(number, len(states)) for number in range(len(states))]
    if [(state.get("rank"), state.get("world")) for state in ranks] != expected:
        raise StateConflict(f"Join the states of all ranks, each once; got {[state.get('rank') for state in ranks]}.")
    epoch = min(place.epoch for place in places)
    dealt = next(place.dealt for place in places if place.epoch == epoch)
    consumed = tuple(_consumed_in(epoch, dealt, place) for place in places)
    joined = Place(epoch=epoch, dealt=(*dealt, (len(states), consumed)))
    return {**shared[0], **encode_place(joined)}


def _consumed_in(epoch: int, dealt: tuple[Dealt, ...], place: Place) -> int:
    """Rows a rank consumed in `epoch`; all of them if it stands at the start of the next one."""
    if (place.epoch, place.dealt) == (epoch, dealt):
        return place.consumed
    if (place.epoch, place.consumed) == (epoch + 1, 0):
        return ALL_ROWS
    raise StateConflict(
        f"One rank stands in epoch {epoch}, another {place.consumed} rows into epoch {place.epoch}. Save states at the "
        f"same number of epochs on all ranks."
    )
