"""A service that takes messages of apprise at a loopback port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pixeltune.cli.notify import VARIABLE

SECRET = "T0pS3cretT0ken"


class Inbox:
    """A service that takes messages of apprise at a loopback port; its address has a secret."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                inbox.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://user:{SECRET}@127.0.0.1:{self.server.server_port}/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def only(self) -> tuple[str, str]:
        (message,) = self.messages
        return message["title"], message["message"]


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """A service of this test; no other addresses are in the environment."""
    monkeypatch.delenv(VARIABLE, raising=False)
    inbox = Inbox()
    yield inbox
    inbox.server.shutdown()
    inbox.server.server_close()
