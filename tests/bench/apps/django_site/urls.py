"""The site's pages: a list, a record, a sum over a group, a form, and the admin."""

from django import forms
from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path
from pause import collect

from django_site.records import COUNT, RECORDS

PER_PAGE = 20


class OrderForm(forms.Form):
    article = forms.IntegerField(min_value=0, max_value=COUNT)
    mail = forms.EmailField()
    amount = forms.DecimalField(max_digits=6, decimal_places=2)


def index(request):
    """A page of the list, as most visitors read it: one of the first hundred."""
    page = int(request.GET.get("n", 0)) % 100
    records = RECORDS[page * PER_PAGE : (page + 1) * PER_PAGE]
    return render(request, "list.html", {"page": page, "records": records})


def record(request):
    """One record, anywhere."""
    return render(request, "record.html", {"record": RECORDS[int(request.GET["n"]) % COUNT]})


def group(request):
    """A sum over a group of a thousand records."""
    start = int(request.GET["n"]) % 20 * 1000
    total = sum(record.price for record in RECORDS[start : start + 1000])
    return JsonResponse({"group": start // 1000, "total": total})


def order(request):
    """A form that is filled in wrongly, with its errors."""
    form = OrderForm({"article": request.GET["n"], "mail": "nobody", "amount": "1.5"})
    return render(request, "order.html", {"form": form, "valid": form.is_valid()})


def garbage(_request):
    collect()
    return HttpResponse("collected\n")


urlpatterns = [
    path("", index),
    path("record", record),
    path("group", group),
    path("order", order),
    path("gc", garbage),
    path("admin/", admin.site.urls),
]
