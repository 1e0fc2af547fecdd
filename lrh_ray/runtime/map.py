"""The verb `map`: independent blocks over a pool of model replicas that write their own output and return receipts.

    task = SomeBlockTask(...)                 # picklable: how to open a worker
    map_blocks(blocks, task, pool, cluster, on_receipt=print)

Each replica holds one block at a time and answers heartbeats meanwhile; see `lrh_ray.runtime.leases` for who holds
what, `lrh_ray.runtime.policy` for what a failure means, `lrh_ray.runtime.pool` for the loop. Safety does not depend on
any of it: a worker commits through the store's put-if-absent, so a lost, repeated or zombie attempt changes nothing.

Bytes in flight on a node are bounded without counting them: a replica works on one block at a time, its writer keeps a
fixed number of chunks per block (`lrh_ray.store.writer`: the model waits when the disk is behind), and replicas per
node are what its GPUs or CPUs hold. Ray's object store carries the task's recipe and receipts of about 100 bytes.

What can go wrong: a replica that dies or hangs is replaced with its placement group and its block retried; a block that
fails on every attempt is named in `BlockFailed` after the others have finished; a user's mistake stops the run at once;
SIGTERM ends it in order with `RunStopped`.
"""

from collections.abc import Callable, Iterable

from lrh_ray.records import Receipt
from lrh_ray.runtime.cluster import Cluster
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.runtime.pool import Pool
from lrh_ray.runtime.tasks import Task


def map_blocks(
    blocks: Iterable[int],
    task: Task,
    pool: PoolConfig,
    cluster: Cluster,
    *,
    on_receipt: Callable[[Receipt], None] = lambda _: None,
    on_loss: Callable[[str], None] = lambda _: None,
) -> tuple[Receipt, ...]:
    """Process every block once on a pool of replicas; receipts in the order of arrival.

    Args:
        blocks: What to do, in this order as far as replicas are free.
        task: Opens workers; one process per replica (`BlockTask`), or several (`GroupTask`).
        pool: How many replicas, what each takes, and when it counts as hung.
        cluster: What the cluster has.
        on_receipt: Called for every block that was done.
        on_loss: Called with a line of words for every replica that was lost, hung or asked to leave.

    Raises:
        BlockFailed: One or more blocks failed on every attempt; all others are done.
        RunStopped: SIGTERM; what is committed stays.
        ClusterError: The cluster cannot hold the replicas asked for, or no replica could be opened.
        LrhError: A worker hit a mistake that retrying cannot mend.
    """
    return Pool(blocks, task, pool, cluster, on_receipt, on_loss).run()
