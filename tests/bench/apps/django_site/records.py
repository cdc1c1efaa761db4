"""200,000 records, each a dictionary: a catalogue that an application keeps in memory."""

COUNT = 200_000
RECORDS = [
    {
        "id": number,
        "code": f"{number:08x}",
        "name": f"Article {number}",
        "price": number * 0.25,
        "group": number // 1000,
    }
    for number in range(COUNT)
]
