"""A Django site in one module: admin, sessions, a file upload and a download."""

import hashlib
import os
import tempfile
from pathlib import Path

import django
from django.conf import settings

FOLDER = Path(os.environ.get("SITE_FOLDER", "."))
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(FOLDER / "site.db")}
    },
    DEBUG=False,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    ROOT_URLCONF="django_site",
    SECRET_KEY="tests",
    STATIC_URL="static/",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin  # noqa: E402 - after the settings
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


@csrf_exempt
def upload(request):
    """Say what came, by name: size, digest, and where Django has put it."""
    answer = {}
    for name, file in request.FILES.items():
        digest = hashlib.sha256()
        for chunk in file.chunks():
            digest.update(chunk)
        kept = hasattr(file, "temporary_file_path")
        answer[name] = {"size": file.size, "sha256": digest.hexdigest(), "on_disk": kept}
    return JsonResponse({"files": answer, "fields": request.POST.dict()})


def download(request):
    """Send a file, which goes by wsgi.file_wrapper."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the response
    file.write(b"0123456789" * 100_000)
    file.seek(0)
    return FileResponse(file, as_attachment=True, filename="digits.txt")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("upload", upload),
    path("download", download),
]
application = get_wsgi_application()


def prepare():
    """Make the database and an administrator."""
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    User.objects.create_superuser("admin", "admin@localhost", "secret")


if __name__ == "__main__":
    prepare()
