import json

from django.http import HttpResponse, JsonResponse
from django.urls import path

from .models import WorldElement


def element(request, pk):
    """POST a JSON object: it becomes attributes of the element, name its name."""
    item, _ = WorldElement.objects.get_or_create(pk=pk, defaults={"name": f"Element {pk}"})
    values = json.loads(request.body)
    item.name = values.pop("name", item.name)
    item.attributes = {**item.attributes, **values}
    item.save()
    return JsonResponse({"id": item.pk})


def clear(request):
    WorldElement.objects.all().delete()
    return HttpResponse(status=204)


urlpatterns = [path("element/<int:pk>", element), path("clear", clear)]
