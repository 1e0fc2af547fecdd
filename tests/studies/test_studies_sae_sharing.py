"""How workers share an autoencoder's training follows from what a step would move."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lrh_ray.runtime.config import TrainConfig
from lrh_ray.studies.sae_config import SaeConfig
from lrh_ray.studies.sae_kind_config import BatchTopKKind, MatryoshkaKind, ReluKind, TopKKind
from lrh_ray.studies.sae_map_config import SiteMap
from lrh_ray.studies.sae_sharing import latent_parts, numbers_moved, possible_parts

SITE, OTHER, WIDE = "resid.15", "resid.16", "mlp_hidden.16"
WIDTHS = {SITE: 4096, OTHER: 4096, WIDE: 16_384}
ALONE = (SiteMap.of_site(SITE),)


def of(kind, rows, workers, latents=65_536):
    return SaeConfig(kinds=(kind,), latents=latents, batch_rows=rows, workers=TrainConfig(workers=workers))


def test_few_rows_share_the_latents_and_many_the_rows():
    """Weights travel where rows are shared, rows where latents are: the balance lies near N = M (trainers.md, D)."""
    assert latent_parts(of(TopKKind(k=64), 8_192, 8), ALONE, WIDTHS) == 8
    assert latent_parts(of(ReluKind(), 8_192, 8), ALONE, WIDTHS) == 8
    assert latent_parts(of(ReluKind(), 2_097_152, 8, latents=4096), ALONE, WIDTHS) == 1


def test_alone_nothing_moves():
    assert numbers_moved(of(TopKKind(), 8_192, 1), ALONE, WIDTHS, 1) == 0
    assert latent_parts(of(TopKKind(), 8_192, 1), ALONE, WIDTHS) == 1


def test_two_workers_move_what_is_counted_by_hand():
    config = of(TopKKind(k=64), 1_000, 2, latents=10_000)
    assert numbers_moved(config, ALONE, WIDTHS, 2) == 1_000 * 4096 + 2 * 64 * 1_000
    assert numbers_moved(config, ALONE, WIDTHS, 1) == (2 * 1_000 * 4096 + 3 * 64 * 1_000 + 2 * 10_000 * 4096) / 2
    nested = replace(config, kinds=(MatryoshkaKind(k=64, groups=(0.5, 1.0)),))
    assert numbers_moved(nested, ALONE, WIDTHS, 2) == 2 * 1_000 * 4096 + 2 * 64 * 1_000
    both = (*ALONE, SiteMap.of_site(OTHER))
    assert numbers_moved(config, both, WIDTHS, 2) == 2 * numbers_moved(config, ALONE, WIDTHS, 2)


def test_every_map_moves_what_its_own_ends_have():
    """A site that two maps share counts for both; what is read moves with rows, what is explained in both ways."""
    up = SiteMap(reads=(SITE,), writes=(WIDE,))
    both = SiteMap(reads=(SITE, OTHER), writes=(SITE, OTHER))
    topk, relu = (of(kind, 1_000, 2, latents=10_000) for kind in (TopKKind(k=64), ReluKind()))
    assert numbers_moved(topk, (up,), WIDTHS, 2) == 1_000 * 16_384 + 2 * 64 * 1_000
    assert numbers_moved(topk, (up,), WIDTHS, 1) == (1_000 + 10_000) * (4096 + 16_384) / 2 + 3 * 64 * 1_000 / 2
    assert numbers_moved(relu, (up,), WIDTHS, 2) == 1_000 * 16_384
    assert numbers_moved(relu, (up,), WIDTHS, 1) == 10_000 * (4096 + 16_384)
    skips = SiteMap(reads=(SITE,), writes=(WIDE,), skip=True)
    assert numbers_moved(relu, (skips,), WIDTHS, 1) == 10_000 * (4096 + 16_384) + 4096 * 16_384
    assert numbers_moved(topk, (skips,), WIDTHS, 1) == numbers_moved(topk, (up,), WIDTHS, 1)
    crossed = numbers_moved(relu, (both,), WIDTHS, 1)
    assert crossed == 2 * numbers_moved(relu, ALONE, WIDTHS, 1)
    assert numbers_moved(relu, (*ALONE, up, both), WIDTHS, 1) == crossed * 1.5 + numbers_moved(relu, (up,), WIDTHS, 1)


def test_the_parts_depend_on_which_end_is_wide():
    """What is explained moves between parts, what is read does not."""
    config = of(ReluKind(), 8_192, 8, latents=16_384)
    assert latent_parts(config, (SiteMap(reads=(SITE,), writes=(WIDE,)),), WIDTHS) < 8
    assert latent_parts(config, (SiteMap(reads=(WIDE,), writes=(SITE,)),), WIDTHS) == 8


@pytest.mark.parametrize(("workers", "rows", "parts"), [(6, 2048, (3, 6)), (4, 2048, (1, 2, 4)), (5, 7, (5,))])
def test_rows_are_dealt_out_equally(workers, rows, parts):
    assert possible_parts(of(BatchTopKKind(k=2), rows, workers, latents=workers * 16)) == parts


def test_what_is_set_is_done():
    assert latent_parts(replace(of(TopKKind(), 8_192, 8), latent_parts=2), ALONE, WIDTHS) == 2


def test_the_page_says_when_latents_are_shared():
    page = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text()
    rows = re.findall(r"^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    assert [row[0] for row in rows] == ["2", "4", "8"]
    for workers, *told in rows:
        for kind, turn in zip((TopKKind(), MatryoshkaKind(), ReluKind()), told, strict=True):
            for share, shared in ((0.9, True), (1.1, False)):
                config = of(kind, round(64 * float(turn) * share) * 64, int(workers), latents=4096)
                assert (latent_parts(config, ALONE, {SITE: 576}) == int(workers)) == shared
