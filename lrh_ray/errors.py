"""Every error a user can cause, as one family.

Each leaf also inherits the builtin a caller would catch, and carries one finished message: what was wrong, the
value, what is allowed, what to do. No class defines `__init__`, because errors travel between Ray processes by
pickling and must arrive unchanged. The command line prints the message of an `LrhError` and exits with 2; anything
else is a bug of ours and keeps its traceback.
"""


class LrhError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(LrhError, ValueError):
    """A configuration that does not validate; the message names file and line."""


class UnknownName(LrhError, LookupError):
    """A name that no registry knows; the message lists the known ones."""


class DependencyMissing(LrhError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class CorpusError(LrhError, ValueError):
    """Text that cannot be used: empty, malformed (file and line are named), or without the labels asked for."""


class DocumentTooLong(CorpusError):
    """A document that exceeds the model's window or a block, while the configuration does not allow splitting it."""


class CheckpointMissing(LrhError, FileNotFoundError):
    """A model that is neither prepared, nor a checkpoint folder, nor reachable on the hub."""


class CheckpointBroken(LrhError, ValueError):
    """A checkpoint folder that exists and cannot be loaded safely."""


class UnsupportedFamily(LrhError, LookupError):
    """A model type no family file describes; guessing its layout would bind sites to the wrong tensors."""


class SiteError(LrhError, ValueError):
    """A site that does not exist in this model, or a layer out of range."""


class InterventionError(LrhError, ValueError):
    """An edit that cannot be made: the site takes none, or the position or width is not there."""


class EngineFailed(LrhError, RuntimeError):
    """An engine gave no rows, or rows that do not hold together; trying the block again is safe."""


class ParityError(LrhError, ArithmeticError):
    """Extracted rows differ from the plain float32 forward by more than the certificate allows."""


class HubRefused(LrhError, ConnectionError):
    """The hub cannot be reached, or refuses the repository, the token or the bytes; repeating the command resumes."""


class StoreMissing(LrhError, FileNotFoundError):
    """No store at this path."""


class StoreConflict(LrhError, FileExistsError):
    """A store exists at this path and was written by another plan."""


class StoreIncomplete(LrhError, LookupError):
    """A store lacks committed blocks that the caller needs; the message names the row ranges."""


class StoreCorrupt(LrhError, ValueError):
    """Bytes of a store or a result contradict their checksum, their size or their plan."""


class AttemptSuperseded(LrhError, InterruptedError):
    """A newer attempt took the block over; trying again is safe, and finds the block committed or does it."""


class SourceUnusable(LrhError, ValueError):
    """Foreign activations that cannot become a store: a data type, a shape or values no store holds."""


class TooLarge(LrhError, MemoryError):
    """More bytes than the caller allowed in memory; the message names the lazy way or the limit to raise."""


class StateConflict(LrhError, ValueError):
    """A saved place of a loader that belongs to another store, seed, window or set of filters."""


class StoreFull(LrhError, OSError):
    """The disk refused the bytes; committed blocks are intact and the same command resumes."""


class PathUnusable(LrhError, OSError):
    """A place on disk that cannot be written: no permission, read-only, of the wrong kind, or without hard links."""


class BlockFailed(LrhError, RuntimeError):
    """A block failed on every attempt; the message names the block, its rows and the last cause."""


class RunStopped(LrhError, InterruptedError):
    """The run was asked to end (SIGTERM) and did so in order; the same command resumes."""


class ClusterError(LrhError, ConnectionError):
    """The Ray cluster cannot be reached, refuses the token, or lacks the resources asked for."""


class NotEnoughData(LrhError, ValueError):
    """Too few rows, documents or classes for the estimate asked for."""


class NotConverged(LrhError, ArithmeticError):
    """An iterative solver stopped before its certificate held."""


class ResultMissing(LrhError, FileNotFoundError):
    """No result at this path, or one of another format version."""
