"""Ray job: probe one run's store. `ray job submit --working-dir . -- python jobs/fit.py configs/demo.yaml`."""

import sys
from pathlib import Path

from lrh_ray.config import load_config
from lrh_ray.studies.probing import probe
from lrh_ray.studies.run import RunConfig


def main(path: str, *overrides: str) -> None:
    """Probe on the cluster this job runs on."""
    config = load_config(Path(path), RunConfig, overrides)
    print(f"result {probe(config, address='auto')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
