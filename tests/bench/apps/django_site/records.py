"""200,000 records, each an object with a list: a catalogue that an application keeps in memory."""

from dataclasses import dataclass

COUNT = 200_000
TAGS = ["new", "used", "rare", "cheap", "heavy"]


@dataclass(slots=True)
class Article:
    id: int
    code: str
    name: str
    price: float
    group: int
    tags: list[str]


RECORDS = [
    Article(
        id=number,
        code=f"{number:08x}",
        name=f"Article {number}",
        price=number * 0.25,
        group=number // 1000,
        tags=[TAGS[number % 5], TAGS[number % 3]],
    )
    for number in range(COUNT)
]
