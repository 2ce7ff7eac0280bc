"""The workflows of the shop, and the one provider of this process.

Django's models may be used in activities (they run on threads: close old connections first), never in orchestrations.
"""

import functools
from collections.abc import Generator
from typing import Any

from django.conf import settings
from django.db import close_old_connections

import duroxide


@functools.cache
def provider() -> duroxide.SqliteProvider:
    """Opened at the first use: in the process that uses it, after any fork of the web server."""
    return duroxide.SqliteProvider.open(settings.WORKFLOWS_DB)


@functools.cache
def client() -> duroxide.Client:
    return duroxide.Client(provider())


def reserve(ctx: duroxide.ActivityContext, item: str) -> str:
    close_old_connections()  # this thread may have slept for longer than the database keeps connections
    return f"{item} reserved"  # Stock.objects.filter(...).update(...) in life


def order(ctx: duroxide.OrchestrationContext, wanted: dict[str, Any]) -> Generator[Any, Any, list[str]]:
    ctx.set_custom_status("reserving")
    reserved: list[str] = yield ctx.all_typed([ctx.schedule_activity("reserve", item) for item in wanted["items"]])
    return reserved


def runtime() -> duroxide.Runtime:
    made = duroxide.Runtime(provider())
    made.register_activity("reserve", reserve)
    made.register_orchestration("order", order)
    return made
