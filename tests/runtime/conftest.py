"""One embedded cluster for all tests that need one: starting Ray takes five seconds."""

import pytest

from lrh_ray.runtime.cluster import connected


@pytest.fixture(scope="session")
def cluster():
    with connected() as running:
        yield running
