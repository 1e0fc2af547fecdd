"""Digests: one canonical form for everything that is hashed.

A digest is the first 32 hexadecimal digits (128 bits) of BLAKE3. Records are hashed as canonical JSON: sorted keys,
no spaces, UTF-8, finite numbers only; so a digest does not depend on the order in which fields were written.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

DIGEST_LENGTH = 32


def canonical_json(value: object) -> bytes:
    """`value` as canonical JSON; NaN and infinities are refused because JSON has no name for them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes | memoryview) -> str:
    return blake3(data).hexdigest()[:DIGEST_LENGTH]


def digest_json(value: object) -> str:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Digest of a file's bytes, read through mmap."""
    return blake3().update_mmap(path).hexdigest()[:DIGEST_LENGTH]


def digest_files(files: Mapping[str, Path]) -> str:
    """Digest of several named files: names and contents both count, their order does not."""
    return digest_json({name: digest_file(path) for name, path in files.items()})
