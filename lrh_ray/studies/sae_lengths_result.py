"""What description lengths say: bits a row at every step, beside Gaussian rows at one FVU and random directions."""

from collections.abc import Iterator, Mapping, Sequence

from lrh_ray.analyses.sae.description_length import DescriptionLength, gaussian_bits, over_gaussian
from lrh_ray.records import Measure, Scalar, Table
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.sae_evaluation_parts import Evaluation, Findings
from lrh_ray.studies.sae_lengths import SiteLengths, site_lengths


def length_findings(asked: Evaluation) -> list[Findings]:
    """Description lengths of all autoencoders."""
    sites = asked.saved.sites
    asked.progress.begin(f"description lengths of {len(asked.saved.autoencoders)} autoencoders", len(sites), "sites")
    found = {}
    for site in sites:
        found[site] = site_lengths(asked, site)
        asked.progress.advance(1)
    measures = [measure for of_site in found.values() for measure in _measures(asked, of_site)]
    return [
        Findings(
            summary=tuple(_summary(measures, sites)),
            measures=tuple(sorted(measures, key=lambda one: one.name != "description_length")),
            tables=(_table(found),),
        )
    ]


def _measures(asked: Evaluation, found: SiteLengths) -> Iterator[Measure]:
    """Bits a row; and how many times what Gaussian rows take at the same FVU."""
    random = {(sender.saved.name, sender.step): length for sender, length in found.lengths if sender.random}
    for sender, length in found.lengths:
        if sender.random:
            continue
        keys = {**asked.keys(sender.saved), "step": sender.step}
        other, bits, excess = random[sender.saved.name, sender.step], length.bits(), length.against(found.eigenvalues)
        yield Measure(
            name="description_length",
            value=bits.value,
            unit="bits a row",
            keys=keys,
            low=bits.low,
            high=bits.high,
            controls={
                "gaussian": gaussian_bits(found.eigenvalues, length.fvu().value),
                "random_autoencoder": other.bits().value,
                "fvu": length.fvu().value,
            },
        )
        yield Measure(
            name="length_over_gaussian",
            value=excess.value,
            unit="times the bits of Gaussian rows",
            keys=keys,
            low=excess.low,
            high=excess.high,
            controls={"gaussian": 1.0, "random_autoencoder": _ratio(found, other)},
        )


def _summary(measures: Sequence[Measure], sites: Sequence[str]) -> Iterator[str]:
    """The one with the fewest bits for what it explains, at each site."""
    for site in sites:
        own = [one for one in measures if one.name == "length_over_gaussian" and one.keys["site"] == site]
        best = min(own, key=lambda one: one.value)
        (bits,) = [one for one in measures if one.name == "description_length" and one.keys == best.keys]
        verdict = "fewer than" if best.high is not None and best.high < 1 else "not shown to be fewer than"
        yield (
            f"At {site}, {best.keys['autoencoder']} takes the fewest bits for what it explains: {with_interval(bits)} "
            f"a row at a step of {best.keys['step']:g}, leaving {bits.controls['fvu']:.3f} of the variance. That is "
            f"{with_interval(best)} times what Gaussian rows of the same covariance take at best ({verdict} these); "
            f"{_of_random(best)}."
        )


def _of_random(best: Measure) -> str:
    """What random directions do with as many codes: often they explain less than the mean row does."""
    times = best.controls["random_autoencoder"]
    return (
        f"random directions take {times:.2f} times these"
        if times < float("inf")
        else "random directions explain nothing"
    )


def _table(found: Mapping[str, SiteLengths]) -> Table:
    rows: list[tuple[Scalar, ...]] = [
        (
            site,
            sender.saved.name,
            "random directions" if sender.random else "trained",
            sender.step,
            *_numbers(of_site, one),
        )
        for site, of_site in found.items()
        for sender, one in of_site.lengths
    ]
    return Table(
        name="description lengths",
        description="Held-out rows sent as quantised codes, by a code made from training rows: the step, in units of "
        "the rows' distance from their mean; codes a row that are left; variance left unexplained; bits a row, and "
        "those that Gaussian rows of the same covariance take at best to leave as much.",
        columns=("site", "autoencoder", "weights", "step", "codes a row", "FVU", "bits", "Gaussian", "ratio"),
        rows=tuple(rows),
    )


def _numbers(found: SiteLengths, length: DescriptionLength) -> tuple[float, ...]:
    fvu, bits = length.fvu().value, length.bits().value
    gaussian = gaussian_bits(found.eigenvalues, fvu)
    ratio = round(_ratio(found, length), 3)
    return (round(length.left.l0().value, 2), round(fvu, 4), round(bits, 1), round(gaussian, 1), ratio)


def _ratio(found: SiteLengths, length: DescriptionLength) -> float:
    return over_gaussian(length.bits().value, length.fvu().value, found.eigenvalues)
