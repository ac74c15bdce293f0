"""An S3 server on 127.0.0.1 (moto), which fails as it is told: refusals, cut connections, answers that get lost."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.optional import require

require("moto", "boto3")
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from pixeltune import files

KEY, SECRET = "loopback-key", "loopback-secret-that-nobody-may-see"
FAULTS = ("500", "503", "cut", "lost")
"""Refused; refused as too busy; cut before it is done; done, and the answer cut."""

STALL_SECONDS = 30.0
"""Of a further fault, "stall": no answer for so long, and then a cut connection."""

Plan = Callable[[int, str, str], str]
"""Given a request's number, method and path: its fault, or "" for an answer."""


@dataclass
class S3Server:
    """url: of the server. bucket: an empty one. requests: method and path of each, faults included."""

    url: str
    bucket: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    plan: Plan = lambda _number, _method, _path: ""

    @property
    def environment(self) -> dict[str, str]:
        """By which pyarrow, boto3 and every process that a launch starts find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def storage(self) -> str:
        """A URI that needs the environment to be found."""
        return f"s3://{self.bucket}/results"

    @property
    def storage_with_endpoint(self) -> str:
        """A URI that names the server itself."""
        return f"{self.storage}?endpoint_override={quote(self.url, safe='')}&region=us-east-1"

    def fail(self, plan: Plan) -> None:
        """From now on; requests are counted from 1 again."""
        self.requests.clear()
        self.plan = plan

    def heal(self) -> None:
        self.fail(lambda _number, _method, _path: "")


def some(seed: int, *, share: float, most: int) -> Plan:
    """A share of the requests fails, in ways chosen by seed, but never more than `most` for one path.

    Requests come from several threads at once, and an operation makes several: so many are what its tries get over,
    whatever the order in which they arrive. A folder's own path is part of every operation in it, and is spared.
    """
    chance = random.Random(seed)
    lock = threading.Lock()
    failed = Counter[str]()

    def plan(_number: int, _method: str, path: str) -> str:
        with lock:
            may_fail = failed[path] < most and not path.endswith("/")
            fault = chance.choice(FAULTS) if may_fail and chance.random() < share else ""
            failed[path] += bool(fault)
            return fault

    return plan


@contextlib.contextmanager
def requests_at_once(requests: int = 1) -> Iterator[None]:
    """Let Arrow send each request this often before it reports a failure; our own tries come on top of these.

    Arrow waits longer before each repetition, about 0.6 s for the three that pixeltune sets.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_REQUESTS", requests)
        files._bucket.cache_clear()
        yield
    files._bucket.cache_clear()


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    inner = DomainDispatcherApplication(create_backend_app)
    server = S3Server("", f"b{uuid.uuid4().hex[:12]}")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        server.requests.append((method, path))
        fault = server.plan(len(server.requests), method, path)
        if fault in ("500", "503"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} {'Slow Down' if fault == '503' else 'Internal Error'}", [("Content-Length", "0")])
            return []
        if fault == "stall":
            time.sleep(STALL_SECONDS)
        if fault == "lost":
            list(inner(environ, lambda *_: lambda _data: None))
        if fault:
            with contextlib.suppress(OSError):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError(fault)
        return inner(environ, start_response)

    http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        _client(server).create_bucket(Bucket=server.bucket)
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Quiet(WSGIRequestHandler):
    def log(self, *_words: Any) -> None:
        """Nothing."""

    def run_wsgi(self) -> None:
        with contextlib.suppress(OSError):
            super().run_wsgi()


def _client(server: S3Server) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


def objects(server: S3Server) -> dict[str, bytes]:
    """Everything that is stored, as S3 itself shows it."""
    client = _client(server)
    return {name: client.get_object(Bucket=server.bucket, Key=name)["Body"].read() for name in object_names(server)}


def object_names(server: S3Server) -> list[str]:
    """The names alone, which can be asked for while a search removes objects."""
    pages = _client(server).get_paginator("list_objects_v2").paginate(Bucket=server.bucket)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


@contextlib.contextmanager
def in_environment(server: S3Server) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


def waited(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
