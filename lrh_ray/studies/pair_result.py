"""From pair tests to a `Result`: each concept's agreement with its interval, null and controls, and what it means."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrh_ray.analyses.pair_test import MIN_GROUPS, PairTable, SplitHalfTest
from lrh_ray.records import Measure, Result, Scalar, Table
from lrh_ray.store.reader import Store
from lrh_ray.studies.pair_config import Metric
from lrh_ray.studies.result_parts import parity_table, provenance, site_keys, store_table

LEVEL = 0.05
PUBLISHED_PENALTY = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSetting:
    """Where and how directions were compared."""

    site: str
    metric: Metric
    inverse_penalty: float

    @property
    def label(self) -> str:
        return f"{self.metric}, C = {self.inverse_penalty:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PairAnswer:
    """Both modes at one setting, for rows of one source: the model, noise, untrained weights.

    `published` and `honest` are cosines [K, K]; the model's have a test with intervals and a null, controls need none.
    """

    setting: PairSetting
    source: str
    published: np.ndarray
    honest: np.ndarray
    test: SplitHalfTest | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Setting:
    """The answers of all sources at one setting."""

    model: PairAnswer
    test: SplitHalfTest
    noise: PairAnswer
    untrained: PairAnswer | None

    @property
    def survivors(self) -> np.ndarray:
        """Concepts whose own words agree beyond the null, after correction for all concepts."""
        return np.flatnonzero((self.test.p_values <= LEVEL) & (self.test.low > 0))


def make_pair_result(
    question: Result, store: Store, table: PairTable, answers: Sequence[PairAnswer], widowed: int, seconds: float
) -> Result:
    """Assemble the answer to `question`."""
    settings = [
        _Setting(
            model=answer,
            test=answer.test,
            noise=next(other for other in answers if (other.source, other.setting) == ("noise", answer.setting)),
            untrained=next(
                (other for other in answers if (other.source, other.setting) == ("untrained", answer.setting)), None
            ),
        )
        for answer in answers
        if answer.test is not None
    ]
    shown = _shown(settings)
    return replace(
        question,
        summary=tuple(_summary(shown, settings, table, widowed)),
        measures=tuple(measure for setting in settings for measure in _measures(setting, store, table)),
        tables=(
            store_table(store),
            parity_table(store),
            _settings_table(settings, table),
            _matrix_table("as published", shown.model.published, shown, table),
            _matrix_table("from different words", shown.model.honest, shown, table),
        ),
        arrays=dict(_arrays(settings)),
        provenance=provenance(store, seconds),
    )


def _shown(settings: Sequence[_Setting]) -> _Setting:
    """The setting of the published figure, at the last site: raw, and the C nearest to theirs."""
    site = settings[-1].model.setting.site
    here = [setting for setting in settings if setting.model.setting.site == site]
    return min(here, key=lambda setting: abs(np.log(setting.model.setting.inverse_penalty / PUBLISHED_PENALTY)))


def _measures(setting: _Setting, store: Store, table: PairTable) -> Iterator[Measure]:
    """Agreement of every concept in both modes; its controls say what noise and an untrained model give."""
    answer, honest = setting.model, setting.test
    keys = site_keys(store, answer.setting.site) | {"setting": answer.setting.label}
    for concept, name in enumerate(table.concepts):
        judged = bool(np.isfinite(honest.diagonal[concept]))
        controls = {
            "as_published": float(answer.published[concept, concept]),
            "noise": float(setting.noise.honest[concept, concept]),
            "noise_as_published": float(setting.noise.published[concept, concept]),
        }
        if judged:
            low, high = np.quantile(honest.null[:, concept], [0.025, 0.975])
            controls |= {"null_low": float(low), "null_high": float(high), "p": float(honest.p_values[concept])}
        if setting.untrained is not None:
            controls["untrained"] = float(setting.untrained.honest[concept, concept])
        few = f"not judged: fewer than {MIN_GROUPS} groups of words without a word in common"
        yield Measure(
            name="agreement",
            value=float(honest.diagonal[concept]),
            unit="cosine",
            keys={**keys, "concept": name},
            low=float(honest.low[concept]) if judged else None,
            high=float(honest.high[concept]) if judged else None,
            controls={name: value for name, value in controls.items() if np.isfinite(value)},
            flags=() if judged else (few,),
        )


def _summary(shown: _Setting, settings: Sequence[_Setting], table: PairTable, widowed: int) -> Iterator[str]:
    judged = int(table.judged.sum())
    where = f"{shown.model.setting.site} ({shown.model.setting.label})"
    yield (
        f"As published, at {where}, each concept's probe weights agree with its own mean difference: cosine "
        f"{_mean_diagonal(shown.model.published):.2f} on average. That is no evidence: Gaussian rows with the "
        f"model's mean and covariance, which hold no concepts, give {_mean_diagonal(shown.noise.published):.2f}."
    )
    yield (
        f"With both directions from different words the average is {_mean_diagonal(shown.model.honest):.2f}, noise "
        f"{_mean_diagonal(shown.noise.honest):.2f}."
    )
    yield f"{_survivors(shown, table, judged)} at {where}."
    best = max(settings, key=lambda setting: (len(setting.survivors), _mean_diagonal(setting.model.honest)))
    if best is not shown:
        place = f"{best.model.setting.site} ({best.model.setting.label})"
        yield (
            f"Most survive at {place}: {len(best.survivors)} of {judged}, with an average cosine of "
            f"{_mean_diagonal(best.model.honest):.2f}. It is the best of {len(settings)} settings."
        )
    left_out = [name for name, judge in zip(table.concepts, table.judged, strict=True) if not judge]
    if left_out:
        yield f"Not judged, because fewer than {MIN_GROUPS} groups of their words share none: {', '.join(left_out)}."
    if widowed:
        yield f"{widowed} pairs were left out because one of their words is not in the store."


def _survivors(setting: _Setting, table: PairTable, judged: int) -> str:
    names = [table.concepts[concept] for concept in setting.survivors]
    lost = [name for name, judge in zip(table.concepts, table.judged, strict=True) if judge and name not in names]
    lines = f"{len(names)} of {judged} concepts survive (p <= {LEVEL} over all of them, interval above 0)"
    if names:
        lines += f": {', '.join(names)}"
    return lines + (f"; not {', '.join(lost)}," if lost else "")


def _mean_diagonal(cosines: np.ndarray) -> float:
    return float(np.nanmean(np.diagonal(cosines)))


def _mean_off_diagonal(cosines: np.ndarray) -> float:
    off = ~np.eye(len(cosines), dtype=bool)
    return float(np.nanmean(np.abs(cosines[off]))) if off.any() else float("nan")


def _settings_table(settings: Sequence[_Setting], table: PairTable) -> Table:
    judged = int(table.judged.sum())
    rows: list[tuple[Scalar, ...]] = [
        (
            setting.model.setting.site,
            setting.model.setting.metric,
            setting.model.setting.inverse_penalty,
            _mean_diagonal(setting.model.published),
            _mean_diagonal(setting.noise.published),
            _mean_off_diagonal(setting.model.published),
            _mean_diagonal(setting.model.honest),
            _mean_diagonal(setting.noise.honest),
            None if setting.untrained is None else _mean_diagonal(setting.untrained.honest),
            _mean_off_diagonal(setting.model.honest),
            f"{len(setting.survivors)} of {judged}",
        )
        for setting in settings
    ]
    return Table(
        name="settings",
        description="Mean cosines over concepts: on the diagonal (a concept with itself) and off it (absolute). "
        "`survive`: concepts whose agreement from different words clears the null after correction for all concepts.",
        columns=(
            "site",
            "metric",
            "C",
            "published",
            "published, noise",
            "published, off",
            "different words",
            "noise",
            "untrained",
            "off",
            "survive",
        ),
        rows=tuple(rows),
    )


def _matrix_table(name: str, cosines: np.ndarray, setting: _Setting, table: PairTable) -> Table:
    where = f"{setting.model.setting.site}, {setting.model.setting.label}"
    rows = tuple(
        (concept, *(round(value, 2) if np.isfinite(value) else None for value in row))
        for concept, row in zip(table.concepts, cosines.tolist(), strict=True)
    )
    return Table(
        name=name,
        description=f"Cosine of mean differences (rows) with probe weights (columns), {name}, at {where}.",
        columns=("mean difference", *table.concepts),
        rows=rows,
    )


def _arrays(settings: Sequence[_Setting]) -> Iterator[tuple[str, np.ndarray]]:
    for setting in settings:
        where = f"{setting.model.setting.site}/{setting.model.setting.metric}/{setting.model.setting.inverse_penalty:g}"
        yield f"{where}/published", setting.model.published
        yield f"{where}/honest", setting.model.honest
        yield f"{where}/null", setting.test.null
