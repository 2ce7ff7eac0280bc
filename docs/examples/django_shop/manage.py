"""A Django project in one file, for the two management commands in `shop/management/commands`.

    pip install django                          # beside duroxide
    python manage.py work                       # runs the workflows until SIGTERM or Ctrl-C
    python manage.py order 7 --items lamp desk  # starts one, from anywhere; --wait waits for it

In a project of yours: the setting WORKFLOWS_DB, the app `shop`, and views that use `shop.workflows.client()`.
"""

import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.management import execute_from_command_line

HERE = Path(__file__).resolve().parent


def configure() -> None:
    settings.configure(
        INSTALLED_APPS=["shop"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "shop.db"}
        },  # Django's own; workflows have another file
        WORKFLOWS_DB=os.environ.get("WORKFLOWS_DB", str(HERE / "workflows.db")),
        USE_TZ=True,
    )
    django.setup()


if __name__ == "__main__":
    configure()
    execute_from_command_line(sys.argv)
