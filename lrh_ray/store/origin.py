"""Which command writes a store, as its plan's identity tells: what a message about an unfinished one says to repeat.

    f"The store {place!r} is not sealed. Finish it with {writing_command(plan.identity, place)}."

A store of a model's rows is written by `lrh extract`, its twin with `--twin`, rows from elsewhere by `lrh import`, and
a derived store by `lrh apply`, whose RESULT and STORE are named by their digests: where they stand is no part of a
plan.

What can go wrong: an identity is read before anybody has vouched for it, so whatever it holds is quoted and cut.
"""

import shlex
from collections.abc import Mapping

from lrh_ray.records import Plain

DERIVED = "derived"
"""Word of a plan's identity that says what a derived store was made from."""
TWIN_OF = "twin_of"
"""Word of a plan's identity that names the plan of which it is the twin."""
SOURCE = "source"
"""Word of a plan's identity that says what an imported store was read from."""
LONGEST = 80


def writing_command(identity: Plain, location: str) -> str:
    """The command that goes on with the store at `location`, in backquotes, and what its arguments stand for."""
    known = identity if isinstance(identity, Mapping) else {}
    derived = known.get(DERIVED)
    if isinstance(derived, Mapping):
        return _apply(derived, location)
    if SOURCE in known:
        return f"`lrh import SOURCE {_word(location)}`"
    return "`lrh extract CONFIG --twin`" if TWIN_OF in known else "`lrh extract CONFIG`"


def _apply(derived: Mapping[str, Plain], location: str) -> str:
    told = {name: _word(str(derived.get(name))[:LONGEST]) for name in ("site", "name", "root", "result", "weights")}
    fitted = f"digest {told['result']}" if derived.get("result") else f"weights of digest {told['weights']}"
    return (
        f"`lrh apply RESULT STORE --site {told['site']} --name {told['name']} -o {_word(location)}` (RESULT with "
        f"{fitted}, STORE with root {told['root']})"
    )


def _word(text: str) -> str:
    """A word of a command line; what could steer a terminal is made visible."""
    return shlex.quote(text if text.isprintable() else ascii(text))
