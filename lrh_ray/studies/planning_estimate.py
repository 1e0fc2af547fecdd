"""The estimate: time, bottleneck and memory of a run whose sizes are known; GPUs by data sheet, this CPU measured.

    estimate(config, described, layout, Target(gpu="h200", gpus=8), process=0)

Every assumption that enters is a constant below, or is listed in `Estimate.assumed` when it decides the answer.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lrh_ray.errors import ConfigError, StoreFull, TooLarge, UnknownName
from lrh_ray.models.compute import compute_dtype
from lrh_ray.models.costs import (
    GPUS,
    UTILISATION,
    Fleet,
    Gpu,
    Speed,
    Work,
    activation_bytes,
    device_memory,
    flops_per_token,
    gpu_speed,
    loaded,
)
from lrh_ray.models.costs_fit import USABLE, check_tensor_parallel, choose_tensor_parallel
from lrh_ray.models.costs_host import batch_shapes, open_chunks, padded_tokens, typical_shapes
from lrh_ray.models.costs_measured import measure_pace, measure_products
from lrh_ray.models.facts import DtypeName
from lrh_ray.models.meta_facts import Described
from lrh_ray.models.pinned import SLOTS
from lrh_ray.store.writer import DEPTH, THREADS
from lrh_ray.studies.planning_layout import Layout
from lrh_ray.studies.planning_machine import measure_sink, nearest_folder, num_cpus, total_memory
from lrh_ray.studies.planning_records import Duration, Estimate, HostMemory, Target
from lrh_ray.studies.run import RunConfig

SHAPES_TIMED = 3
GPUS_PER_NODE = 8
START_SECONDS = 20.0
"""Ray, a worker and its imports."""
LOADING = 2e9
"""Bytes per second at which weights come from a local disk."""
NODE_SINK = 5e9
"""Bytes per second that a node's disks or its way to a bucket take, if nobody says."""
PARITY_TOKENS = 8 * 256
"""Tokens of the parity certificate: 8 documents of at most 256."""
REFERENCE_FLOPS = 5e11
"""Operations per second of the float32 forward pass on a GPU node's CPUs."""
REFERENCE_FACTOR = 2.0
"""How much longer a token takes in the float32 reference than in the run, on the same CPU."""
GPU_PROCESS = 4 << 30
"""Host memory of a worker that uses a GPU: CUDA's libraries and context."""
WORKER_EXTRA = 96 << 20
"""What Ray, and kernels compiled in the first block, add to a process when it becomes a worker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batches:
    """What the documents of a block mean for batches and buffers."""

    padding: float
    shapes: tuple[tuple[int, int], ...]
    open_chunks: int


def estimate(config: RunConfig, described: Described, layout: Layout, target: Target, process: int) -> Estimate:
    batches = _batches(config, layout)
    if target.gpu is None:
        return _on_this_machine(config, described, layout, target, batches, process)
    work = _work(config, described, layout, batches)
    return _on_gpus(config, described, layout, target, work, batches)


def _batches(config: RunConfig, layout: Layout) -> _Batches:
    size = config.model.batch_tokens
    shapes = [shape for block in layout.sample for shape in batch_shapes(block.seen, size)]
    seen = sum(int(block.seen.sum()) for block in layout.sample)
    rows = sum(int(block.lengths.sum()) for block in layout.sample)
    packed = config.model.engine == "vllm"
    chunks = [
        open_chunks(block.starts, block.lengths, seen=block.seen, batch_tokens=size, chunk_rows=layout.chunk_rows)
        for block in layout.sample
    ]
    return _Batches(
        padding=(seen if packed else padded_tokens(shapes)) / rows, shapes=tuple(shapes), open_chunks=max(chunks)
    )


def _work(config: RunConfig, described: Described, layout: Layout, batches: _Batches) -> Work:
    engine = config.model.engine
    itemsize = described.tree.itemsize
    return Work(
        tokens=layout.tokens,
        depth=described.depth if engine == "transformers" else described.tree.num_layers,
        row_bytes=sum(site.width for site in layout.sites) * itemsize,
        widest_bytes=max(site.width for site in layout.sites) * itemsize,
        batch_tokens=config.model.batch_tokens,
        attended=layout.attended,
        longest=layout.longest if engine == "transformers" else config.model.vllm.longest or described.window,
        padding=batches.padding,
    )


def _on_gpus(
    config: RunConfig, described: Described, layout: Layout, target: Target, work: Work, batches: _Batches
) -> Estimate:
    gpu, tree, engine = _gpu(target), described.tree, config.model.engine
    ranks = _ranks(config, described, work, gpu, target.gpus)
    nodes = -(-target.gpus // GPUS_PER_NODE)
    sink = target.sink_gbs * 1e9 if target.sink_gbs else NODE_SINK * nodes
    usual = UTILISATION[engine][tree.has_experts]
    fleet = Fleet(
        gpu=gpu,
        gpus=target.gpus // ranks * ranks,
        tensor_parallel=ranks,
        engine=engine,
        utilisation=target.utilisation or usual,
        sink=sink * work.row_bytes / layout.row_bytes,
    )
    speed = gpu_speed(tree, work, fleet)
    weights = sum(weight.num_bytes for weight in loaded(tree, work.depth, config.model.engine))
    flops = flops_per_token(tree, depth=work.depth, attended=work.attended, logits=False)
    certificate = weights / LOADING + min(layout.tokens, PARITY_TOKENS) * flops / REFERENCE_FLOPS
    assumed = [
        *([] if target.utilisation else [f"{usual:.0%} of the GPUs' peak (--mfu)"]),
        *([] if target.sink_gbs else [f"the store takes {sink / 1e9:g} GB/s (--sink-gbs)"]),
        f"weights load at {LOADING / 1e9:g} GB/s",
    ]
    return Estimate(
        engine=engine,
        device=f"{target.gpus} x {gpu.name}",
        replicas=fleet.replicas,
        tensor_parallel=ranks,
        parameters=tree.num_parameters,
        parameters_run=sum(weight.num for weight in loaded(tree, work.depth, config.model.engine)),
        depth=work.depth,
        flops_per_token=flops,
        row_bytes=layout.row_bytes,
        speed=speed,
        duration=Duration(
            start=START_SECONDS + weights / LOADING,
            blocks=_seconds(layout, speed, fleet.replicas),
            certificate=certificate,
        ),
        device_memory=device_memory(tree, work, tensor_parallel=ranks, engine=engine),
        device_limit=int(USABLE * gpu.memory),
        host_memory=HostMemory(
            process=GPU_PROCESS,
            weights=0,
            activations=0,
            ring=_ring(config, work),
            buffers=_buffers(layout, batches),
        ),
        host_limit=None,
        disk_limit=None,
        assumed=tuple(assumed),
    )


def _gpu(target: Target) -> Gpu:
    name = str(target.gpu).lower()
    if name not in GPUS:
        raise UnknownName(f"No GPU type is called {target.gpu!r}; known are {', '.join(sorted(GPUS))}.")
    if target.gpus < 1:
        raise ConfigError(f"{target.gpus!r} GPUs; at least 1 is needed.")
    return GPUS[name]


def _ranks(config: RunConfig, described: Described, work: Work, gpu: Gpu, gpus: int) -> int:
    """Ranks of one replica: as configured, or as few as hold it."""
    asked = config.model.tensor_parallel
    if asked > 1:
        return check_tensor_parallel(described.tree, work, ranks=asked, gpu=gpu, gpus=gpus, engine=config.model.engine)
    return choose_tensor_parallel(described.tree, work, gpu=gpu, gpus=gpus, engine=config.model.engine)


def _on_this_machine(
    config: RunConfig,
    described: Described,
    layout: Layout,
    target: Target,
    batches: _Batches,
    process: int,
) -> Estimate:
    engine = config.model.engine
    compute = described.dtype if engine == "vllm" else compute_dtype(described.dtype, config.model, "cpu")
    described = described.computed_in(compute)
    work = _work(config, described, layout, batches)
    tree, cpus = described.tree, num_cpus()
    replicas = config.pool.replicas or 1
    threads = config.model.threads or int(config.pool.cpus or max(1, cpus // replicas))
    seconds_per_token, rough = _pace(described, compute, work, batches, threads)
    sink, told = _local_sink(config, layout, target, replicas)
    speed = Speed(
        model=replicas / (seconds_per_token * work.padding),
        link=float("inf"),
        sink=sink / layout.row_bytes,
    )
    weights = sum(weight.num_bytes for weight in loaded(tree, work.depth, config.model.engine))
    reference = min(layout.tokens, PARITY_TOKENS) * seconds_per_token * REFERENCE_FACTOR
    found = Estimate(
        engine=config.model.engine,
        device=f"this CPU, {threads} threads",
        replicas=replicas,
        tensor_parallel=1,
        parameters=tree.num_parameters,
        parameters_run=sum(weight.num for weight in loaded(tree, work.depth, config.model.engine)),
        depth=work.depth,
        flops_per_token=flops_per_token(tree, depth=work.depth, attended=work.attended, logits=False),
        row_bytes=layout.row_bytes,
        speed=speed,
        duration=Duration(
            start=START_SECONDS + weights / LOADING,
            blocks=_seconds(layout, speed, replicas),
            certificate=reference,
        ),
        device_memory=None,
        device_limit=None,
        host_memory=HostMemory(
            process=process + WORKER_EXTRA,
            weights=weights,
            activations=min(work.tokens_at_once, layout.tokens) * activation_bytes(tree, work.depth),
            ring=_ring(config, work) if config.model.engine == "vllm" else 0,
            buffers=_buffers(layout, batches),
        ),
        host_limit=total_memory(),
        disk_limit=_free_disk(config),
        assumed=(*rough, *told),
    )
    _refuse(found, config, layout)
    return found


def _pace(
    described: Described, compute: DtypeName, work: Work, batches: _Batches, threads: int
) -> tuple[float, tuple[str, ...]]:
    """Seconds per padded token on this CPU, and what had to be assumed for it."""
    shapes = typical_shapes(batches.shapes, SHAPES_TIMED)
    pace = measure_pace(described.architecture, compute, depth=max(work.depth, 1), shapes=shapes, threads=threads)
    if pace is not None:
        return pace.seconds_per_token, ()
    flops = flops_per_token(described.tree, depth=work.depth, attended=work.attended, logits=False)
    rate = measure_products(compute, threads=threads)
    return flops / rate, ("the model runs at this CPU's speed of matrix products; a block was too large to try",)


def _local_sink(config: RunConfig, layout: Layout, target: Target, replicas: int) -> tuple[float, tuple[str, ...]]:
    if target.sink_gbs:
        return target.sink_gbs * 1e9, ()
    location = config.store_location
    if isinstance(location, Path):
        measured = measure_sink(nearest_folder(location), layout, config.store.compression)
        if measured is not None:
            return measured * replicas, ()
    return NODE_SINK, (f"the store takes {NODE_SINK / 1e9:g} GB/s (--sink-gbs)",)


def _seconds(layout: Layout, speed: Speed, replicas: int) -> float:
    """Time of all blocks. Replicas take whole blocks, so the last round may leave some of them idle."""
    rounds = -(-layout.blocks // replicas) * replicas / layout.blocks
    return layout.tokens / speed.tokens_per_second * rounds


def _ring(config: RunConfig, work: Work) -> int:
    """Page-locked or shared memory through which rows leave the engine."""
    if config.model.engine == "vllm":
        return config.model.vllm.ring_mib << 20
    return SLOTS * work.tokens_at_once * work.widest_bytes


def _buffers(layout: Layout, batches: _Batches) -> int:
    chunk_bytes = layout.chunk_rows * layout.itemsize
    standing = batches.open_chunks * sum(site.width for site in layout.sites)
    waiting = (DEPTH + THREADS + 1) * max(site.width for site in layout.sites)
    return chunk_bytes * (standing + waiting)


def _free_disk(config: RunConfig) -> int | None:
    """Bytes free where a new local store would stand; None for a bucket, and for a store that is begun."""
    location = config.store_location
    if not isinstance(location, Path) or location.exists():
        return None
    return shutil.disk_usage(nearest_folder(location)).free


def _refuse(found: Estimate, config: RunConfig, layout: Layout) -> None:
    """What this machine cannot hold is refused now."""
    need = found.host_memory.total * found.replicas
    if found.host_limit is not None and need > found.host_limit:
        parts = found.host_memory
        raise TooLarge(
            f"{found.replicas} workers on this machine need {need / 1e9:.1f} GB of memory and it has "
            f"{found.host_limit / 1e9:.1f} GB (weights {parts.weights / 1e9:.1f}, store buffers "
            f"{parts.buffers / 1e9:.1f}). Plan for GPUs (--gpu h200 --gpus 8), lower store.rows_per_block "
            f"({layout.rows_per_block}), or ask for fewer or shallower sites."
        )
    if found.disk_limit is not None and layout.num_bytes > found.disk_limit:
        raise StoreFull(
            f"The store {str(config.store_location)!r} needs {layout.num_bytes / 1e9:.2f} GB and the disk has "
            f"{found.disk_limit / 1e9:.2f} GB. Choose another folder (`runs`) or a bucket (`store.location`), or ask "
            f"for fewer sites."
        )
