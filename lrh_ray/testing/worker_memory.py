"""Peak memory of one extraction worker over all blocks of a planned store.

python -m lrh_ray.testing.worker_memory STORE MODEL_FOLDER   # MiB after the first block, and at the end
"""

import argparse
import sys
import uuid
from pathlib import Path

import torch

from lrh_ray.models.checkpoints import resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.store.objects import open_objects
from lrh_ray.store.plan import read_plan
from lrh_ray.studies.extraction import ExtractTask
from lrh_ray.testing.resident import peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = ExtractTask(
        location=options.store, checkpoint=resolve_checkpoint(options.model), model=ModelConfig(name=options.model)
    )
    worker, first = task.open(), 0.0
    for block in range(read_plan(open_objects(options.store)).num_blocks):
        worker.process(block, uuid.uuid4().hex)
        first = first or peak_bytes() / 2**20
    sys.stdout.write(f"{first:.1f} {peak_bytes() / 2**20:.1f}\n")


if __name__ == "__main__":
    main()
