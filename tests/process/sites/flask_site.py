"""A Flask site with sessions, an upload and a stream."""

import io

import flask

app = flask.Flask(__name__)
app.secret_key = "tests"


@app.post("/login")
def login():
    """Keep the name in the session."""
    flask.session["name"] = flask.request.form["name"]
    return flask.redirect("/")


@app.get("/")
def index():
    """Count the visits of a session."""
    flask.session["visits"] = flask.session.get("visits", 0) + 1
    return f"{flask.session.get('name')} {flask.session['visits']}"


@app.post("/upload")
def upload():
    """Give a file back."""
    data = flask.request.files["file"].read()  # Flask closes it before the answer is sent
    return flask.send_file(io.BytesIO(data), mimetype="application/octet-stream")


@app.get("/stream")
def stream():
    """Send parts, each with something of the request."""

    def parts():
        for number in range(5):
            yield f"{flask.request.args['word']} {number}\n"

    return flask.Response(flask.stream_with_context(parts()), mimetype="text/plain")
