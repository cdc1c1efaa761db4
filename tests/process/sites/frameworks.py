"""One application of each framework, made when its name is imported: GET /?id=N answers ``id=N``."""


def _starlette():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    async def index(request):
        return PlainTextResponse(f"id={request.query_params['id']}")

    async def upload(request):
        return PlainTextResponse(str(len(await request.body())))

    async def stream(_request):
        async def parts():
            for number in range(100):
                yield f"{number}\n"

        return StreamingResponse(parts())

    async def echo(websocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            WebSocketRoute("/echo", echo),
        ]
    )


def _fastapi():
    from fastapi import FastAPI, Request, WebSocket
    from fastapi.responses import PlainTextResponse, StreamingResponse

    application = FastAPI()

    @application.get("/", response_class=PlainTextResponse)
    async def index(id: int) -> str:  # noqa: A002 - the parameter of the query
        return f"id={id}"

    @application.post("/upload", response_class=PlainTextResponse)
    async def upload(request: Request) -> str:
        return str(len(await request.body()))

    @application.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(f"{number}\n" for number in range(100))

    @application.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return application


def _quart():
    from quart import Quart, request, websocket

    application = Quart(__name__)

    @application.get("/")
    async def index():
        return f"id={request.args['id']}"

    @application.post("/upload")
    async def upload():
        return str(len(await request.get_data()))

    @application.get("/stream")
    async def stream():
        async def parts():
            for number in range(100):
                yield f"{number}\n".encode()

        return parts()

    @application.websocket("/echo")
    async def echo():
        while True:
            await websocket.send(await websocket.receive())

    return application


def _litestar():
    from litestar import Litestar, Request, get, post, websocket_listener
    from litestar.response import Stream

    @get("/", media_type="text/plain")
    async def index(id: int) -> str:  # noqa: A002 - the parameter of the query
        return f"id={id}"

    @post("/upload", media_type="text/plain", status_code=200)
    async def upload(request: Request) -> str:
        return str(len(await request.body()))

    @get("/stream")
    async def stream() -> Stream:
        return Stream(f"{number}\n" for number in range(100))

    @websocket_listener("/echo")
    async def echo(data: str) -> str:
        return data

    return Litestar([index, upload, stream, echo])


def _datasette():
    from datasette import Response, hookimpl
    from datasette.app import Datasette
    from datasette.plugins import pm

    def echo(request):
        text = f"id={request.args.get('id')}"
        return Response.text(text, headers={"content-length": str(len(text))})

    class Echo:
        __name__ = "echo"

        @hookimpl
        def register_routes(self):
            return [(r"^/echo$", echo)]

    pm.register(Echo(), name="echo")
    return Datasette([], memory=True).app()


def _flask():
    from flask import Flask, request

    application = Flask(__name__)
    application.add_url_rule("/", view_func=lambda: f"id={request.args['id']}")
    application.add_url_rule(
        "/upload", "upload", lambda: str(len(request.get_data())), methods=["POST"]
    )
    application.add_url_rule("/stream", "stream", lambda: (f"{number}\n" for number in range(100)))
    return application


def _configure_django(apps=()):
    from django.conf import settings
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    urls = [
        path("", lambda request: HttpResponse(f"id={request.GET['id']}")),
        path("upload", csrf_exempt(lambda request: HttpResponse(len(request.body)))),
        path("stream", lambda _: StreamingHttpResponse(f"{number}\n" for number in range(100))),
    ]
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        INSTALLED_APPS=apps,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=tuple(urls),
        SECRET_KEY="tests",
        STATIC_URL="/static/",
        WAGTAIL_SITE_NAME="tests",
        WAGTAILADMIN_BASE_URL="http://localhost",
    )
    import django

    django.setup()


def _django():
    _configure_django()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def _django_asgi():
    _configure_django()
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def _wagtail():
    names = ("documents", "images", "admin", "search", "users", "sites", "snippets", "embeds")
    _configure_django(
        [
            *(f"wagtail.{name}" for name in names),
            "wagtail",
            "modelcluster",
            "taggit",
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
        ]
    )
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def __getattr__(name):
    make = globals().get(f"_{name}")
    if make is None:
        raise AttributeError(name)
    return make()
