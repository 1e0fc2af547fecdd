"""Background threads of one block writer: bounded work, reused memory, errors that reach the caller.

    workers = ChunkWorkers(threads=2, depth=4)
    workers.submit(lambda: finish(chunk))    # returns at once unless `depth` tasks wait
    workers.drain()                          # all done, or the first error
    workers.close()                          # no thread is left

The model's thread hands finished chunks over and goes on. When the threads fall behind it does not wait for them, it
finishes its newest chunk itself, which its own cache still holds: waking a sleeping thread costs as much as a tenth of
a chunk. After the first error the remaining tasks are skipped, and the error is raised at every later `submit` and
`drain`; nothing waits for work that will never be done.

What can go wrong: a writer that is neither closed nor used as a context keeps its threads until the process ends (they
are daemons, so it does end).
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Task = Callable[[], None]


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
    """A few threads, a queue of at most `depth` tasks, and the submitting thread, which helps when they are behind."""

    def __init__(self, *, threads: int, depth: int) -> None:
        self._num_threads, self._depth = threads, depth
        self._tasks: queue.Queue[Task | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._closed = False

    def submit(self, task: Task) -> None:
        """Run `task` soon, or now if too many wait, in any order; raises the first error of earlier tasks."""
        if not self._threads:
            self._start()
        if self._tasks.qsize() < self._depth:
            self._tasks.put(task)
        else:
            self._run(task)
        self._raise()

    def drain(self) -> None:
        """Help until every task is done; raises the first error."""
        while self._run_next(block=False):
            pass
        self._tasks.join()
        self._raise()

    def close(self) -> None:
        """Skip what has not begun, wait for what has, end the threads. Idempotent."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self) -> None:
        for number in range(self._num_threads):
            thread = threading.Thread(target=self._work, name=f"chunk-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while self._run_next(block=True):
            pass

    def _run_next(self, *, block: bool) -> bool:
        """Run the oldest task; False at the end of the work."""
        try:
            task = self._tasks.get(block=block)
        except queue.Empty:
            return False
        if task is not None:
            self._run(task)
        self._tasks.task_done()
        return task is not None

    def _run(self, task: Task) -> None:
        try:
            if self._error is None and not self._closed:
                task()
        except BaseException as error:  # noqa: BLE001  # raised in the submitting thread
            self._error = self._error or error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
