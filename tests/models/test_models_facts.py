import json
import shutil

import pytest

from lrh_ray.errors import CheckpointBroken, ConfigError, SiteError, UnsupportedFamily
from lrh_ray.models.checkpoints import Checkpoint, resolve_checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts

ANY = ModelConfig(name="any")


@pytest.fixture
def described(tiny_llama, tmp_path):
    """A copy of the tiny Llama without its weights' bytes, whose config.json a test may change."""
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(tiny_llama.path / name, tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")

    def change(**changes):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return Checkpoint(name="changed", path=tmp_path)

    return change


def test_facts_come_from_the_description_alone(described):
    facts = model_facts(described(max_position_embeddings=77), ANY, ["resid.*", "final_norm"])
    assert (facts.name, facts.family, facts.num_layers, facts.hidden_size) == ("changed", "llama", 4, 64)
    assert (facts.window, facts.dtype, len(facts.sites)) == (77, "float32", 6)


def test_every_family_has_facts(tiny):
    facts = model_facts(tiny, ANY, ["resid.4"])
    assert (facts.num_layers, facts.hidden_size, facts.window, facts.sites[0].width) == (4, 64, 256, 64)


def test_dtype_is_the_checkpoints_own_unless_asked(described):
    checkpoint = described(dtype="bfloat16")
    assert model_facts(checkpoint, ANY, ["resid.0"]).dtype == "bfloat16"
    assert model_facts(checkpoint, ModelConfig(name="any", dtype="float16"), ["resid.0"]).dtype == "float16"


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"model_type": "mamba"}, UnsupportedFamily, "'mamba' has no family file"),
        ({"model_type": None}, UnsupportedFamily, "Known: "),
        ({"dtype": None}, CheckpointBroken, "declares the dtype 'None'"),
        ({"dtype": "float64"}, CheckpointBroken, "bfloat16, float16, float32"),
        ({"hidden_size": "wide"}, CheckpointBroken, "refused by transformers"),
    ],
)
def test_what_would_fail_on_every_worker_fails_here(changes, error, told, described):
    with pytest.raises(error, match=told):
        model_facts(described(**changes), ANY, ["resid.0"])


def test_a_site_beyond_the_last_layer_is_refused(described):
    with pytest.raises(SiteError, match="to 4"):
        model_facts(described(), ANY, ["resid.5"])


def test_a_description_without_model_type_is_broken(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointBroken, match="does not say its model_type"):
        model_facts(Checkpoint(name="x", path=tmp_path), ANY, ["resid.0"])


@pytest.mark.parametrize("wrong", [{"name": " "}, {"batch_tokens": 0}, {"threads": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        ModelConfig(**{"name": "any", **wrong})


def test_ids_of_experts_that_a_dtype_cannot_hold_are_refused(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder("mixtral"), tmp_path / "many")
    config = json.loads((tmp_path / "many/config.json").read_text())
    (tmp_path / "many/config.json").write_text(json.dumps({**config, "num_local_experts": 300}))
    checkpoint = resolve_checkpoint(str(tmp_path / "many"))
    with pytest.raises(SiteError, match=r"300 experts, and bfloat16 is exact only below 257"):
        model_facts(checkpoint, ModelConfig(name="many", dtype="bfloat16"), ["experts.1"])
    assert model_facts(checkpoint, ModelConfig(name="many", dtype="float32"), ["experts.1"]).sites[0].width == 2
    assert model_facts(checkpoint, ModelConfig(name="many", dtype="bfloat16"), ["router.1"]).sites[0].width == 300
