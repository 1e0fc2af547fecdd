#!/usr/bin/env bash
# The tests of the store on Python 3.12 and zarr 3.4 or newer, without torch and transformers.
#
#     benchmarks/py312.sh [pytest arguments]        # PYTHON=/path/to/python3.12 to choose the interpreter
#
# The first run creates .venv-py312 and installs the package's core dependencies and what the tests import; later runs
# reuse it. The script fails if torch is importable, zarr is older, or a package is missing that a test may look for;
# so no test is skipped for want of one, and pytest lists the reason of every skip.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3.12}
VENV=${VENV:-.venv-py312}
BIN=$VENV/bin
# `dev` is not used as a whole: torchdata, which is in it, brings torch.
EXTRA=('zarr>=3.4' pytest pytest-timeout hypothesis beartype psutil 'xarray>=2025.1' 'dask[array]>=2025.1' tensorstore
  'datasets>=4.0' 'anndata>=0.12' 'moto[s3]>=5.1' flask flask-cors)

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 12) and "PYTHON must be 3.12 or newer: PYTHON=python3.12")'
if [ ! -e "$VENV/.installed" ] || [ pyproject.toml -nt "$VENV/.installed" ]; then
  test -x "$BIN/python" || "$PYTHON" -m venv "$VENV"
  "$BIN/python" -m pip install --quiet --editable . "${EXTRA[@]}"
  touch "$VENV/.installed"
fi

"$BIN/python" - <<'PY'
import importlib.metadata as metadata
import importlib.util
import sys

present = [name for name in ("torch", "transformers") if importlib.util.find_spec(name)]
if present:
    sys.exit(f"{', '.join(present)} must not be installed here; remove the environment and repeat")
wanted = ("xarray", "dask", "tensorstore", "datasets", "anndata", "moto", "pcodec", "pyarrow", "safetensors", "psutil")
missing = [name for name in wanted if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f"{', '.join(missing)}: not installed; remove the environment and repeat")
major, minor = (int(part) for part in metadata.version("zarr").split(".")[:2])
if (major, minor) < (3, 4):
    sys.exit(f"zarr {metadata.version('zarr')} is older than 3.4")
print(f"Python {sys.version.split()[0]}, zarr {metadata.version('zarr')}, numpy {metadata.version('numpy')}, no torch")
PY

exec "$BIN/python" -m pytest tests/store -m 'not gpu and not model' -ra "$@"
