"""How workers share an autoencoder's training follows from what a step would move."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lrh_ray.runtime.config import TrainConfig
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import BatchTopKKind, MatryoshkaKind, ReluKind, TopKKind
from lrh_ray.studies.sae_sharing import latent_parts, numbers_moved, possible_parts

SITE = {"resid.15": 4096}


def of(kind, rows, workers, latents=65_536):
    return SaeConfig(kinds=(kind,), latents=latents, batch_rows=rows, workers=TrainConfig(workers=workers))


def test_few_rows_share_the_latents_and_many_the_rows():
    """Weights travel where rows are shared, rows where latents are: the balance lies near N = M (trainers.md, D)."""
    assert latent_parts(of(TopKKind(k=64), 8_192, 8), SITE) == 8
    assert latent_parts(of(ReluKind(), 8_192, 8), SITE) == 8
    assert latent_parts(of(ReluKind(), 2_097_152, 8, latents=4096), SITE) == 1


def test_alone_nothing_moves():
    assert numbers_moved(of(TopKKind(), 8_192, 1), SITE, 1) == 0
    assert latent_parts(of(TopKKind(), 8_192, 1), SITE) == 1


def test_two_workers_move_what_is_counted_by_hand():
    config = of(TopKKind(k=64), 1_000, 2, latents=10_000)
    assert numbers_moved(config, SITE, 2) == 1_000 * 4096 + 2 * 64 * 1_000
    assert numbers_moved(config, SITE, 1) == (2 * 1_000 * 4096 + 3 * 64 * 1_000 + 2 * 10_000 * 4096) / 2
    nested = replace(config, kinds=(MatryoshkaKind(k=64, groups=(0.5, 1.0)),))
    assert numbers_moved(nested, SITE, 2) == 2 * 1_000 * 4096 + 2 * 64 * 1_000
    assert numbers_moved(config, {**SITE, "resid.16": 4096}, 2) == 2 * numbers_moved(config, SITE, 2)


@pytest.mark.parametrize(("workers", "rows", "parts"), [(6, 2048, (3, 6)), (4, 2048, (1, 2, 4)), (5, 7, (5,))])
def test_rows_are_dealt_out_equally(workers, rows, parts):
    assert possible_parts(of(BatchTopKKind(k=2), rows, workers, latents=workers * 16)) == parts


def test_what_is_set_is_done():
    assert latent_parts(replace(of(TopKKind(), 8_192, 8), latent_parts=2), SITE) == 2


def test_the_page_says_when_latents_are_shared():
    page = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text()
    rows = re.findall(r"^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    assert [row[0] for row in rows] == ["2", "4", "8"]
    for workers, *told in rows:
        for kind, turn in zip((TopKKind(), MatryoshkaKind(), ReluKind()), told, strict=True):
            for share, shared in ((0.9, True), (1.1, False)):
                config = of(kind, round(64 * float(turn) * share) * 64, int(workers), latents=4096)
                assert (latent_parts(config, {"resid.15": 576}) == int(workers)) == shared
