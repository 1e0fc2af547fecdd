"""Contrasting word pairs in carrier sentences: the simplest concepts whose class is known without annotation.

Each group contrasts two classes (singular and plural, present and past, ...). Both words of a pair stand in the same
carriers, which agree with either, so the class is in the word alone: no article, verb or pronoun gives it away. With
one carrier per pair (the default) every word appears once; documents held out are then words held out, and a probe
cannot succeed by remembering words. The document label is `pair_<group>`; a span `pair_word` marks the word.

    for pair in PAIRS:
        print(pair.group, pair.first, pair.second)      # number cat cats

What can go wrong: frequency, length and spelling still differ between classes (plurals end in s, pasts in ed); a
probe that reads only these succeeds at the embedding already, and its accuracy there is the number to compare with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lrh_ray.records import Document, Span
from lrh_ray.text.carriers import fill, numbered_carriers
from lrh_ray.text.config import PairsSource
from lrh_ray.text.reading import Found, Reading
from lrh_ray.text.word_pairs import pair_documents


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two words that differ in one property: `first` is of the group's first class, `second` of its second."""

    group: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PairGroup:
    """A contrast: its two classes, carriers that fit both, and pairs written `first/second`."""

    name: str
    classes: tuple[str, str]
    carriers: tuple[str, ...]
    words: str

    @property
    def pairs(self) -> tuple[Pair, ...]:
        split = (item.split("/") for item in self.words.split())
        return tuple(Pair(group=self.name, first=first, second=second) for first, second in split)


GROUPS: tuple[PairGroup, ...] = (
    PairGroup(
        name="number",
        classes=("singular", "plural"),
        carriers=(
            "We could see the {word} from the window.",
            "She said nothing about the {word} yesterday.",
            "They came back for the {word} in the evening.",
            "He wrote a short story about the {word} for us.",
        ),
        words="""
            cat/cats dog/dogs horse/horses bird/birds tree/trees flower/flowers river/rivers mountain/mountains
            house/houses window/windows door/doors table/tables book/books letter/letters picture/pictures car/cars
            ship/ships box/boxes glass/glasses city/cities baby/babies story/stories leaf/leaves knife/knives
            child/children mouse/mice goose/geese tooth/teeth""",
    ),
    PairGroup(
        name="tense",
        classes=("present", "past"),
        carriers=(
            "The children {word} in the garden.",
            "People like that {word} very often.",
            "On Sundays they {word} with their friends.",
            "In this story the two sisters {word} together.",
        ),
        words="""
            walk/walked talk/talked play/played work/worked dance/danced laugh/laughed smile/smiled cook/cooked
            wait/waited rest/rested travel/traveled shout/shouted jump/jumped climb/climbed cry/cried argue/argued
            sing/sang swim/swam run/ran eat/ate drink/drank sleep/slept write/wrote speak/spoke sit/sat stand/stood
            fight/fought ride/rode""",
    ),
    PairGroup(
        name="degree",
        classes=("positive", "comparative"),
        carriers=(
            "The {word} one was left behind.",
            "It looked {word} in the morning.",
            "We wanted something {word} for the house.",
            "Most visitors find it {word} at night.",
        ),
        words="""
            tall/taller short/shorter long/longer big/bigger small/smaller wide/wider narrow/narrower deep/deeper
            high/higher low/lower old/older young/younger new/newer fast/faster slow/slower warm/warmer cold/colder
            dark/darker light/lighter soft/softer hard/harder thick/thicker thin/thinner heavy/heavier cheap/cheaper
            quiet/quieter simple/simpler good/better""",
    ),
    PairGroup(
        name="gender",
        classes=("male", "female"),
        carriers=(
            "The {word} waited at the door.",
            "We spoke to the {word} about the plan.",
            "Nobody had seen the {word} before.",
            "There was a letter from the {word} on the table.",
        ),
        words="""
            man/woman boy/girl king/queen father/mother son/daughter brother/sister uncle/aunt nephew/niece
            grandfather/grandmother grandson/granddaughter husband/wife groom/bride prince/princess actor/actress
            waiter/waitress host/hostess duke/duchess emperor/empress hero/heroine wizard/witch monk/nun
            gentleman/lady widower/widow policeman/policewoman businessman/businesswoman salesman/saleswoman
            landlord/landlady heir/heiress""",
    ),
    PairGroup(
        name="valence",
        classes=("pleasant", "unpleasant"),
        carriers=(
            "Everyone said that it was {word} in the end.",
            "It all seemed {word} to me.",
            "The report called the result {word} this time.",
            "What they told us sounded {word} at first.",
        ),
        words="""
            good/bad excellent/terrible wonderful/awful beautiful/ugly clean/dirty safe/dangerous kind/cruel
            honest/dishonest polite/rude generous/greedy friendly/hostile happy/sad cheerful/gloomy calm/angry
            wise/foolish brave/cowardly useful/useless healthy/sick fresh/stale delicious/disgusting lucky/unlucky
            fair/unfair peaceful/violent hopeful/hopeless graceful/clumsy joyful/miserable charming/nasty
            brilliant/stupid""",
    ),
)

PAIRS: tuple[Pair, ...] = tuple(pair for group in GROUPS for pair in group.pairs)

DESCRIPTIONS: Mapping[str, str] = {
    "pair_word": "the word of a contrasting pair, in a carrier sentence that fits both of its classes",
} | {f"pair_{group.name}": f"whether the word is {' or '.join(group.classes)}" for group in GROUPS}


def read(source: PairsSource, folder: Path) -> Iterator[Reading]:  # noqa: ARG001 - every source has this signature
    """Two documents per pair and carrier, first class first; without carriers, the two words."""
    for group in GROUPS:
        if group.name not in source.groups:
            continue
        for index, pair in enumerate(group.pairs):
            if source.carriers == "none":
                words = (pair.first, pair.second)
                place, label = f"built-in pairs, {group.name}", f"pair_{group.name}"
                yield from pair_documents(place, group.name, str(index), words, label=label, classes=group.classes)
                continue
            for number, carrier in numbered_carriers(group.carriers, index, source.carriers):
                for word, value in zip((pair.first, pair.second), group.classes, strict=True):
                    yield _reading(group, word, value, number, carrier)


def _reading(group: PairGroup, word: str, value: str, number: int, carrier: str) -> Found:
    filled = fill(carrier, word=word)
    start, end = filled.places["word"]
    document = Document(
        id=f"pair:{group.name}/{word}/{number}",
        text=filled.text,
        labels={f"pair_{group.name}": value},
        spans=(Span(concept="pair_word", value=value, start=start, end=end),),
    )
    return Found(place=f"built-in pairs, {document.id}", document=document)
