"""Quotients with a chosen value where the denominator is not positive, instead of a warning and an infinity."""

import numpy as np


def ratio(numerator: np.ndarray | float, denominator: np.ndarray, otherwise: float) -> np.ndarray:
    """Numerator / denominator with broadcasting; `otherwise` where the denominator is 0, negative or NaN."""
    shape = np.broadcast_shapes(np.shape(numerator), denominator.shape)
    return np.asarray(np.divide(numerator, denominator, out=np.full(shape, otherwise), where=denominator > 0))
