"""Interventions: write values into a forward pass, and see what the model then says.

A correlation between a direction and a concept says what can be read; only an intervention says what the model uses.

    with closing(EditableModel(checkpoint, ModelConfig(name="smollm2"))) as model:
        steer = Edit(site="resid.15", kind="add", sequence=0, positions=(4,), value=direction)
        before, after = model.logits(prompts), model.logits(prompts, edits=[steer])
        ids = model.generate(prompts, edits=[steer], max_new_tokens=5)

An edit changes one sequence, at some of its positions: `add` a vector, `replace` the value, or `project` out the span
of some directions. Sites that take edits are those that the model goes on from: resid, heads, attn_out, mlp_act,
mlp_out and final_norm. Edits of one site are applied in their order; deeper sites see what shallower edits made.

What can go wrong: an edit of `embed` (ask for resid.0), of a router, at a position the sequence does not have, or of
another width is an `InterventionError`.

Legend: B sequences, T positions, D features, R directions, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import nn

from lrh_ray.errors import InterventionError
from lrh_ray.models.batches import plan_batches
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.facts import model_facts, read_architecture
from lrh_ray.models.families import family_of
from lrh_ray.models.hf import chosen_device
from lrh_ray.models.loading import load_causal
from lrh_ray.models.sites import EMBED, kind_of
from lrh_ray.models.taps import Tap, find_taps, first_of
from lrh_ray.records import TokenBatch

Kind: TypeAlias = Literal["add", "replace", "project"]
UNEDITABLE = {
    EMBED: "edit resid.0, which is what the first block receives",
    "router": "the experts are chosen inside the router; edit mlp_out or resid",
    "experts": "the experts are chosen inside the router; edit mlp_out or resid",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One change of one sequence at one site."""

    site: str
    kind: Kind
    sequence: int
    positions: tuple[int, ...]
    """Positions in the sequence; negative ones count from its end."""
    value: np.ndarray
    """add, replace: [feature], or [position, feature] with one row for each; project: [feature] or [direction, feature]
    directions, whose span is removed."""


class EditableModel:
    """A whole causal language model, with its logits, into which values can be written."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig) -> None:
        self._checkpoint, self._config = checkpoint, config
        architecture = read_architecture(checkpoint)
        self._family = family_of(architecture.model_type)
        self._depth = int(architecture.num_hidden_layers)
        self._device = torch.device(chosen_device(config))
        self._model = load_causal(checkpoint, config, self._device.type)

    def logits(
        self, prompts: TokenBatch, edits: Sequence[Edit] = (), *, last_only: bool = False
    ) -> tuple[np.ndarray, ...]:
        """Of each sequence, float32 [positions, vocabulary]; with `last_only` [1, vocabulary], after the last token."""
        found: dict[int, np.ndarray] = {}
        for members in plan_batches(prompts.lengths, self._config.batch_tokens):
            ids, lengths = self._padded(prompts, members)
            with torch.inference_mode(), self._writing(edits, members, lengths):
                out = self._model(input_ids=ids, use_cache=False).logits
            for row, (sequence, length) in enumerate(zip(members, lengths, strict=True)):
                first = length - 1 if last_only else 0
                found[int(sequence)] = out[row, first:length].float().cpu().numpy()
        return tuple(found[sequence] for sequence in range(len(prompts.lengths)))

    def generate(
        self, prompts: TokenBatch, edits: Sequence[Edit] = (), *, max_new_tokens: int
    ) -> tuple[tuple[int, ...], ...]:
        """Greedy continuation of each sequence, the end token left out; edits act where the prompt is read."""
        return tuple(
            self._continue(prompts, sequence, edits, max_new_tokens) for sequence in range(len(prompts.lengths))
        )

    def _continue(
        self, prompts: TokenBatch, sequence: int, edits: Sequence[Edit], max_new_tokens: int
    ) -> tuple[int, ...]:
        members = np.array([sequence])
        ids, lengths = self._padded(prompts, members)
        end = self._model.config.eos_token_id
        ends = {end} if isinstance(end, int) else set(end or ())
        new: list[int] = []
        with torch.inference_mode():
            with self._writing(edits, members, lengths):
                out = self._model(input_ids=ids, use_cache=True)
            while len(new) < max_new_tokens and (token := int(out.logits[0, -1].argmax())) not in ends:
                new.append(token)
                step = torch.tensor([[token]], device=self._device)
                out = self._model(input_ids=step, past_key_values=out.past_key_values, use_cache=True)
        return tuple(new)

    def close(self) -> None:
        """Release the model."""
        del self._model

    def _padded(self, prompts: TokenBatch, members: np.ndarray) -> tuple[torch.Tensor, list[int]]:
        """[sequence, position] ids, padded on the right, where causal attention does not look."""
        lengths = [int(length) for length in prompts.lengths[members]]
        ids = np.zeros((len(members), max(lengths)), np.int64)
        for row, (sequence, length) in enumerate(zip(members, lengths, strict=True)):
            start = int(prompts.starts[sequence])
            ids[row, :length] = prompts.token_ids[start : start + length]
        return torch.from_numpy(ids).to(self._device), lengths

    @contextmanager
    def _writing(self, edits: Sequence[Edit], members: np.ndarray, lengths: Sequence[int]) -> Iterator[None]:
        """Inside the block, forward passes over these sequences are edited."""
        rows = {int(sequence): row for row, sequence in enumerate(members)}
        placed: dict[str, list[_Placed]] = defaultdict(list)
        for edit in edits:
            if edit.sequence in rows:
                row = rows[edit.sequence]
                placed[edit.site].append(self._place(edit, row, lengths[row]))
        with ExitStack() as stack:
            for tap in self._taps(tuple(placed)):
                stack.enter_context(_edited(tap, placed[tap.site], len(members)))
            yield

    def _place(self, edit: Edit, row: int, length: int) -> "_Placed":
        positions = [position + length if position < 0 else position for position in edit.positions]
        if not all(0 <= position < length for position in positions):
            raise InterventionError(
                f"An edit of {edit.site!r} names the positions {edit.positions} of a sequence of {length} tokens."
            )
        value = torch.from_numpy(np.array(edit.value, dtype=np.float32)).to(self._device)
        if edit.kind == "project":
            value = torch.linalg.qr(value.reshape(-1, value.shape[-1]).T).Q.T  # an orthonormal basis [R, D]
        return _Placed(row=row, positions=tuple(positions), kind=edit.kind, value=value)

    def _taps(self, sites: Sequence[str]) -> tuple[Tap, ...]:
        for site in sites:
            if (reason := UNEDITABLE.get(kind_of(site))) is not None:
                raise InterventionError(f"Site {site!r} takes no edits: {reason}.")
        if not sites:
            return ()
        specs = model_facts(self._checkpoint, self._config, sites).sites
        return find_taps(self._model.base_model, self._family, specs, self._depth)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Placed:
    """An edit at its place in a batch."""

    row: int
    positions: tuple[int, ...]
    kind: Kind
    value: torch.Tensor

    def apply(self, site: str, values_BTD: torch.Tensor) -> None:
        """Change a batch in place, in float32, rounded to the model's own type."""
        here = (self.row, list(self.positions))
        rows_PD = values_BTD[here].float()
        if self.value.shape[-1] != rows_PD.shape[-1] or (
            self.kind != "project" and self.value.ndim == 2 and len(self.value) != len(rows_PD)
        ):
            raise InterventionError(
                f"An edit of {site!r} has a value of shape {tuple(self.value.shape)}; its {len(rows_PD)} rows are "
                f"{rows_PD.shape[-1]} wide."
            )
        if self.kind == "add":
            rows_PD = rows_PD + self.value
        elif self.kind == "replace":
            rows_PD = self.value.expand_as(rows_PD)
        else:
            rows_PD = rows_PD - (rows_PD @ self.value.T) @ self.value
        values_BTD[here] = rows_PD.to(values_BTD.dtype)


@contextmanager
def _edited(tap: Tap, edits: Sequence[_Placed], num_sequences: int) -> Iterator[None]:
    """Inside the block, the value at a tap is changed before the model goes on from it."""

    def change(value: torch.Tensor) -> torch.Tensor:
        changed = value.clone()  # others may hold the original
        for edit in edits:
            edit.apply(tap.site, changed.view(num_sequences, -1, value.shape[-1]))
        return changed

    if tap.side == "output":
        handle = tap.module.register_forward_hook(partial(_change_output, tap.item, change))
    else:
        handle = tap.module.register_forward_pre_hook(partial(_change_input, tap.stream, change), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _change_output(item: int, change: Any, _module: nn.Module, _args: object, output: Any) -> Any:
    value = change(first_of(output, item))
    return (*output[:item], value, *output[item + 1 :]) if isinstance(output, tuple) else value


def _change_input(
    stream: str, change: Any, _module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (change(args[0]), *args[1:]), named
    return args, {**named, stream: cast(torch.Tensor, change(named[stream]))}
