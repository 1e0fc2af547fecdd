"""No engine outlives the process that started it.

vLLM's engine runs in processes of its own, which end when their owner closes them. An owner that is killed closes
nothing: the engine would go on holding the device, and the replica that replaces it would find no memory. So the engine
watches its owner, from the moment it imports our code, which is before it loads a weight.

    environment[OWNER] = str(os.getpid())      # the owner, before it starts the engine
    follow_owner()                             # in the modules that vLLM imports into its processes

What can go wrong: an owner on another machine cannot be watched; a replica's engine stays on one machine.
"""

import os
import signal
import threading
import time

OWNER = "LRH_ENGINE_OWNER"
EVERY_S = 1.0


def follow_owner() -> None:
    """End this process soon after its owner has; nothing happens in the owner itself, or where there is none."""
    owner = int(os.environ.get(OWNER, "0"))
    if owner and owner != os.getpid():
        threading.Thread(target=_follow, args=(owner,), name="lrh-owner", daemon=True).start()


def _follow(owner: int) -> None:
    while _lives(owner):
        time.sleep(EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
