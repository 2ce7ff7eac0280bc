"""Signing in with Microsoft Entra: an access token is the password.

Owns when a token is fetched anew. Knows of a credential only `get_token(scope)`, as in the package azure-identity, and no connection.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from duroxide.errors import ProviderError

log: logging.Logger = logging.getLogger("duroxide.storage")

AUDIENCE = "https://ossrdbms-aad.database.windows.net/.default"
WHAT = "Failed to connect to PostgreSQL with Entra auth"
_SPARE_S = 120.0  # a token is not used for a new connection in its last two minutes
_NEW_S = 30.0


class AccessToken(Protocol):
    token: str
    expires_on: int  # Unix s


class Credential(Protocol):
    """What azure-identity calls a TokenCredential."""

    def get_token(self, *scopes: str) -> AccessToken: ...


class Tokens:
    """Gives the token for a new connection; fetches one when there is none, when it ends soon or is older than `refresh_s`."""

    def __init__(
        self, credential: Credential, audience: str = AUDIENCE, refresh_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._credential, self._audience, self._refresh_s, self._clock = credential, audience, refresh_s, clock
        self._lock = threading.Lock()
        self._token, self._fetched_at, self._expires_on, self._doubtful = "", 0.0, 0.0, False

    def password(self) -> str:
        """ProviderError if none can be had and the last one has ended."""
        with self._lock:
            now = self._clock()
            old = self._doubtful or (self._refresh_s is not None and now - self._fetched_at >= self._refresh_s)
            if self._token and not old and now < self._expires_on - _SPARE_S:
                return self._token
            try:
                found = self._credential.get_token(self._audience)
            except Exception as error:  # noqa: BLE001 - a credential raises what it likes
                if self._token and now < self._expires_on:
                    log.warning("no new Entra token, the last one is used on: %s", error)
                    return self._token
                raise ProviderError(
                    f"{WHAT}: Entra credential resolution failed: could not acquire an initial access token: {error}"
                ) from error
            self._token, self._fetched_at, self._expires_on, self._doubtful = found.token, now, float(found.expires_on), False
            return self._token

    def doubt(self) -> None:
        """A connection could not be made with it: the next one asks for another, unless this one is new (a server may just be down)."""
        with self._lock:
            self._doubtful = self._clock() - self._fetched_at >= _NEW_S


def default_credential() -> Any:
    """What azure-identity finds: environment, managed identity, command line, in its order. ProviderError where it is not installed."""
    try:
        identity = importlib.import_module("azure.identity")
    except ImportError as error:
        raise ProviderError(
            f"{WHAT}: the package azure-identity is not installed: pip install 'duroxide[entra]', or pass a credential of your own with"
            " PostgresEntraOptions(credential=...)"
        ) from error
    return identity.DefaultAzureCredential()
