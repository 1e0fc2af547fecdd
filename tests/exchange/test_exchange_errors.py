"""Whatever a folder or a wish has wrong becomes one typed error that says so."""

import json
import shutil

import numpy as np
import pytest
from exchange_material import GOLDEN, KINDS, OURS, ours, read_rows
from safetensors.numpy import load_file, save_file

from lrh_ray.errors import (
    CheckpointBroken,
    CheckpointMissing,
    ConfigError,
    PathUnusable,
    UnknownName,
    UnsupportedFamily,
)
from lrh_ray.exchange.folders import codec, export_result, import_folder
from lrh_ray.exchange.matrix import EXPORTS, FORMATS, TRANSCODER_EXPORTS
from lrh_ray.exchange.record import TENSORS, Exchanged


def copied(tmp_path, library, name, settings=None, tensors=None):
    """A golden folder with some settings or tensors changed; None takes one away."""
    place = tmp_path / name
    shutil.copytree(GOLDEN / "import" / library / name, place)
    for path in place.glob("*.json"):
        path.write_text(json.dumps(merged(json.loads(path.read_text()), settings or {})))
    for path in place.glob("*.safetensors"):
        save_file(merged(load_file(path), tensors or {}), path)
    return place


def merged(old, new):
    both = {
        key: merged(old[key], value) if isinstance(value, dict) and key in old else value
        for key, value in {**old, **new}.items()
    }
    return {key: value for key, value in both.items() if value is not None}


OTHER = {
    "sae-lens": ("topk", {"architecture": "magic"}, "'magic', unknown for saelens. Read: standard, topk"),
    "sparsify": ("topk", {"activation": "magic"}, "'magic', unknown for sparsify. Read: topk"),
    "dictionary-learning": ("AutoEncoder", {"trainer": {"dict_class": "Magic"}}, "'Magic', unknown for dictionary_l"),
    "llamascopium": ("relu", {"act_fn": "magic"}, "'magic', unknown for openmoss. Read: relu, topk, jumprelu"),
    "gemma-scope": ("safetensors", {"architecture": "magic"}, "'magic', unknown for gemma_scope_2"),
}


@pytest.mark.parametrize("library", OTHER)
def test_an_unknown_architecture_is_named(tmp_path, library):
    name, settings, told = OTHER[library]
    with pytest.raises(UnsupportedFamily, match=told):
        import_folder(copied(tmp_path, library, name, settings))


@pytest.mark.parametrize(
    ("library", "name", "settings", "told"),
    [
        ("sae-lens", "topk", {"architecture": "batchtopk"}, "save_inference_model"),
        ("sae-lens", "standard", {"normalize_activations": "layer_norm"}, "normalises every row by 'layer_norm'"),
        ("sparsify", "topk", {"activation": "groupmax"}, "largest latent of each group"),
        ("sparsify", "topk", {"skip_connection": True}, "sets skip_connection without transcode"),
        ("llamascopium", "topk", {"act_fn": "batchtopk"}, "keeps no threshold"),
        ("llamascopium", "topk", {"sae_type": "clt"}, "it is a 'clt'"),
        ("llamascopium", "topk", {"use_glu_encoder": True}, "use_glu_encoder"),
        ("llamascopium", "topk", {"hook_point_out": "elsewhere"}, "writes 'elsewhere'"),
        ("llamascopium", "topk", {"norm_activation": "token-wise"}, "normalises rows 'token-wise'"),
        ("gemma-scope", "safetensors", {"type": "crosscoder"}, "of type 'crosscoder'. Read: sae, transcoder"),
        (
            "gemma-scope",
            "safetensors",
            {"hf_hook_point_out": "model.layers.12.output", "affine_connection": True},
            "to itself: it adds what it is to explain",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused_with_the_reason(tmp_path, library, name, settings, told):
    with pytest.raises(UnsupportedFamily, match=told):
        import_folder(copied(tmp_path, library, name, settings))


@pytest.mark.parametrize("version", [None, "5.9.1", "none", 6])
def test_saelens_settings_without_a_version_from_6_are_refused(tmp_path, version):
    """SAELens would rewrite them with other defaults."""
    place = copied(tmp_path, "sae-lens", "topk", {"metadata": {"sae_lens_version": version}})
    with pytest.raises(CheckpointBroken, match="6 or later is wanted"):
        import_folder(place)


def test_what_is_written_for_saelens_names_such_a_version(tmp_path):
    codec("saelens").write(ours("topk"), tmp_path / "new")
    written = json.loads((tmp_path / "new" / "cfg.json").read_text())
    assert int(written["metadata"]["sae_lens_version"].split(".")[0]) >= 6


def test_sparsify_decoders_are_not_transposed(tmp_path):
    codec("sparsify").write(ours("topk"), tmp_path / "new")
    assert np.array_equal(load_file(tmp_path / "new" / "sae.safetensors")["W_dec"], OURS["topk/decoder"])


@pytest.mark.parametrize("form", ["dictionary_learning", "openmoss", "gemma_scope", "gemma_scope_2"])
def test_where_the_offset_is_never_subtracted_encoders_read_rows_themselves(tmp_path, form):
    """At x = 0 the pre-activation is the bias of the file, which is ours less encoder b."""
    codec(form).write(ours("jumprelu"), tmp_path / "new")
    again = import_folder(tmp_path / "new")
    at_zero = read_rows(again, np.zeros((1, 8), np.float32))[0]
    own = OURS["jumprelu/encoder_bias"] - OURS["jumprelu/encoder"] @ OURS["jumprelu/decoder_bias"]
    fires = own > np.exp(OURS["jumprelu/log_threshold"])
    assert fires.any()
    assert at_zero[0] == pytest.approx(np.where(fires, own, 0), abs=1e-6)


@pytest.mark.parametrize(
    ("library", "name", "tensors", "told"),
    [
        ("sae-lens", "topk", {"W_dec": None}, "no tensor 'W_dec'"),
        ("sae-lens", "topk", {"W_dec": np.zeros((8, 24), np.float32)}, r"W_dec in .* \[8, 24\]; \[24, 8\] is wanted"),
        ("sae-lens", "topk", {"W_enc": np.zeros(8, np.float32)}, "a matrix is wanted"),
        ("sae-lens", "standard", {"W_skip": np.zeros((8, 8), np.float32)}, "W_skip. Leaving them out would change"),
        ("sae-lens", "standard", {"scaling_factor": np.full(24, 2, np.float32)}, "scaling_factor"),
        ("sae-lens", "gated", {"r_mag": None}, "no tensor 'r_mag'"),
        (
            "sae-lens",
            "standard",
            {"b_enc": np.full(24, np.nan, np.float32)},
            "encoder_bias has values that are not fin",
        ),
        ("sparsify", "topk", {"b_dec": np.zeros(9, np.float32)}, r"b_dec in .* \[9\]; \[8\] is wanted"),
        ("llamascopium", "jumprelu", {"activation_function.log_jumprelu_threshold": None}, "log_jumprelu_threshold"),
        (
            "llamascopium",
            "topk_dataset",
            {"dataset_average_activation_norm.blocks.12.hook_resid_post": None},
            "average",
        ),
        ("gemma-scope", "safetensors", {"threshold": None}, "no tensor 'threshold'"),
        ("gemma-scope", "safetensors", {"w_enc": np.zeros((2, 8, 24), np.float32)}, "a matrix is wanted"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, library, name, tensors, told):
    with pytest.raises(CheckpointBroken, match=told):
        import_folder(copied(tmp_path, library, name, tensors=tensors))


@pytest.mark.parametrize(
    ("library", "name", "settings", "told"),
    [
        ("sae-lens", "topk", {"k": None}, "k is None"),
        ("sae-lens", "topk", {"k": 25}, "from 1 to the number of latents, 24"),
        ("dictionary-learning", "AutoEncoderTopK", {"trainer": {"k": 4}}, "k is 4 in .* and 3 in ae.pt"),
        ("dictionary-learning", "AutoEncoderTopK", {"trainer": "none"}, "no settings under 'trainer'"),
    ],
)
def test_wrong_settings_are_named(tmp_path, library, name, settings, told):
    with pytest.raises(CheckpointBroken, match=told):
        import_folder(copied(tmp_path, library, name, settings))


def test_ones_as_scaling_factors_say_nothing(tmp_path):
    one = import_folder(copied(tmp_path, "sae-lens", "standard", tensors={"scaling_factor": np.ones(24, np.float32)}))
    assert one.kind == "relu"


def test_files_that_are_none_are_named(tmp_path):
    place = copied(tmp_path, "sae-lens", "topk")
    (place / "sae_weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointBroken, match="cannot be read as safetensors"):
        import_folder(place)
    (place / "cfg.json").write_text("{")
    with pytest.raises(CheckpointBroken, match="is not JSON"):
        import_folder(place)
    (place / "cfg.json").write_text("[]")
    with pytest.raises(CheckpointBroken, match="holds list"):
        import_folder(place)
    (tmp_path / "gemma").mkdir()
    np.save(tmp_path / "one.npy", np.zeros(3))
    for content in (b"nothing", b"PK\x03\x04", b"", (tmp_path / "one.npy").read_bytes()):
        (tmp_path / "gemma" / "params.npz").write_bytes(content)
        with pytest.raises(CheckpointBroken, match="cannot be read as npz"):
            import_folder(tmp_path / "gemma")


def test_pickled_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "params.npz", w_enc=np.array([{}], dtype=object))
    with pytest.raises(CheckpointBroken, match="cannot be read as npz"):
        import_folder(tmp_path)


def test_folders_of_no_format_of_two_or_of_an_unknown_one(tmp_path):
    with pytest.raises(CheckpointMissing, match=r"it has no files\. Known: saelens: cfg\.json and sae_weights"):
        import_folder(tmp_path / "nowhere")
    (tmp_path / "sae_weights.pt").touch()
    with pytest.raises(CheckpointMissing, match=r"it has sae_weights\.pt"):
        import_folder(tmp_path)
    with pytest.raises(UnknownName, match=r"No format 'saelense'\. Known: saelens, sparsify"):
        import_folder(tmp_path, "saelense")
    with pytest.raises(CheckpointMissing, match=r"No file .*cfg\.json\. The folder has: sae_weights\.pt"):
        import_folder(tmp_path, "saelens")
    for name in ("cfg.json", "config.json", "sae_weights.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="the files of saelens and openmoss"):
        import_folder(tmp_path)


MATRICES = {"autoencoder": EXPORTS, "transcoder": TRANSCODER_EXPORTS}
REFUSED = [
    (what, form, kind)
    for what, matrix in MATRICES.items()
    for form in FORMATS
    for kind in TENSORS
    if matrix[form][kind].verdict == "refused"
]


@pytest.mark.parametrize(("what", "form", "kind"), REFUSED)
def test_writing_obeys_the_matrix(tmp_path, what, form, kind):
    shapes = {"encoder": (6, 4), "decoder": (6, 4), "low_encoder": (6, 4), "decoder_bias": (4,), "input_offset": (4,)}
    names = (*TENSORS[kind], *(("input_offset",) if what == "transcoder" else ()))
    tensors = {name: np.ones(shapes.get(name, (6,)), np.float32) for name in names}
    one = Exchanged(kind=kind, tensors=tensors, k=2, threshold=0.5 if kind == "threshold" else None)
    takers = [other for other in FORMATS if MATRICES[what][other][kind].verdict != "refused"]
    told = f"These formats take it: {', '.join(takers)}" if takers else "can be read only here"
    with pytest.raises(ConfigError, match=rf"A {kind} {what} cannot be written as {form}: .*{told}"):
        codec(form).write(one, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_every_kind_has_its_place_in_the_matrix():
    assert all(matrix[form].keys() == TENSORS.keys() for matrix in MATRICES.values() for form in FORMATS)
    assert set(KINDS) == {kind for kind in TENSORS if any(EXPORTS[f][kind].verdict != "refused" for f in FORMATS)}


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(PathUnusable, match="is not empty: mine"):
        codec("saelens").write(ours("topk"), tmp_path)


def test_sparsify_has_one_width(tmp_path):
    one = ours("topk_transcoder")
    narrow = {"decoder": one.tensors["decoder"][:, :6], "decoder_bias": one.tensors["decoder_bias"][:6]}
    with pytest.raises(ConfigError, match="reads 8 features and writes 6; sparsify has one width"):
        codec("sparsify").write(ours("topk_transcoder", tensors={**one.tensors, **narrow}), tmp_path / "new")


def test_an_unknown_k_is_not_made_up(tmp_path):
    with pytest.raises(ConfigError, match=r"k is None; .*dataclasses\.replace"):
        codec("dictionary_learning").write(ours("threshold", k=None), tmp_path / "new")


def test_an_autoencoder_that_does_not_hold_together_is_none():
    tensors = ours("relu").tensors
    for changes, told in (
        ({"encoder": tensors["encoder"][0]}, r"encoder is \[8\]; it is \[latents, features\]"),
        ({"decoder": tensors["decoder"].T}, r"decoder is \[8, 24\] beside an encoder of \[24, 8\]"),
        ({"decoder": tensors["decoder"].astype(float)}, "decoder is float64; it is float32"),
        ({"extra": tensors["decoder"]}, "it has encoder, encoder_bias, decoder, decoder_bias"),
        ({"skip": np.zeros((8, 8), np.float32)}, "they are .*skip; it has encoder"),  # what it reads would be added
        ({"input_offset": np.zeros(7, np.float32)}, r"input_offset is \[7\] .*; it is \[8\]"),
    ):
        with pytest.raises(CheckpointBroken, match=told):
            ours("relu", tensors={**tensors, **changes})
    with pytest.raises(CheckpointBroken, match="threshold is -1"):
        ours("threshold", threshold=-1.0)


def test_a_result_that_is_none_is_not_exported(tmp_path):
    with pytest.raises(UnknownName, match="No format 'onnx'"):
        export_result(tmp_path, "resid.1", "topk", "onnx", tmp_path / "new")
