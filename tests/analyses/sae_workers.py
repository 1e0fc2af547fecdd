"""Training on several workers of a gloo group: what each process of `test_analyses_sae_sharded` runs."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import distributed

from lrh_ray.analyses.sae.architectures.conca import ConCA
from lrh_ray.analyses.sae.architectures.gated import Gated
from lrh_ray.analyses.sae.architectures.jumprelu import JumpRelu
from lrh_ray.analyses.sae.architectures.relu import Relu
from lrh_ray.analyses.sae.dense import DenseTraining
from lrh_ray.analyses.sae.device_step import DeviceTraining
from lrh_ray.analyses.sae.mesh import make_mesh
from lrh_ray.analyses.sae.parameters import first_weights
from lrh_ray.analyses.sae.selection import BatchTopK, TopK
from lrh_ray.analyses.sae.sparse_step import Auxiliary, SparseTraining
from lrh_ray.analyses.sae.sparsity import PowerPenalty
from lrh_ray.collective import Share

WIDTH, LATENTS, ROWS, STEPS, RATE = 24, 96, 64, 100, 1e-3
WRITTEN, SITES = 16, (10, 14)
KINDS = (
    *("topk with dead and skip", "relu with skip", "gated crosscoder"),
    *("topk", "topk with dead", "batchtopk", "matryoshka with dead"),
    *("relu", "p-annealed", "gated", "jumprelu", "jumprelu to a target", "conca layer", "conca group", "conca batch"),
    *("topk, preselected", "batchtopk, preselected"),
)
DEVICE_KINDS = tuple(
    f"device {kind}"
    for kind in (
        *("topk", "topk with dead", "topk with dead and skip", "batchtopk", "matryoshka with dead"),
        *("topk, preselected", "batchtopk, preselected"),
    )
)
"""With the step in torch, on the CPU."""
GRIDS = {2: (1, 2), 4: (2,)}
"""Numbers of workers, and the parts that their latents are cut into; workers of one part share the rows."""
CASES = (*((kind, torch.float64) for kind in (*KINDS, *DEVICE_KINDS)), ("topk", torch.float32))
FEW_CASES = tuple(
    (kind, torch.float64)
    for kind in (
        *("topk with dead", "batchtopk", "jumprelu to a target", "conca batch", "batchtopk, preselected"),
        *("device topk with dead", "device batchtopk", "device matryoshka with dead", "device batchtopk, preselected"),
    )
)


def rows_of(step):
    noise = np.random.default_rng([5, step % 8]).standard_normal((ROWS, WIDTH))
    return 0.7 * noise + np.random.default_rng(6).standard_normal(WIDTH)


def target_of(kind, step):
    """What a transcoder is to explain; others explain what they read."""
    mixed = np.random.default_rng(7).standard_normal((WIDTH, WRITTEN))
    return np.maximum(rows_of(step) @ mixed, 0) / 4 if "skip" in kind else None


def make(kind, mesh, dtype=torch.float64, device="cpu"):
    centre = rows_of(0).mean(axis=0)
    weights = first_weights(LATENTS, centre, seed=0, dtype=dtype)
    if "skip" in kind:
        written = target_of(kind, 0).mean(axis=0)
        weights = first_weights(LATENTS, written, seed=0, read_centre=centre, skip=True, dtype=dtype)
    dead = Auxiliary(dead_after=ROWS if "dead" in kind else 10**9, k=5)
    if "topk" in kind or "matryoshka" in kind:
        engine = partial(DeviceTraining, device=device) if kind.startswith("device") else SparseTraining
        groups = (10, 40, LATENTS) if "matryoshka" in kind else ()
        preselect = LATENTS // 4 if "preselected" in kind else None  # all are candidates
        selection = TopK(k=4) if "topk" in kind and "batch" not in kind else BatchTopK(k=4)
        return engine(weights, selection, groups=groups, auxiliary=dead, mesh=mesh, preselect=preselect)
    own = dict(weights.on(torch.device(device)).named())
    if kind.startswith("jumprelu"):
        penalty = "quadratic" if "target" in kind else "step"
        own["encoder_bias"][::3] -= 100  # of both workers' latents some never fire
        jumps = JumpRelu(own, weight=0.05, penalty=penalty, target=5, bandwidth=0.3, first_threshold=0.3, mesh=mesh)
        return DenseTraining(jumps, dead_after=ROWS)
    if kind.startswith("conca"):
        return DenseTraining(ConCA(own, weight=0.01, norm=kind.removeprefix("conca "), mesh=mesh), dead_after=ROWS)
    annealing = {"last_p": 0.3, "from_step": 20, "to_step": 80} if kind == "p-annealed" else {}
    penalty = PowerPenalty(weight=0.05, mesh=mesh, **annealing)
    widths = SITES if "crosscoder" in kind else ()
    made = (Gated if "gated" in kind else Relu)(own, penalty, widths=widths, mesh=mesh)
    return DenseTraining(made, dead_after=ROWS)


def run(kind, mesh, steps=STEPS, start=None, dtype=torch.float64, device="cpu"):
    """Tensors after `steps` steps, and the facts of each."""
    training = make(kind, mesh, dtype, device)
    first = 0
    if start is not None:
        training.load(start)
        first = int(start["steps"])
    facts = [
        training.step(
            torch.from_numpy(rows_of(step)[mesh.rows.of(ROWS)]).to(dtype).numpy(),
            rate=RATE,
            target=None if target_of(kind, step) is None else target_of(kind, step)[mesh.rows.of(ROWS)],
        )
        for step in range(first, steps)
    ]
    told = [[one.loss, one.penalty, one.l0, one.dead] for one in facts]
    return {name: tensor.contiguous() for name, tensor in training.tensors().items()}, np.array(told)


def recall_of_threes(engine, mesh):
    """Recall where latents in threes are nearly the same, and candidates are as many as codes."""
    weights = first_weights(LATENTS, rows_of(0).mean(axis=0), seed=0, dtype=torch.float32)
    for third, factor in enumerate((1, 1 + 5e-4, 1 + 1e-3)):
        weights.encoder[third::3] = weights.encoder[::3] * factor
    training = (DeviceTraining if engine else SparseTraining)(weights, TopK(k=4), mesh=mesh, preselect=1)
    return training.recall(rows_of(0)[mesh.rows.of(ROWS)].astype(np.float32))


def main(rank, folder, world):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world)
    for parts in GRIDS[world]:
        mesh = make_mesh(Share(rank=rank, world=world), parts=parts)
        for kind, dtype in CASES if world == 2 else FEW_CASES:
            tensors, facts = run(kind, mesh, dtype=dtype)
            name = file_name(kind, dtype, world, parts, mesh.everyone.rank)
            save_file({**tensors, "facts": torch.from_numpy(facts)}, folder / name)
        for engine in ("", "device "):
            recall = torch.tensor(recall_of_threes(engine, mesh))
            name = f"recall-{engine}{world}-{parts}-{mesh.everyone.rank}.safetensors"
            save_file({"recall": recall}, folder / name)
    distributed.destroy_process_group()


def file_name(kind, dtype, world, parts, place):
    return f"{kind}-{dtype}-{world}-{parts}-{place}.safetensors"


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
