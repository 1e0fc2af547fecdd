"""A connector that fails on demand, inside vLLM's own processes.

The file `fault` in the checkpoint's folder says what the next window does: `error` raises while it is gathered, `nan`
gives values that are not finite, `die` ends the rank's process at once. The file is removed before it acts, so a
fault strikes once.

    backend = VllmBackend(checkpoint, config, sites, connector="lrh_ray.testing.vllm_faults:FaultyConnector")
    (checkpoint.path / "fault").write_text("error")
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch

from lrh_ray.models.vllm.connector import RowsConnector


@final
class FaultyConnector(RowsConnector):
    """The real connector, with one way to fail."""

    def gather(self, block_ids: Sequence[int], positions: np.ndarray, columns: slice) -> torch.Tensor:
        order = Path(self._vllm_config.model_config.model) / "fault"
        rows = super().gather(block_ids, positions, columns)
        if not order.exists():
            return rows
        fault = order.read_text()
        order.unlink()
        if fault == "die":
            os._exit(1)
        if fault == "nan":
            return torch.full_like(rows, float("nan"))
        raise OSError("injected write error")
