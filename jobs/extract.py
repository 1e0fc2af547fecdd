"""Ray job: extract one run's store. `ray job submit --working-dir . -- python jobs/extract.py configs/demo.yaml`."""

import sys
from pathlib import Path

from lrh_ray.config import load_config
from lrh_ray.studies.extraction import extract
from lrh_ray.studies.run import RunConfig


def main(path: str, *overrides: str) -> None:
    """Extract on the cluster this job runs on."""
    config = load_config(Path(path), RunConfig, overrides)
    facts = extract(config, folder=Path(path).parent, address="auto")
    print(f"store {facts['store']} root {facts['root']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
