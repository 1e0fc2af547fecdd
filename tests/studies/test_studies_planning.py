"""`lrh plan`: every named checkpoint and config is planned, plans agree with real ones, misfits are refused."""

import json
import re
from pathlib import Path

import pytest
from studies_material import config_of

from lrh_ray.cli import main
from lrh_ray.config import load_config, parse_config
from lrh_ray.errors import CheckpointMissing, ConfigError, StoreFull, TooLarge, UnknownName
from lrh_ray.models.known import known_names
from lrh_ray.studies.extraction import plan_run
from lrh_ray.studies.planning import plan, plan_by_numbers, plan_with_text
from lrh_ray.studies.planning_records import Target
from lrh_ray.studies.run import RunConfig

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("**/*.yaml") if path.parent.name != "worlds")
H200 = Target(gpu="h200", gpus=16)
BIG = """\
name: big
text: {sources: [{kind: jsonl, path: absent.jsonl}]}
model: {name: "known:deepseek-v3", engine: vllm, vllm: {longest: 16384}}
store: {sites: ["resid.*", final_norm]}
"""


def run_of(*overrides: str) -> RunConfig:
    return parse_config(BIG, RunConfig, source="big.yaml", overrides=overrides)


@pytest.fixture
def lrh(capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        return stop.value.code or 0, *capsys.readouterr()

    return call


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize("name", known_names())
def test_every_named_checkpoint_is_planned(name, engine):
    config = run_of(f"model.name=known:{name}", f"model.engine={engine}", "model.vllm.longest=4096")
    facts, estimate = plan_by_numbers(config, tokens=10**9, mean=1000, target=H200)
    layers = estimate.depth
    assert len(facts["sites"]) == layers + 2
    assert estimate.row_bytes * 10**9 <= facts["bytes"] <= 1.001 * estimate.row_bytes * 10**9 + 2**32 * (layers + 2)
    assert estimate.device_memory.total <= estimate.device_limit
    assert estimate.replicas * estimate.tensor_parallel <= 16
    assert 0 < estimate.speed.r_max <= 1
    assert estimate.duration.blocks >= 10**9 / estimate.speed.tokens_per_second
    json.dumps(estimate.as_plain())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_planned(path, lrh):
    """From a description where its model has one; the others need a checkpoint, which CI has for SmolLM2 only.

    A choice of rows that only the text decides (`last`) is planned as all.
    """
    config = load_config(path, RunConfig)
    name = {"smollm2": "known:smollm2-135m"}.get(config.model.name, config.model.name)
    arguments = ["plan", str(path), "--tokens", "1e8", "--gpu", "h200", "--gpus", "16"]
    code, out, err = lrh(*arguments, "--set", f"model.name={name}", "--set", "store.rows=all", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["tokens"] == 10**8
    assert facts["estimate"]["device_memory"]["total"] <= facts["estimate"]["device_limit"]


def test_a_plan_by_numbers_has_the_sizes_of_the_real_plan(material):
    config = config_of(material)
    planned = plan_run(config, folder=material)
    lengths = planned.tokens.lengths
    mean = round(float(lengths.mean()))
    real, exact = plan_with_text(config, planned, target=H200, process=0)
    guess, rough = plan_by_numbers(config, tokens=int(lengths.sum()), mean=mean, target=H200)
    assert exact.row_bytes == rough.row_bytes
    assert exact.depth == rough.depth
    assert guess["bytes"] == pytest.approx(real["bytes"], rel=0.25)  # 14 small blocks, so padding counts
    assert exact.host_memory.buffers == pytest.approx(rough.host_memory.buffers, rel=0.8)


def test_rows_that_are_not_kept_are_computed_all_the_same(material):
    estimates = {}
    for rows in ("all", "every:4"):
        config = config_of(material, f"store.rows={rows}")
        planned = plan_run(config, folder=material)
        estimates[rows] = plan_with_text(config, planned, target=H200, process=0)[1]
    assert estimates["every:4"].speed.model == pytest.approx(estimates["all"].speed.model / 4, rel=0.1)
    assert estimates["every:4"].speed.sink == estimates["all"].speed.sink
    with pytest.raises(ConfigError, match="without --tokens"):
        plan_by_numbers(run_of("store.rows=last"), tokens=10**6, target=H200)


def test_this_machine_is_measured(material):
    facts, estimate = plan(config_of(material, "name=measured"), folder=material, target=Target())
    assert not (material / "runs" / "measured").exists()
    assert "plan" in facts
    assert estimate.device_memory is None
    assert estimate.replicas == 1
    assert estimate.speed.bottleneck in ("model", "sink")
    assert 10 < estimate.speed.model < 1e6
    assert 1e5 < estimate.speed.sink * estimate.row_bytes < 1e12
    assert estimate.host_memory.process > 50e6
    assert estimate.host_memory.weights == pytest.approx(4 * estimate.parameters_run, rel=1e-6)
    assert not estimate.assumed
    told = plan(config_of(material), folder=material, target=Target(sink_gbs=0.5))[1]
    assert told.speed.sink * told.row_bytes == pytest.approx(0.5e9)


def test_a_shallow_run_loads_less_and_an_engine_runs_all():
    shallow, deep = (
        plan_by_numbers(
            run_of("model.name=known:llama-3-8b", "model.engine=transformers", sites), tokens=10**6, target=H200
        )[1]
        for sites in ("store.sites=[resid.16]", "store.sites=[resid.32]")
    )
    assert (shallow.depth, deep.depth) == (16, 32)
    assert shallow.speed.model == pytest.approx(2 * deep.speed.model, rel=0.01)
    assert shallow.parameters_run < 0.6 * deep.parameters_run
    whole = plan_by_numbers(run_of("model.name=known:llama-3-8b", "store.sites=[resid.16]"), tokens=10**6, target=H200)[
        1
    ]
    assert whole.depth == 32
    assert whole.parameters_run == whole.parameters


def test_what_cannot_fit_is_refused_before_a_weight_is_read():
    with pytest.raises(TooLarge, match="use 16 GPUs with tensor_parallel 16"):
        plan_by_numbers(run_of("store.sites=[resid.61]"), tokens=10**6, target=Target(gpu="h100", gpus=8))
    with pytest.raises(TooLarge, match=r"on this machine need.*--gpu h200"):
        plan_by_numbers(run_of(), tokens=10**6, target=Target(sink_gbs=1.0))
    tiny = run_of("model.name=known:pythia-70m", "model.engine=transformers")
    with pytest.raises(StoreFull, match="another folder"):
        plan_by_numbers(tiny, tokens=10**11, target=Target(sink_gbs=1.0))
    with pytest.raises(ConfigError, match="tensor_parallel is 32"):
        plan_by_numbers(run_of("model.tensor_parallel=32"), tokens=10**6, target=H200)


def test_mistakes_name_the_remedy(lrh, tmp_path):
    with pytest.raises(UnknownName, match=r"'h900'; known are a100-80, h100"):
        plan_by_numbers(run_of(), tokens=10, target=Target(gpu="h900"))
    with pytest.raises(ConfigError, match="at least 1"):
        plan_by_numbers(run_of(), tokens=0, target=H200)
    with pytest.raises(CheckpointMissing, match="--tokens"):
        plan(run_of(), folder=tmp_path, target=H200)
    config = tmp_path / "big.yaml"
    config.write_text(BIG)
    code, out, err = lrh("extract", str(config))
    assert (code, out) == (2, "")
    assert "without weights" in err


def test_the_table_says_what_where_how_long_what_limits_and_whether_it_fits(lrh, tmp_path):
    config = tmp_path / "big.yaml"
    config.write_text(BIG)
    code, out, _ = lrh("plan", str(config), "--tokens", "1e9", "--gpu", "h200", "--gpus", "16", "--sink-gbs", "10")
    assert code == 0
    text = " ".join(out.split())
    for words in ("671 G parameters", "runs/big/store", "limited by the sink", "R_max 0.", "fits", "assumed 25% of"):
        assert words in text


PAGE = (ROOT / "docs" / "planning.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"```\n\$ lrh (plan .*?)```", PAGE, flags=re.DOTALL))
def test_the_page_shows_what_the_command_prints(block, lrh, monkeypatch):
    monkeypatch.chdir(ROOT)
    command, _, shown = block.partition("\n")
    code, out, _ = lrh(*command.split())
    assert code == 0
    assert out.split() == shown.split()


def test_the_page_names_every_description():
    assert all(f"`{name}`" in PAGE for name in known_names())
