"""`manage.py order NUMBER --items ...`: starts the workflow of one order, and may wait for it."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

import duroxide
from shop import workflows


class Command(BaseCommand):
    help = "Start the workflow of an order; a number that was ordered already is left alone."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("number", type=int)
        parser.add_argument("--items", nargs="+", required=True)
        parser.add_argument("--wait", type=int, metavar="MS", help="wait for the result, at most so long")

    def handle(self, *args: Any, **options: Any) -> None:
        client, instance = workflows.client(), f"order-{options['number']}"
        client.start_orchestration(instance, "order", {"items": options["items"]})
        if options["wait"] is None:
            self.stdout.write(f"started {instance}")
            return
        try:
            self.stdout.write(", ".join(client.wait_for_orchestration_typed(instance, options["wait"])))
        except duroxide.OperationTimeout:
            raise CommandError(f"{instance} is not done yet: does a `manage.py work` run?") from None
        except duroxide.OrchestrationFailed as error:
            raise CommandError(f"{instance} failed: {error}") from error
