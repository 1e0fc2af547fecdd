"""The configuration of one run: which text, which model, which sites, and what is asked of them.

One YAML file is one run. On disk a run is `<runs>/<name>/{config.yaml, store/, results/<digest>/}`.
"""

import re
from dataclasses import field
from pathlib import Path

from lrh_ray.config import settings
from lrh_ray.models.config import ModelConfig
from lrh_ray.runtime.config import PoolConfig
from lrh_ray.store.config import StoreConfig
from lrh_ray.store.objects import Location
from lrh_ray.studies.geometry_config import GeometryConfig
from lrh_ray.studies.intrinsic_config import IntrinsicConfig
from lrh_ray.studies.pair_config import PairTestConfig
from lrh_ray.studies.probe_config import ProbeConfig
from lrh_ray.studies.sae_bound_config import SaeBoundConfig
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_evaluation_config import SaeEvaluationConfig
from lrh_ray.studies.twin_config import TwinConfig
from lrh_ray.text.config import TextConfig

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@settings
class RunConfig:
    """One run, from text to report."""

    name: str
    """Name of the run and of its folder: letters, digits, dot, dash, underscore."""

    text: TextConfig
    """Documents and their labels."""

    model: ModelConfig
    """The checkpoint and how it is run."""

    store: StoreConfig
    """What is kept, and how it is cut."""

    runs: str = "runs"
    """Folder that holds the runs, relative to where the command is started."""

    pool: PoolConfig = field(default_factory=PoolConfig)
    """Model replicas."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Probes of all concepts at all sites."""

    pairs: PairTestConfig = field(default_factory=PairTestConfig)
    """The pair test on counterfactual words."""

    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    """Directions that rows use, and what each token adds."""

    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    """Which few dimensions carry a concept."""

    sae: SaeConfig = field(default_factory=SaeConfig)
    """Sparse autoencoders."""

    sae_bound: SaeBoundConfig = field(default_factory=SaeBoundConfig)
    """Latents of trained autoencoders against supervised probes."""

    sae_evaluation: SaeEvaluationConfig = field(default_factory=SaeEvaluationConfig)
    """What trained autoencoders are good for: concepts in few latents, and bits."""

    twin: TwinConfig = field(default_factory=TwinConfig)
    """The control store."""

    def __post_init__(self) -> None:
        if not RUN_NAME.fullmatch(self.name):
            raise ValueError(f"the run's name {self.name!r} must be letters, digits, '.', '-', '_', at most 100")

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name

    @property
    def store_location(self) -> Location:
        """Folder or URL of the run's store."""
        return self.folder / "store" if self.store.location is None else self.store.location

    @property
    def results_path(self) -> Path:
        return self.folder / "results"
