"""Text to store: tokenise, plan, seal the plan, extract on a pool, certify, seal the store.

Running it again resumes: the plan is made anew and must equal the standing one, committed blocks are left alone, and a
sealed store is returned as it is. The store is the truth; nothing else is remembered between runs.
"""

import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import cast

from lrh_ray.config import as_yaml
from lrh_ray.errors import BlockFailed, StoreFull
from lrh_ray.models.backend import Backend
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.records import Context, Corpus, ModelFacts, Plain, Receipt, TokenBatch
from lrh_ray.runtime.cluster import EMBEDDED, Cluster, connected
from lrh_ray.runtime.map import map_blocks
from lrh_ray.runtime.nonce import require_shared
from lrh_ray.store.commits import pending_blocks, recover
from lrh_ray.store.growth import grow_plan, new_documents
from lrh_ray.store.objects import Location, Objects, absolute, open_objects
from lrh_ray.store.parts import Part
from lrh_ray.store.plan import Plan, make_plan
from lrh_ray.store.reader import Store, open_store
from lrh_ray.store.seal import create_store, is_sealed, seal
from lrh_ray.store.writer import BlockWriter
from lrh_ray.studies.certification import certify
from lrh_ray.studies.progress import Progress, Silent
from lrh_ray.studies.replicas import ReplicaTask, forward_block, replica_task, software_versions
from lrh_ray.studies.run import RunConfig
from lrh_ray.studies.weights import find_checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A run's plan with everything it was made from."""

    plan: Plan
    tokens: TokenBatch
    """Who the rows are."""
    context: Context | None
    """Whole sequences, where rows are fewer than tokens."""
    corpus: Corpus
    model: ModelFacts
    checkpoint: Checkpoint


def plan_run(config: RunConfig, *, folder: Path, progress: Progress | None = None) -> Planned:
    """Read the corpus, tokenise it and plan the store; writes nothing. `folder` is where relative paths start."""
    from lrh_ray.models.facts import model_facts
    from lrh_ray.models.selection import choose_rows, context_digest
    from lrh_ray.models.tokens import load_tokenizer, template_digest, tokenize
    from lrh_ray.text.corpus import read_corpus

    progress = progress or Silent()
    checkpoint = find_checkpoint(config.model, progress)
    facts = model_facts(checkpoint, config.model, config.store.sites)
    progress.begin("reading text")
    corpus = read_corpus(config.text, folder=folder)
    base = None if config.store.base is None else open_store(config.store.base)
    if base is not None:
        corpus = replace(corpus, documents=new_documents(base, corpus.documents) or corpus.documents)
    progress.begin(f"tokenising {len(corpus.documents)} documents")
    tokenizer = load_tokenizer(checkpoint)
    tokens = tokenize(
        corpus.documents,
        tokenizer,
        render=config.text.render,
        bos=config.text.bos,
        window=facts.window,
        too_long=config.text.too_long,
    )
    chosen = choose_rows(tokens, corpus.documents, rows=config.store.rows, pool=config.store.pool)
    tokens, context = chosen.rows, chosen.context
    identity: dict[str, Plain] = {
        "corpus": corpus.digest,
        "skipped": corpus.skipped,
        "render": config.text.render,
        "template": template_digest(tokenizer, config.text.render),
        "bos": config.text.bos,
        "too_long": config.text.too_long,
    }
    if context is not None:
        identity["context"] = context_digest(context)
    if base is None:
        plan = make_plan(tokens, facts, config.store, identity)
    else:
        plan = grow_plan(base, tokens, facts, config.store, identity)
    return Planned(plan=plan, tokens=tokens, context=context, corpus=corpus, model=facts, checkpoint=checkpoint)


def plan_facts(planned: Planned) -> dict[str, Plain]:
    """What `lrh plan` tells before anything runs."""
    plan = planned.plan
    return {
        "plan": plan.digest,
        "model": planned.model.name,
        "family": planned.model.family,
        "documents": len(planned.corpus.documents),
        "skipped": planned.corpus.skipped,
        "tokens": plan.num_valid_rows,
        "sites": [site.name for site in plan.sites],
        "dtype": plan.dtype,
        "blocks": plan.num_blocks,
        "rows_per_block": plan.rows_per_block,
        "chunk_rows": plan.chunk_rows,
        "padding": round(1 - plan.num_valid_rows / plan.num_rows, 6),
        "bytes": plan.activation_bytes,
        "files": plan.num_files,
    }


def extract(
    config: RunConfig,
    *,
    folder: Path,
    address: str = EMBEDDED,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> dict[str, Plain]:
    """Write the run's store, or finish it, or find it finished; returns facts about it.

    With `allow_missing` blocks that fail on every attempt are left out and named in the manifest; a later run of the
    same command tries them again.

    Raises:
        StoreConflict: The run's folder holds the store of another plan.
        StoreFull: The disk cannot hold it.
        BlockFailed: A block failed on every attempt.
        ParityError: The rows do not match a plain float32 forward; the store is not sealed.
    """
    progress = progress or Silent()
    planned = plan_run(config, folder=folder, progress=progress)
    return extract_planned(config, planned, address=address, allow_missing=allow_missing, progress=progress)


def extract_planned(
    config: RunConfig, planned: Planned, *, address: str, allow_missing: bool, progress: Progress
) -> dict[str, Plain]:
    """`extract` of a plan that is made already; `config` says where its store stands and how the model runs."""
    location, plan = config.store_location, planned.plan
    create_store(
        location,
        plan,
        planned.tokens,
        planned.corpus,
        config_yaml=as_yaml(config),
        provenance=_provenance(planned),
        context=planned.context,
    )
    objects = open_objects(location)
    recover(objects, plan.num_blocks)
    pending = pending_blocks(objects, plan)
    if pending or not is_sealed(location):
        refuse_without_space(objects, plan, len(pending))
        with connected(address) as cluster:
            try:
                _extract_blocks(pending, config, planned, cluster, progress)
            except BlockFailed:
                if not allow_missing:
                    raise
            progress.begin("comparing with a plain float32 forward")
            parity = certify(location, plan, planned.tokens, planned.context, planned.checkpoint)
        progress.begin("sealing")
        seal(location, plan, parity=parity, allow_missing=allow_missing)
    return store_facts(open_store(location))


def _extract_blocks(
    pending: Sequence[int], config: RunConfig, planned: Planned, cluster: Cluster, progress: Progress
) -> None:
    plan = planned.plan
    done = plan.num_valid_rows - int(plan.valid_rows[list(pending)].sum())
    progress.begin("extracting", plan.num_valid_rows, "tokens", done)
    location = absolute(config.store_location)
    require_shared(location, cluster)
    map_blocks(
        pending,
        replica_task(ExtractTask(location=location, checkpoint=planned.checkpoint, model=config.model)),
        config.pool,
        cluster,
        on_receipt=lambda receipt: progress.advance(receipt.rows),
        on_loss=progress.say,
    )


def _provenance(planned: Planned) -> dict[str, Plain]:
    return {
        "model": asdict(planned.model)["name"],
        "model_digest": planned.model.digest,
        "corpus": planned.corpus.digest,
        "created_by": f"lrh-ray {metadata.version('lrh-ray')}",
    }


def refuse_without_space(objects: Objects, plan: Plan, pending: int) -> None:
    """Stop before the first block where the disk cannot hold those that are to do.

    Raises:
        StoreFull: Too few bytes are free.
    """
    root = objects.local_path("plan")
    if root is None:
        return  # a bucket has no end
    needed = plan.activation_bytes * pending // plan.num_blocks
    free = shutil.disk_usage(root).free
    if needed > free:
        raise StoreFull(
            f"The store {objects.location!r} needs {needed / 1e9:.2f} GB more and the disk has {free / 1e9:.2f} GB. "
            f"Free some space, choose another folder (`runs`), or ask for fewer sites."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractTask(ReplicaTask):
    """How a worker is opened that fills a store."""

    def worker(self, plan: Plan, backend: Backend) -> "ExtractWorker":
        return ExtractWorker(self.location, plan, backend)


class ExtractWorker:
    """One model replica that writes the blocks it is given."""

    def __init__(self, location: Location, plan: Plan, backend: Backend) -> None:
        self._location, self._plan, self._backend = location, plan, backend
        self._part = Part(objects=open_objects(location), plan=plan, commits={}, manifest=None)
        self._software = software_versions(backend)

    def process(self, block: int, attempt: str) -> Receipt:
        """Run one block through the model and commit it; every planned row must arrive."""
        with BlockWriter(
            self._location,
            self._plan,
            block=block,
            attempt=attempt,
            worker=socket.gethostname(),
            software=self._software,
        ) as writer:
            forward_block(self._backend, self._part, block, writer)
            return writer.commit()


def store_facts(store: Store) -> dict[str, Plain]:
    """What `lrh status` tells: from the store alone."""
    plan, manifest = store.plan, store.manifest
    commits = [commit for part in store.parts for commit in part.commits.values()]
    done = int(plan.valid_rows[sorted(store.commits)].sum())
    facts: dict[str, Plain] = {
        "store": store.location,
        "sealed": store.sealed,
        "root": store.root if store.sealed else None,
        "plan": plan.digest,
        "model": cast(Mapping[str, Plain], plan.identity["model"])["name"],
        "sites": list(store.sites),
        "dtype": ", ".join(dict.fromkeys(plan.dtype_of(site).name for site in store.sites)),
        "blocks": len(store.commits),
        "blocks_planned": plan.num_blocks,
        "rows": done,
        "rows_planned": plan.num_valid_rows,
        "bytes": sum(stored.num_bytes for commit in commits for stored in commit.objects.values()),
        "worker_seconds": round(sum(commit.seconds for commit in commits), 1),
    }
    if manifest is not None:
        sites = cast(Mapping[str, Mapping[str, Plain]], manifest["sites"])
        facts["sinks"] = {name: site["sinks"] for name, site in sites.items() if name in store.model_sites}
        facts["parity"] = manifest["parity"]
    return facts
