"""What autoencoders read and write: the rows of one site, those of another, or those of several side by side.

    maps:
      - {reads: resid.15, writes: mlp_out.16, skip: true}        # a skip transcoder: resid.15-to-mlp_out.16-skip
      - {reads: [resid.5, resid.15]}                             # a crosscoder: resid.5+resid.15

A *map* is what every kind of autoencoder is trained on; a plain autoencoder has one site at both ends.

What can go wrong: a transcoder that reads a site it also writes can copy it; with a skip connection it would do nothing
else, which is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lrh_ray.config import settings
from lrh_ray.records import Plain


@settings
class MapConfig:
    """A transcoder (Dunefsky et al. 2024) or a crosscoder (Lindsey et al. 2024)."""

    reads: str | tuple[str, ...]
    """Site or sites that codes are made of."""

    writes: str | tuple[str, ...] = ()
    """Site or sites that codes explain; none: those that are read, several of them, which is a crosscoder."""

    skip: bool = False
    """Whether a transcoder adds a linear map of what it reads, which learns beside it (Paulo et al. 2025)."""

    def __post_init__(self) -> None:
        reads, writes = _sites(self.reads), _sites(self.writes)
        if not reads or len(set(reads)) < len(reads) or len(set(writes)) < len(writes):
            raise ValueError("reads and writes name sites, each once, and reads at least one")
        if set(reads) == set(writes):
            raise ValueError("writes are the sites that are read; leave writes out for a crosscoder")
        if not writes and len(reads) < 2:
            raise ValueError(f"a crosscoder has two sites or more; name {reads[0]} in sae.sites for an autoencoder")
        if self.skip and (not writes or set(reads) & set(writes)):
            raise ValueError("a skip connection would copy a site that is both read and written; leave skip out")


def _sites(named: str | tuple[str, ...]) -> tuple[str, ...]:
    return (named,) if isinstance(named, str) else named


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteMap:
    """The two ends of an autoencoder; both the same unless it is a transcoder."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    skip: bool = False

    @classmethod
    def of_site(cls, site: str) -> "SiteMap":
        """That of an autoencoder."""
        return cls(reads=(site,), writes=(site,))

    @classmethod
    def of(cls, config: MapConfig) -> "SiteMap":
        reads = _sites(config.reads)
        return cls(reads=reads, writes=_sites(config.writes) or reads, skip=config.skip)

    @property
    def transcodes(self) -> bool:
        return self.reads != self.writes

    @property
    def name(self) -> str:
        """In results and files; of an autoencoder its site."""
        ends = [self.reads, self.writes] if self.transcodes else [self.reads]
        return "-to-".join("+".join(end) for end in ends) + ("-skip" if self.skip else "")

    @property
    def sites(self) -> tuple[str, ...]:
        """Of both ends, each once."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))

    @property
    def alone(self) -> bool:
        """Whether one site is both ends, as it is of an autoencoder."""
        return len(self.sites) == 1

    def described(self) -> dict[str, Plain]:
        """For a result."""
        return {"name": self.name, "reads": list(self.reads), "writes": list(self.writes), "skip": self.skip}


def site_maps(sites: Sequence[str], maps: Sequence[MapConfig], known: Sequence[str]) -> tuple[SiteMap, ...]:
    """Maps of autoencoders of `sites` (of all `known` ones where neither these nor maps are named), and the others."""
    chosen = sites or (() if maps else known)
    return (*map(SiteMap.of_site, chosen), *map(SiteMap.of, maps))
