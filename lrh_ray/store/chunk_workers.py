"""Background threads of one block writer: bounded work, reused memory, errors that reach the caller.

    workers = ChunkWorkers(threads=2, depth=4)
    workers.submit(lambda: prepare(chunk))   # returns at once unless `depth` tasks wait
    workers.drain()                          # all done, or the first error
    workers.close()                          # no thread is left

A task may return a second one, its write. Any number of tasks run at once, but one write at a time: two threads that
write one file wait for each other inside the kernel, so a thread that finds a write under way prepares the next chunk
instead. The model's thread hands chunks over and goes on. When the others fall behind it prepares its newest chunk
itself, which its own cache still holds; it waits only when all that is due are writes. After the first error the
remaining tasks are skipped, and the error is raised at every later `submit` and `drain`; nothing waits for work that
will never be done.

What can go wrong: a writer that is neither closed nor used as a context keeps its threads until the process ends (they
are daemons, so it does end).
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Write: TypeAlias = Callable[[], None]
Task: TypeAlias = Callable[[], Write | None]


class Pool(Generic[Item]):
    """Objects that are expensive to make, such as buffers with their pages. The last one returned goes out first."""

    def __init__(self, make: Callable[[], Item]) -> None:
        self._make = make
        self._free: deque[Item] = deque()
        self.num_made = 0

    def take(self) -> Item:
        try:
            return self._free.pop()
        except IndexError:
            self.num_made += 1
            return self._make()

    def give(self, item: Item) -> None:
        self._free.append(item)


class ChunkWorkers:
    """A few threads, at most `depth` tasks and writes that wait, and the submitting thread, which helps."""

    def __init__(self, *, threads: int, depth: int) -> None:
        self._num_threads, self._depth = threads, depth
        self._changed = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._writes: deque[Write] = deque()
        self._running = 0
        self._writing = False
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._closed = False

    def submit(self, task: Task) -> None:
        """Run `task` and its write soon, in any order, or now if too many wait; raises the first error of others."""
        if not self._threads:
            self._start()
        with self._changed:
            self._tasks.append(task)
            self._changed.notify()
        while len(self._tasks) + len(self._writes) > self._depth:
            self._run_one(newest=True)
        self._raise()

    def drain(self) -> None:
        """Help until everything is done; raises the first error."""
        while self._run_one():
            pass
        self._raise()

    def close(self) -> None:
        """Skip what has not begun, wait for what has, end the threads. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self) -> None:
        for number in range(self._num_threads):
            thread = threading.Thread(target=self._work, name=f"chunk-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while self._run_one(forever=True):
            pass

    def _run_one(self, *, newest: bool = False, forever: bool = False) -> bool:
        """Run a write or a task, once there is one; False when nothing is left to do, or with `forever` at the end."""
        with self._changed:
            while not (self._tasks or (self._writes and not self._writing)):
                if self._closed or not (forever or self._running):
                    return False
                self._changed.wait()
            writes = bool(self._writes) and not self._writing
            task: Task = self._writes.popleft() if writes else self._tasks.pop() if newest else self._tasks.popleft()
            self._writing = self._writing or writes
            self._running += 1
        due = self._run(task)
        with self._changed:
            self._running -= 1
            self._writing = self._writing and not writes
            self._writes.extend([due] if due else [])
            self._changed.notify_all()
        return True

    def _run(self, task: Task) -> Write | None:
        try:
            if self._error is None and not self._closed:
                return task()
        except BaseException as error:  # noqa: BLE001  # raised in the submitting thread
            self._error = self._error or error
        return None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
