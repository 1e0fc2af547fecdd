"""Level 3 of `lrh verify`: compute some blocks again with the run's model, and compare with the rows on disk.

    found = reextract(config, "runs/demo/store", sample=4, seed=0)
    found.verdict.ok, found.blocks[0].sites

Checksums say that bytes are the ones that were written; only the model can say that they were the right ones. Rows of
another layer, another checkpoint, another tokenisation pass every checksum and fail here.

A backend that repeats its bytes, in the software that made the block, must give the stored bytes. Otherwise rows must
lie within the tolerance of the parity certificate (median and 99th percentile of the relative error, see
`lrh_ray.models.parity`). Rows stay on the worker; errors travel, in the receipt.

What can go wrong: a configuration with another model than the store's is `StoreConflict`.
"""

import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np

from lrh_ray.errors import StoreConflict
from lrh_ray.layouts import Rows
from lrh_ray.models.backend import Backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.records import Plain, Receipt
from lrh_ray.runtime.cluster import EMBEDDED, connected
from lrh_ray.runtime.map import map_blocks
from lrh_ray.store.commit_records import object_key
from lrh_ray.store.commits import read_commits
from lrh_ray.store.findings import Finding, Verdict
from lrh_ray.store.objects import Location, absolute, open_objects
from lrh_ray.store.parts import Part, open_part
from lrh_ray.store.plan import Plan
from lrh_ray.store.shard_reader import read_rows
from lrh_ray.store.touched import block_rows
from lrh_ray.store.verify import find_store, verify
from lrh_ray.studies.certification import coarser
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.replicas import ReplicaTask, forward_block, replica_task, software_versions
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.weights import find_checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteComparison:
    """Rows of one block at one site, computed again, against those on disk."""

    site: str
    rows: int
    same_bytes: bool
    needs_same_bytes: bool
    max_abs: float
    """Largest difference of any element."""
    min_cosine: float
    p50: float
    p99: float
    """Quantiles of ||h - h*|| / ||h*|| over the rows, h* on disk."""
    passed: bool

    def describe(self) -> str:
        wanted = "the same bytes" if self.needs_same_bytes else "rows within the parity tolerance"
        return (
            f"computed again, {wanted} were expected; largest difference {self.max_abs:.3g}, smallest cosine "
            f"{self.min_cosine:.6f}, relative error p50 {self.p50:.2g}, p99 {self.p99:.2g}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recomputed(Receipt):
    """A receipt that brings the comparison of its block along: the pool of extraction runs it like any other."""

    sites: tuple[SiteComparison, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reextraction:
    """What level 3 found."""

    verdict: Verdict
    blocks: tuple[Recomputed, ...]

    def as_plain(self) -> dict[str, Plain]:
        compared: list[Plain] = [
            {"block": one.block, "sites": [asdict(site) for site in one.sites]} for one in self.blocks
        ]
        return {**self.verdict.as_plain(), "compared": compared}


def reextract(
    config: RunConfig,
    location: Location,
    *,
    sample: int,
    seed: int,
    address: str = EMBEDDED,
    progress: Progress | None = None,
) -> Reextraction:
    """Check a store at level 0, then compute `sample` of its committed blocks again, chosen by `seed`.

    Raises:
        StoreConflict: The configuration names another model than the store was made with.
        BlockFailed: A block could not be computed.
    """
    started, progress = time.monotonic(), progress or Silent()
    location = find_store(location)
    verdict = verify(location, 0)
    part = open_part(location)
    checkpoint = find_checkpoint(config.model, progress)
    _require_model(part, checkpoint, config)
    committed = sorted(set(part.commits) - set(verdict.damaged_blocks))
    blocks = np.random.default_rng(seed).choice(committed, min(sample, len(committed)), replace=False)
    task = replica_task(CompareTask(location=absolute(location), checkpoint=checkpoint, model=config.model))
    progress.begin("computing again", int(part.plan.valid_rows[blocks].sum()), "tokens")
    with connected(address) as cluster:
        receipts = map_blocks(
            sorted(int(block) for block in blocks),
            task,
            config.pool,
            cluster,
            on_receipt=lambda receipt: progress.advance(receipt.rows),
        )
    compared = sorted((cast(Recomputed, receipt) for receipt in receipts), key=lambda one: one.block)
    findings = [finding for one in compared for finding in _findings(part, one)]
    return Reextraction(
        verdict=replace(
            verdict,
            level=3,
            findings=(*verdict.findings, *findings),
            seconds=time.monotonic() - started,
            num_bytes=verdict.num_bytes + sum(one.num_bytes for one in compared),
        ),
        blocks=tuple(compared),
    )


def _require_model(part: Part, checkpoint: Checkpoint, config: RunConfig) -> None:
    from lrh_ray.models.facts import model_facts

    digest = model_facts(checkpoint, config.model, config.store.sites).digest
    made_with = cast(Mapping[str, Plain], part.plan.identity["model"])["digest"]
    if digest != made_with:
        raise StoreConflict(
            f"The model {config.model.name!r} has digest {digest}, the store {part.objects.location!r} was made with "
            f"{made_with}. Give the configuration that made the store."
        )


def _findings(part: Part, compared: Recomputed) -> list[Finding]:
    touched = block_rows(part.plan, compared.block)
    return [
        Finding(
            part="block",
            kind="values",
            key=object_key(site.site, compared.block),
            block=compared.block,
            site=site.site,
            rows=touched.rows,
            message=site.describe(),
        )
        for site in compared.sites
        if not site.passed
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareTask(ReplicaTask):
    """How a worker is opened that compares blocks with a store."""

    def worker(self, plan: Plan, backend: Backend) -> "CompareWorker":
        objects = open_objects(self.location)
        commits = read_commits(objects, plan.num_blocks)
        return CompareWorker(Part(objects=objects, plan=plan, commits=commits, manifest=None), backend)


class CompareWorker:
    """One model replica that computes blocks and writes nothing."""

    def __init__(self, part: Part, backend: Backend) -> None:
        self._part, self._backend = part, backend
        self._software = software_versions(backend)

    def process(self, block: int, attempt: str) -> Recomputed:
        """Compute one block and compare it, as rows arrive."""
        started = time.monotonic()
        commit = self._part.commits[block]
        bytes_repeat = self._backend.describe().repeatable == "bytes" and dict(commit.software) == self._software
        sink = _Comparing(self._part, block)
        forward_block(self._backend, self._part, block, sink)
        sites = tuple(sink.finish(site.name, needs_same_bytes=bytes_repeat) for site in self._part.plan.sites)
        return Recomputed(
            block=block,
            attempt=attempt,
            rows=commit.valid_rows,
            num_bytes=sum(stored.num_bytes for stored in commit.objects.values()),
            seconds=time.monotonic() - started,
            worker=socket.gethostname(),
            committed=False,
            sites=sites,
        )


class _Comparing:
    """A sink that compares rows with those on disk and keeps only the errors."""

    def __init__(self, part: Part, block: int) -> None:
        self._part, self._block = part, block
        self._valid = int(part.plan.valid_rows[block])
        self._stored: dict[str, np.ndarray] = {}
        self._errors = {site.name: np.full(self._valid, np.inf) for site in part.plan.sites}
        self._cosines = {site.name: np.full(self._valid, -1.0) for site in part.plan.sites}
        self._max_abs = dict.fromkeys(self._errors, 0.0)
        self._same = dict.fromkeys(self._errors, True)

    def write(self, site: str, offset: int, rows: Rows) -> None:
        """Compare rows [offset, offset + len(rows)) of the block."""
        from lrh_ray.models.parity import relative_errors

        here = slice(offset, offset + len(rows))
        stored_ND = self._rows(site)[here]
        rows_ND = np.asarray(rows).astype(stored_ND.dtype)
        self._same[site] &= rows_ND.tobytes() == stored_ND.tobytes()
        ours_ND, theirs_ND = rows_ND.astype(np.float64), stored_ND.astype(np.float64)
        self._errors[site][here] = relative_errors(rows_ND, theirs_ND.astype(np.float32))
        self._cosines[site][here] = _cosines(ours_ND, theirs_ND)
        self._max_abs[site] = max(self._max_abs[site], float(np.abs(ours_ND - theirs_ND).max(initial=0.0)))

    def _rows(self, site: str) -> np.ndarray:
        if site not in self._stored:
            plan = self._part.plan
            out = np.empty((self._valid, plan.site(site).width), dtype=plan.dtype_of(site))
            read_rows(self._part.shard(site, self._block), out)
            self._stored[site] = out
        return self._stored[site]

    def finish(self, site: str, *, needs_same_bytes: bool) -> SiteComparison:
        from lrh_ray.models.parity import TOLERANCES

        plan, errors_N = self._part.plan, self._errors[site]
        tolerance = TOLERANCES[coarser(plan.dtype, str(plan.identity["model_dtype"]))]
        p50, p99 = (float(np.quantile(errors_N, q, method="higher")) for q in (0.5, 0.99))
        same = self._same[site] and bool(np.isfinite(errors_N).all())
        return SiteComparison(
            site=site,
            rows=len(errors_N),
            same_bytes=same,
            needs_same_bytes=needs_same_bytes,
            max_abs=self._max_abs[site],
            min_cosine=float(self._cosines[site].min()),
            p50=p50,
            p99=p99,
            passed=same or (not needs_same_bytes and p50 <= tolerance.p50 and p99 <= tolerance.p99),
        )


def _cosines(ours_ND: np.ndarray, theirs_ND: np.ndarray) -> np.ndarray:
    """Per row; 1 where both are zero, 0 where one is."""
    norms_N = np.linalg.norm(ours_ND, axis=1) * np.linalg.norm(theirs_ND, axis=1)
    dots_N = np.einsum("nd,nd->n", ours_ND, theirs_ND)
    alike_N = (np.abs(ours_ND).max(axis=1) == 0) & (np.abs(theirs_ND).max(axis=1) == 0)
    return np.asarray(np.where(norms_N > 0, dots_N / np.where(norms_N > 0, norms_N, 1.0), alike_N.astype(np.float64)))
