"""Countries and their capitals as true and false statements: a relation, and a truth value, without annotation.

False statements give each country the capital of a near one in the list, which goes region by region, so that they
are plausible. Every country and every capital stands in as many true statements as false ones, in the same carriers:
neither name gives the class away, with or without the carrier; only their relation does. The document
label is `capital_fact`; spans `fact_subject` and `fact_object` mark country and capital, wherever the carrier puts
them.

    for fact in FACTS:
        print(fact.country, fact.capital)               # Albania Tirana

Left out are countries whose capital is disputed, divided, recently moved, or named like the country (that would be
a fact about spelling). What can go wrong: a reader from left to right knows the class only at the second of the two
names; in carriers that begin with the capital that is the country.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lrh_ray.records import Document, Span
from lrh_ray.text.carriers import fill, numbered_carriers
from lrh_ray.text.config import CapitalsSource
from lrh_ray.text.reading import Found, Reading


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A country and its capital."""

    country: str
    capital: str


CARRIERS = (
    "The capital of {country} is {capital}.",
    "{capital} is the capital of {country}.",
    "Children learn that the capital of {country} is {capital}, and they remember it.",
    "If you travel to {country}, the capital you will see is {capital}.",
)

LISTED = """
    Albania: Tirana; Austria: Vienna; Belgium: Brussels; Bulgaria: Sofia; Croatia: Zagreb; Czechia: Prague;
    Denmark: Copenhagen; Estonia: Tallinn; Finland: Helsinki; France: Paris; Germany: Berlin; Greece: Athens;
    Hungary: Budapest; Iceland: Reykjavik; Ireland: Dublin; Italy: Rome; Latvia: Riga; Lithuania: Vilnius;
    Norway: Oslo; Poland: Warsaw; Portugal: Lisbon; Romania: Bucharest; Serbia: Belgrade; Slovakia: Bratislava;
    Slovenia: Ljubljana; Spain: Madrid; Sweden: Stockholm; Switzerland: Bern; Ukraine: Kyiv; Russia: Moscow;
    Turkey: Ankara; Armenia: Yerevan; Azerbaijan: Baku; Iraq: Baghdad; Iran: Tehran; Jordan: Amman;
    Lebanon: Beirut; Syria: Damascus; Saudi Arabia: Riyadh; Qatar: Doha; Afghanistan: Kabul;
    Pakistan: Islamabad; Nepal: Kathmandu; Bangladesh: Dhaka; Mongolia: Ulaanbaatar; China: Beijing;
    Japan: Tokyo; South Korea: Seoul; Thailand: Bangkok; Vietnam: Hanoi; Cambodia: Phnom Penh;
    Malaysia: Kuala Lumpur; Australia: Canberra; New Zealand: Wellington; Egypt: Cairo; Libya: Tripoli;
    Morocco: Rabat; Sudan: Khartoum; Ethiopia: Addis Ababa; Kenya: Nairobi; Uganda: Kampala; Rwanda: Kigali;
    Somalia: Mogadishu; Ghana: Accra; Senegal: Dakar; Mali: Bamako; Angola: Luanda; Zambia: Lusaka;
    Zimbabwe: Harare; Madagascar: Antananarivo; Canada: Ottawa; Cuba: Havana; Jamaica: Kingston;
    Colombia: Bogota; Venezuela: Caracas; Ecuador: Quito; Peru: Lima; Uruguay: Montevideo;
    Argentina: Buenos Aires; Paraguay: Asuncion
"""

FACTS: tuple[Fact, ...] = tuple(
    Fact(country=country, capital=capital)
    for country, capital in (item.strip().split(": ") for item in LISTED.split(";"))
)

FALSE_STEP = len(CARRIERS)
"""A false capital comes from a country with the same carrier, which holds at the end of the list too: its length is a
multiple of this."""

DESCRIPTIONS: Mapping[str, str] = {
    "capital_fact": "whether the capital in the sentence is the capital of the country in it",
    "fact_subject": "the country of a statement about capitals",
    "fact_object": "the capital of a statement about capitals",
}


def read(source: CapitalsSource, folder: Path) -> Iterator[Reading]:  # noqa: ARG001 - every source has this signature
    """Two documents per country and carrier, the true one first."""
    for index, fact in enumerate(FACTS):
        other = FACTS[(index + FALSE_STEP) % len(FACTS)].capital
        for number, carrier in numbered_carriers(CARRIERS, index, source.carriers):
            yield _reading(fact.country, fact.capital, "true", number, carrier)
            yield _reading(fact.country, other, "false", number, carrier)


def _reading(country: str, capital: str, value: str, number: int, carrier: str) -> Found:
    filled = fill(carrier, country=country, capital=capital)
    places = {"fact_subject": filled.places["country"], "fact_object": filled.places["capital"]}
    document = Document(
        id=f"capital:{country}/{value}/{number}",
        text=filled.text,
        labels={"capital_fact": value},
        spans=tuple(
            Span(concept=concept, value="yes", start=start, end=end) for concept, (start, end) in places.items()
        ),
    )
    return Found(place=f"built-in capitals, {document.id}", document=document)
