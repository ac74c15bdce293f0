"""The metadata services of AWS and Google Cloud on loopback: what a spot machine is told before it is taken away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, str] | None
"""Status and body; None for silence."""


class Metadata:
    """Both clouds' services. notice: of AWS; preempted: of Google Cloud. faults: answered first, one by one.

    tokens: handed out so far, the last of which holds. asked: "METHOD path".
    """

    def __init__(self) -> None:
        self.notice: str | None = None
        self.preempted = False
        self.faults: list[Answer] = []
        self.tokens: list[str] = []
        self.asked: list[str] = []
        self.changed = threading.Condition()

    def take_away(self, seconds: float) -> float:
        """The notice of AWS that the machine ends in so many seconds; when that is, as the notice says."""
        when = round(time.time() + seconds)
        self.notice = json.dumps(
            {"action": "terminate", "time": f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ}"}
        )
        return when

    def preempt(self) -> None:
        """That of Google Cloud."""
        with self.changed:
            self.preempted = True
            self.changed.notify_all()

    def put(self, headers: dict[str, str]) -> Answer:
        """A new token of IMDSv2."""
        if not 1 <= int(headers.get("X-aws-ec2-metadata-token-ttl-seconds", 0)) <= 21_600:
            return 400, ""
        self.tokens.append(f"token-{len(self.tokens)}")
        return 200, self.tokens[-1]

    def get(self, path: str, headers: dict[str, str]) -> Answer:
        """What is asked for, to those who ask rightly."""
        if path == "/latest/meta-data/spot/instance-action":
            if headers.get("X-aws-ec2-metadata-token") not in self.tokens[-1:]:
                return 401, ""
            return (404, "") if self.notice is None else (200, self.notice)
        if path.startswith("/computeMetadata/v1/instance/preempted"):
            if headers.get("Metadata-Flavor") != "Google":
                return 403, ""
            if "wait_for_change=true" in path:
                with self.changed:
                    self.changed.wait_for(lambda: f"last_etag={self.tag()}" not in path, timeout=2)
            return 200, str(self.preempted).upper()
        return 404, ""

    def tag(self) -> str:
        """Another one when what it belongs to has changed."""
        return f"tag{int(self.preempted)}"


@contextmanager
def serving(metadata: Metadata) -> Iterator[str]:
    """Its address meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, made: Callable[[], Answer]) -> None:
            metadata.asked.append(f"{self.command} {self.path}")
            answer = metadata.faults.pop(0) if metadata.faults else made()
            if answer is None:
                time.sleep(1)
                return
            status, body = answer
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://192.0.2.1/latest")
            self.send_header("ETag", metadata.tag())
            self.end_headers()
            self.wfile.write(body.encode())

        def do_PUT(self) -> None:
            self._answer(lambda: metadata.put(dict(self.headers)))

        def do_GET(self) -> None:
            self._answer(lambda: metadata.get(self.path, dict(self.headers)))

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
