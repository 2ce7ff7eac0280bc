"""`manage.py work`: runs workflows in this process until it is told to stop."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from shop import workflows


class Command(BaseCommand):
    help = "Run the shop's workflows until SIGTERM or Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: told.set())
        runtime = workflows.runtime()
        runtime.start()
        self.stdout.write("working")
        self.stdout.flush()
        told.wait()
        runtime.shutdown(10_000)
        workflows.provider().close()
        self.stdout.write("stopped")
