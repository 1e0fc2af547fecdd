"""What the tests of the loader share: the store they read, and how its order is told."""

from hypothesis import HealthCheck, settings

LENGTHS = [7, 30, 12, 25, 18, 40, 33, 9, 21, 16] * 4
SITES = ("resid.0", "final_norm")
QUICK = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def order_of(loader):
    return [batch.index.tolist() for batch in loader]


def flat(batches):
    return [row for batch in batches for row in batch]
