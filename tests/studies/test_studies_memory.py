"""A worker's memory does not depend on how much text there is."""

import json
import subprocess
import sys

from studies_material import config_of

from lrh_ray.config import as_yaml
from lrh_ray.store.seal import create_store
from lrh_ray.studies.extraction import plan_run


def peak_of(material, name, documents):
    """Peak MiB of a worker that extracts this many copies of the corpus's lines, and the tokens it saw."""
    lines = (material / "corpus.jsonl").read_text().splitlines()
    path = material / f"{name}.jsonl"
    with path.open("w") as file:
        for index in range(documents):
            file.write(json.dumps({**json.loads(lines[index % len(lines)]), "id": f"{index}"}) + "\n")
    config = config_of(
        material,
        f"name={name}",
        "store.rows_per_block=2048",
        "store.sites=[resid.*, final_norm]",
        f"text.sources=[{{kind: jsonl, path: {path}}}]",
    )
    planned = plan_run(config, folder=material)
    place = config.store_location
    create_store(place, planned.plan, planned.tokens, planned.corpus, config_yaml=as_yaml(config), provenance={})
    command = [sys.executable, "-m", "lrh_ray.testing.worker_memory", str(place), str(material / "model")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(printed.split()[1]), planned.plan.num_valid_rows


def test_ten_times_the_text_takes_the_same_memory(material):
    small, few = peak_of(material, "memory-small", 120)
    large, many = peak_of(material, "memory-large", 1200)
    assert many > 9 * few
    print(f"peak of the worker: {small:.0f} MiB, {large:.0f} MiB with {many / few:.1f} times the tokens")
    assert large <= 1.05 * small
