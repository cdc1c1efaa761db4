"""The site as a WSGI application; its records are loaded with it, its pages by the first request."""

import os

from django.core.wsgi import get_wsgi_application

import django_site.records

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_site.settings")
application = get_wsgi_application()
assert len(django_site.records.RECORDS) == django_site.records.COUNT
