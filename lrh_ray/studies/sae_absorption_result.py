"""What absorption found: shares of words with Wilson's intervals, beside shuffled letters and random directions."""

from collections.abc import Iterator, Sequence

from lrh_ray.analyses.jackknife import Estimate
from lrh_ray.analyses.proportion import wilson
from lrh_ray.errors import NotEnoughData
from lrh_ray.records import Measure, Table
from lrh_ray.runtime.reduce import sample
from lrh_ray.store.objects import absolute
from lrh_ray.studies.first_letters import single_words
from lrh_ray.studies.result_parts import with_interval
from lrh_ray.studies.sae_absorption import AbsorptionFinding, AbsorptionTask, LetterCounts, Spelling
from lrh_ray.studies.sae_evaluation_parts import Evaluation, Findings, mean_codes

LEAST_LETTERS = 2


def absorption_findings(asked: Evaluation) -> list[Findings]:
    """Absorption of every autoencoder whose latents can be silent.

    Raises:
        NotEnoughData: Too few words of the store are one token.
    """
    config, saved = asked.config, asked.saved
    words = single_words(asked.store, most=config.words, seed=config.seed)
    spelling = Spelling.of(words, config.seed)
    if len(spelling.letters) < LEAST_LETTERS:
        raise NotEnoughData(
            f"{len(words.words)} different words of the store are one token, too few for the letters of absorption. "
            f"Add documents, or leave absorption out of sae_evaluation.tests."
        )
    sparse = [one for one in saved.autoencoders if not one.dense]
    dense = dict.fromkeys(one.name for one in saved.autoencoders if one.dense)
    told = tuple(f"Absorption says nothing of {name}: none of its latents is ever silent." for name in dense)
    if not sparse:
        return [Findings(summary=told)]
    asked.progress.begin(f"absorption of {len(spelling.letters)} letters in {len(sparse)} autoencoders")
    task = AbsorptionTask(location=absolute(asked.store.location), spelling=spelling, seed=config.seed)
    found = sample([(one, mean_codes(saved, one)) for one in sparse], task)
    measures = tuple(_measure(asked, one) for one in found)
    return [
        Findings(
            summary=(*_summary(asked, found, measures), *told),
            measures=measures,
            tables=(_table(found, spelling), _words_table(spelling)),
        )
    ]


def share(part: int, whole: int) -> Estimate:
    """A share with Wilson's 95 % interval; of nothing NaN."""
    return wilson(part / max(1, whole), whole)


def _rate(counts: LetterCounts) -> Estimate:
    return share(int(counts.absorbed.sum()), int(counts.right.sum()))


def _missed(counts: LetterCounts) -> float:
    return share(int(counts.missed.sum()), int(counts.right.sum())).value


def _measure(asked: Evaluation, found: AbsorptionFinding) -> Measure:
    rate = _rate(found.own)
    return Measure(
        name="absorption",
        value=rate.value,
        unit="of words",
        keys=asked.keys(found.saved),
        low=rate.low,
        high=rate.high,
        controls={
            "shuffled": _rate(found.shuffled).value,
            "random_autoencoder": _rate(found.random).value,
            "ceiling": _missed(found.own),
        },
        flags=() if found.own.right.sum() else ("no letter has a main latent, or a word its probe is right about",),
    )


def _summary(asked: Evaluation, found: Sequence[AbsorptionFinding], measures: Sequence[Measure]) -> Iterator[str]:
    for site in asked.saved.sites:
        for one, measure in zip(found, measures, strict=True):
            if one.saved.site == site:
                yield (
                    f"At {site}, of {int(one.own.right.sum())} words whose first letter a dense probe knows, "
                    f"{measure.controls['ceiling']:.3f} fire none of the letter's latents in {one.saved.name}, and "
                    f"{with_interval(measure)} are absorbed by another one; with shuffled letters "
                    f"{measure.controls['shuffled']:.3f}."
                )


def _table(found: Sequence[AbsorptionFinding], spelling: Spelling) -> Table:
    return Table(
        name="absorption",
        description="Of each letter: its main latents; held-out words that the dense probe is right about; those of "
        "them in which no main latent fires; and those that another latent takes over.",
        columns=("site", "autoencoder", "letter", "main latents", "words", "missed", "absorbed"),
        rows=tuple(
            (one.saved.site, one.saved.name, letter, *map(int, counts))
            for one in found
            for letter, *counts in zip(
                spelling.letters, one.own.main, one.own.right, one.own.missed, one.own.absorbed, strict=True
            )
        ),
    )


def _words_table(spelling: Spelling) -> Table:
    parts = [int((spelling.part == part).sum()) for part in range(3)]
    return Table(
        name="words",
        description="Different words that are one token: those that fit probes and choose main latents, choose a "
        "penalty, and are judged; and the letters with enough of them.",
        columns=("words", "fit", "choose", "judged", "letters"),
        rows=((len(spelling.words.words), *parts, " ".join(spelling.letters)),),
    )
