"""What every backend must keep on every model, as tests that a backend inherits.

    class TestMine(BackendSuite):
        @pytest.fixture
        def case(self, tmp_path):
            folder = make_tiny("llama", tmp_path)
            return Case(checkpoint=resolve_checkpoint(str(folder)), open=open_backend, config=ModelConfig(name="tiny"))

The oracle is transformers' own forward in float32, one document at a time, with modules looked up in the whole model.
`kinds` names the kinds of sites that the backend gives; laws about others are skipped with that reason.

Legend: N tokens, D features.
"""
# ruff: noqa: S101  # these are tests

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from lrh_ray.errors import InterventionError
from lrh_ray.models.backend import Backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts, read_architecture
from lrh_ray.models.families import Family, family_of
from lrh_ray.models.interventions import UNEDITABLE, Edit, EditableModel
from lrh_ray.models.parity import compare_rows, reference_rows
from lrh_ray.models.quiet import quiet_transformers
from lrh_ray.models.sites import EMBED, FINAL_NORM, VOCABULARY, kind_of
from lrh_ray.models.skeleton import inner_widths
from lrh_ray.models.taps import find_taps, first_of, listening
from lrh_ray.models.tokens import load_tokenizer, tokenize
from lrh_ray.records import Document, SiteSpec, TokenBatch

Opener: TypeAlias = Callable[[Checkpoint, ModelConfig, Sequence[SiteSpec]], Backend]

TEXTS = ("The first.", "A second, rather longer document: twice as long.", "3", "four 4", "quint " * 20)
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A backend on a checkpoint."""

    checkpoint: Checkpoint
    config: ModelConfig
    open: Opener
    kinds: tuple[str, ...] = tuple(VOCABULARY)
    tolerance: float = TOLERANCE
    """Largest relative error of a site's rows, in the Frobenius norm, against float32 transformers."""
    texts: tuple[str, ...] = TEXTS

    def sites(self, *names: str) -> tuple[SiteSpec, ...]:
        return model_facts(self.checkpoint, self.config, names).sites

    def all_sites(self) -> tuple[SiteSpec, ...]:
        """Every site of the kinds this backend gives and this model has."""
        having = {kind_of(site) for site in inner_widths(read_architecture(self.checkpoint))}
        lacking = {"heads", "router", "experts", "mlp_act"} - having
        named = [kind if kind in (EMBED, FINAL_NORM) else f"{kind}.*" for kind in self.kinds if kind not in lacking]
        return self.sites(*named)

    def tokens(self, *texts: str) -> TokenBatch:
        documents = [Document(id=str(index), text=text) for index, text in enumerate(texts or self.texts)]
        tokenizer = load_tokenizer(self.checkpoint)
        return tokenize(documents, tokenizer, render="raw", bos="tokenizer", window=256, too_long="error")

    def rows(self, sites: Sequence[SiteSpec], block: TokenBatch) -> dict[str, np.ndarray]:
        """What the backend delivers, checked for its promises about counts."""
        sink = Collected()
        with closing(self.open(self.checkpoint, self.config, sites)) as backend:
            assert backend.forward(block, sink) == block.num_tokens
        rows = sink.rows()
        assert {name: len(one) for name, one in rows.items()} == {site.name: block.num_tokens for site in sites}
        assert {name: one.shape[1] for name, one in rows.items()} == {site.name: site.width for site in sites}
        return rows


@dataclass
class Collected:
    """A sink that is a dictionary of arrays, and fails on rows written twice."""

    parts: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)

    def write(self, site: str, offset: int, rows: np.ndarray) -> None:
        assert offset not in self.parts.setdefault(site, {}), f"{site}: rows at {offset} arrived twice"
        self.parts[site][offset] = np.array(rows)

    def rows(self) -> dict[str, np.ndarray]:
        return {
            site: np.concatenate([parts[at] for at in sorted(parts)]).astype(np.float64)
            for site, parts in self.parts.items()
        }


def error(rows: np.ndarray, expected: np.ndarray) -> float:
    """Relative error in the Frobenius norm."""
    return float(np.linalg.norm(rows - expected) / np.linalg.norm(expected))


class BackendSuite:
    """The laws, one test each. A subclass brings the fixture `case`."""

    @pytest.fixture
    def block(self, case: Case) -> TokenBatch:
        return case.tokens()

    @pytest.fixture
    def rows(self, case: Case, block: TokenBatch) -> dict[str, np.ndarray]:
        return case.rows(case.all_sites(), block)

    def test_rows_are_those_of_a_plain_forward(
        self, case: Case, block: TokenBatch, rows: dict[str, np.ndarray]
    ) -> None:
        expected = Oracle(case.checkpoint).rows(case.all_sites(), block)
        for site, ours in rows.items():
            if kind_of(site) == "experts":
                np.testing.assert_array_equal(np.sort(ours), np.sort(expected[site]))
            else:
                assert error(ours, expected[site]) <= case.tolerance, site

    def test_the_stream_is_what_blocks_add_to_it(self, case: Case, rows: dict[str, np.ndarray]) -> None:
        _need(case, "resid", "attn_out", "mlp_out")
        num_layers = int(read_architecture(case.checkpoint).num_hidden_layers)
        for k in range(1, num_layers + 1):
            added = rows[f"resid.{k - 1}"] + rows[f"attn_out.{k}"] + rows[f"mlp_out.{k}"]
            assert error(added, rows[f"resid.{k}"]) <= case.tolerance
            assert error(rows[f"resid.{k - 1}"], rows[f"resid.{k}"]) > 100 * case.tolerance  # the null

    def test_projections_of_heads_and_activations_are_what_is_added(
        self, case: Case, rows: dict[str, np.ndarray]
    ) -> None:
        _need(case, "heads", "attn_out", "mlp_act", "mlp_out")
        oracle = Oracle(case.checkpoint)
        blocks = oracle.model.get_submodule(oracle.family.layers)
        for site in (site for site in rows if kind_of(site) in ("heads", "mlp_act")):
            k = int(site.partition(".")[2])
            path, added = {
                "heads": (oracle.family.heads, oracle.family.attn_out),
                "mlp_act": (oracle.family.mlp_act or "", oracle.family.mlp_out),
            }[kind_of(site)]
            block = blocks.get_submodule(str(k - 1))
            with torch.inference_mode():
                value = block.get_submodule(path)(torch.from_numpy(rows[site]).float())
                value = value if path.startswith(f"{added}.") else block.get_submodule(added)(value)  # a norm after it
            out = "attn_out" if kind_of(site) == "heads" else "mlp_out"
            assert error(value.numpy(), rows[f"{out}.{k}"]) <= case.tolerance, site

    def test_the_parity_certificate_agrees(self, case: Case, block: TokenBatch, rows: dict[str, np.ndarray]) -> None:
        reference = reference_rows(case.checkpoint, block, case.all_sites())
        certificate = compare_rows(
            {site: rows[site].astype(np.float32) for site in reference}, reference, dtype="float32"
        )
        certificate.require()
        wrong = dict(reference, **{"resid.1": reference["resid.2"]}) if "resid.2" in reference else {}
        if wrong:
            off_by_one = compare_rows({site: rows[site].astype(np.float32) for site in wrong}, wrong, dtype="float32")
            assert not off_by_one.passed  # the null

    def test_a_document_gives_the_same_rows_alone_and_in_company(
        self, case: Case, block: TokenBatch, rows: dict[str, np.ndarray]
    ) -> None:
        shuffled = case.rows(case.all_sites(), case.tokens(*reversed(case.texts)))
        starts, reverse = block.starts, case.tokens(*reversed(case.texts)).starts
        for site in rows:
            if kind_of(site) == "experts":
                continue  # near ties of random routers may flip
            for index in range(len(case.texts)):
                other = len(case.texts) - 1 - index
                alone = shuffled[site][reverse[other] : reverse[other + 1]]
                assert error(rows[site][starts[index] : starts[index + 1]], alone) <= case.tolerance, site

    def test_rows_do_not_depend_on_what_else_is_asked_for(
        self, case: Case, block: TokenBatch, rows: dict[str, np.ndarray]
    ) -> None:
        _need(case, "resid")
        for name in ("resid.0", "resid.2"):
            alone = case.rows(case.sites(name), block)
            assert error(alone[name], rows[name]) <= case.tolerance

    def test_rows_that_nobody_wants_are_left_out_and_the_others_are_the_same(
        self, case: Case, block: TokenBatch, rows: dict[str, np.ndarray]
    ) -> None:
        _need(case, "resid")
        wanted = np.random.default_rng(0).random(block.num_tokens) < 0.3
        wanted[block.starts[1] : block.starts[2]] = False  # a whole sequence
        sink = Collected()
        with closing(case.open(case.checkpoint, case.config, case.sites("resid.2"))) as backend:
            assert backend.forward(block, sink, wanted) == wanted.sum()
        kept = {offset + i for offset, part in sink.parts["resid.2"].items() for i in range(len(part))}
        assert kept == set(np.flatnonzero(wanted).tolist())
        assert error(sink.rows()["resid.2"], rows["resid.2"][wanted]) <= case.tolerance

    def test_errors_of_the_sink_pass_through_and_the_backend_survives(self, case: Case) -> None:
        _need(case, "resid")
        block = case.tokens("abc")
        with closing(case.open(case.checkpoint, case.config, case.sites("resid.2"))) as backend:
            with pytest.raises(OSError, match="disk full"):
                backend.forward(block, FullDisk())
            assert backend.forward(block, Collected()) == block.num_tokens


class InterventionSuite:
    """The laws of edits. A subclass brings the fixture `case`."""

    @pytest.fixture
    def model(self, case: Case, request: pytest.FixtureRequest) -> EditableModel:
        model = EditableModel(case.checkpoint, case.config)
        request.addfinalizer(model.close)  # noqa: PT021  # type checks hide that a function yields
        return model

    def edits_of(self, case: Case, rows: dict[str, np.ndarray], site: str, *, scale: float) -> list[Edit]:
        """Replaces positions 2 and -1 of the second document by what stands there, times `scale`."""
        block = case.tokens()
        start, length = int(block.starts[1]), int(block.lengths[1])
        value = scale * rows[site][[start + 2, start + length - 1]]
        return [Edit(site=site, kind="replace", sequence=1, positions=(2, -1), value=value)]

    def test_writing_back_what_was_read_changes_nothing(self, case: Case, model: EditableModel) -> None:
        block, sites = case.tokens(), self.sites(case)
        rows = case.rows(sites, block)
        before = model.logits(block)
        for site in sites:
            after = model.logits(block, self.edits_of(case, rows, site.name, scale=1.0))
            assert all(error(a, b) <= case.tolerance for a, b in zip(after, before, strict=True)), site.name

    def test_a_written_value_moves_what_comes_after_it_and_nothing_else(self, case: Case, model: EditableModel) -> None:
        block, sites = case.tokens(), self.sites(case)
        rows = case.rows(sites, block)
        before = model.logits(block)
        for site in sites:
            after = model.logits(block, self.edits_of(case, rows, site.name, scale=-2.0))
            moved = [error(a, b) > case.tolerance for a, b in zip(after, before, strict=True)]
            assert moved == [index == 1 for index in range(len(moved))], site.name
            changed = [error(a, b) > case.tolerance for a, b in zip(after[1], before[1], strict=True)]
            assert not any(changed[:2]), site.name
            assert changed[2], site.name

    def test_projecting_removes_a_direction_and_adding_brings_it_back(self, case: Case, model: EditableModel) -> None:
        block, site = case.tokens(), "resid.2"
        row = case.rows(case.sites(site), block)[site][block.starts[1] + 3]
        before = model.logits(block)
        gone = Edit(site=site, kind="project", sequence=1, positions=(3,), value=row)
        back = Edit(site=site, kind="add", sequence=1, positions=(3,), value=row)
        assert error(model.logits(block, [gone])[1], before[1]) > 10 * case.tolerance
        assert error(model.logits(block, [gone, back])[1], before[1]) <= 10 * case.tolerance

    def test_generation_begins_with_the_likeliest_token_and_follows_edits(
        self, case: Case, model: EditableModel
    ) -> None:
        block = case.tokens()
        plain = model.generate(block, max_new_tokens=3)
        likeliest = [int(logits[-1].argmax()) for logits in model.logits(block, last_only=True)]
        end = model.logits(block)[0].shape[1]
        assert [(ids or (end,))[0] for ids in plain] == [
            token if ids else end for token, ids in zip(likeliest, plain, strict=True)
        ]
        rng = np.random.default_rng(0)
        size = 100 * rng.normal(size=case.sites("resid.2")[0].width)
        pushed = [Edit(site="resid.2", kind="add", sequence=s, positions=(-1,), value=size) for s in range(len(plain))]
        assert model.generate(block, pushed, max_new_tokens=3) != plain

    def sites(self, case: Case) -> tuple[SiteSpec, ...]:
        """One of each kind that takes edits."""
        kinds = {kind_of(site.name): site.name for site in case.all_sites() if site.layer in (None, 2)}
        return case.sites(*(name for kind, name in kinds.items() if kind not in UNEDITABLE))

    def test_edits_that_cannot_be_made_are_one_message(self, case: Case, model: EditableModel) -> None:
        block, width = case.tokens("abc"), case.sites("resid.2")[0].width
        good = Edit(site="resid.2", kind="add", sequence=0, positions=(1,), value=np.ones(width))
        for change, told in (
            ({"site": "embed"}, "edit resid.0"),
            ({"positions": (99,)}, "a sequence of"),
            ({"value": np.ones(width + 1)}, f"{width} wide"),
            ({"value": np.ones((2, width))}, "its 1 rows"),
        ):
            with pytest.raises(InterventionError, match=told):
                model.logits(block, [replace(good, **change)])
        assert len(model.logits(block, [good])) == 1


class FullDisk:
    """A sink that takes nothing."""

    def write(self, site: str, offset: int, rows: np.ndarray) -> None:  # noqa: ARG002  # a protocol
        raise OSError("disk full")


class Oracle:
    """Transformers' own forward of the whole model in float32, one document at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        with quiet_transformers():
            self.model: PreTrainedModel = AutoModel.from_pretrained(
                checkpoint.path, dtype=torch.float32, attn_implementation="eager"
            ).eval()
        self.family: Family = family_of(self.model.config.model_type)

    def rows(self, sites: Sequence[SiteSpec], block: TokenBatch) -> dict[str, np.ndarray]:
        depth = int(self.model.config.num_hidden_layers)
        heard: dict[str, list[np.ndarray]] = {site.name: [] for site in sites}
        table = self.model.get_submodule(self.family.embed).weight
        taps = [tap for tap in find_taps(self.model, self.family, sites, depth) if kind_of(tap.site) != "resid"]
        with torch.inference_mode(), listening(taps, lambda site, value: heard[site].append(_flat(value))):
            for start, stop in zip(block.starts[:-1], block.starts[1:], strict=True):
                ids = torch.from_numpy(block.token_ids[start:stop].astype(np.int64))
                streams = self._streams(ids)
                for site in sites:
                    if kind_of(site.name) == "resid":
                        heard[site.name].append(_flat(streams[site.layer or 0]))
                if EMBED in heard:
                    heard[EMBED].append(_flat(table[ids]))  # type: ignore[index]
        return {site: np.concatenate(parts) for site, parts in heard.items()}

    def _streams(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """Inputs of all blocks and the output of the last, by hooks on whole blocks."""
        streams: list[torch.Tensor] = []
        blocks = list(self.model.get_submodule(self.family.layers).children())
        handles = [
            blocks[0].register_forward_pre_hook(
                lambda _, args, named: streams.append((args[0] if args else named[self.family.stream]).clone()),
                with_kwargs=True,
            )
        ]
        handles += [
            block.register_forward_hook(lambda _, __, out: streams.append(first_of(out).clone())) for block in blocks
        ]
        try:
            self.model(input_ids=ids[None], use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return streams


def _flat(value: torch.Tensor) -> np.ndarray:
    return value.detach().reshape(-1, value.shape[-1]).double().numpy().copy()


def _need(case: Case, *kinds: str) -> None:
    missing = sorted(set(kinds) - set(case.kinds))
    if missing:
        pytest.skip(f"this backend does not give {', '.join(missing)}")
