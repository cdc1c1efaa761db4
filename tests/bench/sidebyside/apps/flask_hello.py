"""Flask's hello."""

import flask

app = flask.Flask(__name__)


@app.get("/")
def hello():
    """Answer with 13 bytes."""
    return "Hello, World!"
