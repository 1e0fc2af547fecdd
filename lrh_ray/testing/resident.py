"""Peak memory of this process, as the kernel counts it since the program began.

The usual `ru_maxrss` is wrong for a small process that a large one started: it remembers what its parent held.
"""

from pathlib import Path


def peak_bytes() -> int:
    """Largest resident set so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
