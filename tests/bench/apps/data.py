"""Large libraries and data: numpy, pandas, a table of them, and a million records of Python objects."""

import json
import os
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd
from pause import collect, pause

COUNT = 1_000_000
RECORDS = [(number, f"{number:07d}", number * 0.25) for number in range(COUNT)]
TABLE = pd.DataFrame(
    {
        "group": np.arange(COUNT // 4) % 50,
        "amount": np.sqrt(np.arange(COUNT // 4, dtype=float)),
    }
)


def record(number):
    """One record, anywhere."""
    key, name, price = RECORDS[number % COUNT]
    return {"id": key, "name": name, "price": price}


def window(number):
    """Reads a thousand records that lie side by side."""
    start = number % (COUNT - 1000)
    return {"sum": sum(price for _, _, price in RECORDS[start : start + 1000])}


def mean(number):
    """Numbers that numpy holds: reading them writes nothing."""
    return {"mean": float(TABLE["amount"].to_numpy()[number % 1000 :].mean())}


def groups(number):
    """A calculation of pandas over ten thousand rows."""
    start = number % (len(TABLE) - 10_000)
    part = TABLE.iloc[start : start + 10_000]
    return {str(key): value for key, value in part.groupby("group")["amount"].sum().items()}


VIEWS = {"/record": record, "/window": window, "/mean": mean, "/groups": groups}


def application(environ, start_response):
    path = environ["PATH_INFO"]
    answer = {}
    if path == "/gc":
        collect()
    else:
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        answer = VIEWS[path](int(query.get("n", 0)))
        pause()
    body = json.dumps(answer).encode()
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("X-Pid", str(os.getpid())),
        ],
    )
    return [body]
