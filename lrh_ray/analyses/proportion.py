"""Wilson's interval of a share: one that has a width where all or none of a few trials succeed, and stays in [0, 1].

    wilson(0.98, trials=2048)        # Estimate: .98 [.973, .985]

A mean of numbers between 0 and 1 has no larger variance than a share of the same height, p (1 - p) / n; the interval is
then too wide rather than too narrow.

What can go wrong: trials that hang together are fewer than they look.
"""

import numpy as np

from lrh_ray.analyses.jackknife import Estimate

NORMAL = 1.959963984540054
"""Normal quantile of 97.5 %."""


def wilson(share: float, trials: int) -> Estimate:
    """A share of independent trials with its 95 % interval (Wilson 1927); of no trials NaN between 0 and 1."""
    if not trials:
        return Estimate(value=float("nan"), low=0.0, high=1.0)
    scale = 1 + NORMAL**2 / trials
    middle = (share + NORMAL**2 / (2 * trials)) / scale
    reach = NORMAL / scale * np.sqrt(share * (1 - share) / trials + (NORMAL / (2 * trials)) ** 2)
    low, high = np.clip([middle - reach, middle + reach], 0.0, 1.0)
    return Estimate(value=share, low=float(min(low, share)), high=float(max(high, share)))
