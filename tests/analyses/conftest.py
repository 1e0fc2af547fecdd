"""Data sets of `analyses_examples` as fixtures."""

import numpy as np
import pytest
from analyses_examples import Example, make_example


@pytest.fixture(scope="session")
def example() -> Example:
    return make_example(num_rows=700, num_features=12, seed=0)


@pytest.fixture(scope="session")
def harsh_example() -> Example:
    """Covariance of condition 1e8 with two massive dimensions, like a residual stream."""
    data = make_example(num_rows=900, num_features=16, seed=1, scales=np.geomspace(1e-2, 1e2, 16))
    data.rows[:, :2] += [3000.0, -700.0]
    return data
