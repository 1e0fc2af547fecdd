"""A store of more than a million tokens, made once by the ordinary command and checked byte for byte.

    python benchmarks/prove_extract.py --json benchmarks/results/prove_extract.json      # about half an hour on 2 cores

SmolLM2 reads the documentation of the Python library and pieces of its sources, which every machine has. A second call
goes on where a first one was interrupted; the store stays under --runs for whatever comes next.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from store_machine import machine_facts

from lrh_ray.store.reader import open_store

LRH = str(Path(sys.executable).with_name("lrh"))
LEAST_TOKENS = 1_000_000
PIECE, CHARACTERS = 2000, 2_600_000
CONFIG = """\
name: million
runs: {runs}
text:
  sources:
    - kind: python-docs
    - {{kind: jsonl, path: sources.jsonl}}
model:
  name: smollm2
store:
  sites: {sites}
"""


def write_sources(path: Path) -> None:
    """Pieces of the library's modules, of equal size: a document as long as a module would cost its square."""
    num_characters = 0
    with path.open("w", encoding="utf-8") as file:
        for module in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
            text = module.read_text(encoding="utf-8")
            for start in range(0, len(text), PIECE):
                file.write(json.dumps({"id": f"{module.name}:{start}", "text": text[start : start + PIECE]}) + "\n")
            num_characters += len(text)
            if num_characters > CHARACTERS:
                return


def lrh(*arguments: str) -> dict[str, Any]:
    """What a command prints with --json; its progress goes to the terminal."""
    done = subprocess.run([LRH, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"lrh {arguments[0]} ended with {done.returncode}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/prove-03"))
    parser.add_argument("--sites", default="[resid.5, resid.10, resid.15]")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    config = options.runs / "million.yaml"
    write_sources(options.runs / "sources.jsonl")
    config.write_text(CONFIG.format(runs=options.runs.resolve(), sites=options.sites))
    started = time.monotonic()
    extracted = lrh("extract", str(config))
    seconds = time.monotonic() - started
    store = open_store(extracted["store"])
    tokens = int(store.plan.valid_rows.sum())
    started = time.monotonic()
    checked = lrh("verify", str(extracted["store"]), "--level", "2")
    facts = {
        "machine": machine_facts(),
        "tokens": tokens,
        "documents": len(store.document_ids),
        "blocks": store.plan.num_blocks,
        "sites": list(store.sites),
        "dtype": store.plan.dtype,
        "gigabytes": round(store.plan.activation_bytes / 1e9, 3),
        "seconds": round(seconds),
        "tokens_per_second": round(tokens / seconds, 1),
        "root": store.root,
        "extract": {name: value for name, value in extracted.items() if name != "store"},
        "verify_seconds": round(time.monotonic() - started, 1),
        "verify": {name: value for name, value in checked.items() if name != "store"},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps({name: facts[name] for name in ("tokens", "seconds", "tokens_per_second", "root")}, indent=1))
    if tokens < LEAST_TOKENS:
        sys.exit(f"not shown: {tokens} tokens")


if __name__ == "__main__":
    main()
