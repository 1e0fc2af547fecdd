"""Promises about the code itself."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import lrh_ray.errors
from lrh_ray.config import as_plain, load_config, parse_config
from lrh_ray.errors import LrhError
from lrh_ray.studies.demo import SIZES, demo_config
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.world_config import WorldConfig

ROOT = Path(__file__).parents[1]
LEAVES = [kind for kind in vars(lrh_ray.errors).values() if isinstance(kind, type) and issubclass(kind, LrhError)]


@pytest.mark.parametrize(
    "module", ["lrh_ray", "lrh_ray.cli", "lrh_ray.config", "lrh_ray.records", "lrh_ray.text.config"]
)
def test_light_modules_load_neither_torch_nor_ray(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'ray', 'transformers', 'scipy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind):
    error = kind("what was wrong; what to do")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "what was wrong; what to do"
    assert isinstance(error, kind.__bases__[-1])
    assert "__init__" not in vars(kind)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("**/*.yaml")), ids=lambda path: path.name)
def test_every_config_loads(path):
    kind = WorldConfig if path.parent.name == "worlds" else RunConfig
    config = load_config(path, kind)
    assert parse_config(path.read_text(), kind, source="x") == config
    assert as_plain(config)["name"] == config.name


@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_demo_size_is_a_valid_run(size):
    assert demo_config(size, runs="elsewhere").runs == "elsewhere"


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_jobs_are_forty_lines_at_most(path):
    assert len(path.read_text().splitlines()) <= 40


FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}


@pytest.mark.parametrize("path", sorted((ROOT / "lrh_ray").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_evaluates_or_trusts_remote_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN | {"__future__"}
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "yaml.load", "torch.load", "os.system"}
            for keyword in node.keywords:
                text = f"{keyword.arg}={ast.unparse(keyword.value)}"
                assert text not in {"trust_remote_code=True", "allow_pickle=True", "shell=True", "weights_only=False"}
