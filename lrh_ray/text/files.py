"""Files of a source: from the path or glob pattern in a configuration to names that do not depend on the machine.

A document without an id is named after its file and line, so the name of a file must be the same wherever the corpus
lies: its path below the configuration's folder as the configuration writes it, or, for an absolute path, its path
below the last folder that the pattern fixes.

    for file in corpus_files("data/*.jsonl", folder): ...     # names: data/a.jsonl, data/b.jsonl

What can go wrong: no file at the path, a folder, an unreadable file: each a `CorpusError` that names the path.
"""

import glob
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lrh_ray.errors import CorpusError


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusFile:
    """A file to read: `name` stands in document ids, `path` in messages."""

    name: str
    path: Path

    def read_bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise CorpusError(f"Cannot read {str(self.path)!r}: {error.strerror}. Check its permissions.") from error


def corpus_files(pattern: str, folder: Path) -> list[CorpusFile]:
    """Files that `pattern` names, sorted; a `CorpusError` if there are none. Hidden files need an explicit dot."""
    if (folder / pattern).is_file():
        return [_corpus_file(pattern, pattern, folder)]
    matches = sorted(glob.glob(pattern, root_dir=folder, recursive=True))  # noqa: PTH207 - takes absolute patterns too
    files = [_corpus_file(match, pattern, folder) for match in matches if (folder / match).is_file()]
    if not files:
        raise CorpusError(f"No text at {pattern!r}: {_why_nothing(pattern, folder)}")
    return files


def _corpus_file(match: str, pattern: str, folder: Path) -> CorpusFile:
    path = PurePosixPath(Path(match).as_posix())
    name = path.relative_to(_fixed_folder(pattern)) if path.is_absolute() else path
    return CorpusFile(name=str(name), path=folder / match)


def _fixed_folder(pattern: str) -> PurePosixPath:
    """The folder above the first part of `pattern` that can match several names."""
    whole = PurePosixPath(Path(pattern).as_posix())
    magic = (parent for parent in reversed(whole.parents) if glob.has_magic(parent.name))
    return next(magic, whole).parent


def _why_nothing(pattern: str, folder: Path) -> str:
    place = folder / pattern
    if place.is_dir():
        return f"{str(place)!r} is a folder; name the files in it, for example {pattern.rstrip('/') + '/*.jsonl'!r}."
    if glob.has_magic(pattern):
        return f"no file below {str(folder)!r} matches; relative patterns start at the folder of the configuration."
    return f"there is no file {str(place)!r}; relative paths start at the folder of the configuration."
