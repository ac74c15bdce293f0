"""Optuna's dashboard over the results, on this machine's loopback address; nothing is written."""

from __future__ import annotations

import json
import os
import re
import socketserver
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna.trial import TrialState

from pixeltune.errors import ConfigError
from pixeltune.results.optuna_storage import GalleryStore, ReadOnlyStorage

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
_READING = ("GET", "HEAD", "OPTIONS")
_DETAIL = re.compile(r"/api/studies/([0-9]+)/?")
_REFUSAL = "pixeltune's results are only read here: notes, names and artifacts cannot be changed"
_MOST_REFUSED_BYTES = 1 << 20


class DashboardServer(socketserver.ThreadingMixIn, WSGIServer):
    """A server of the dashboard; `serve_forever` runs it, and it listens once it is made.

    Attributes:
        storage: The searches.

    Args:
        storage: The searches.
        port: The port; 0 for any that is free.

    Raises:
        ConfigError: The port is not free, or not allowed.
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there, two servers could share the port

    def __init__(self, storage: ReadOnlyStorage, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _QuietHandler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"--port must be free on {HOST}, but {port} is not ({reason}); take another, or leave it out"
            ) from error
        self.storage = storage
        self.set_app(dashboard_app(storage))

    def server_bind(self) -> None:
        """Bind without the look-up of a name, which may take seconds without a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, but not a browser that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Return the address for a browser."""
        return f"http://{HOST}:{self.server_port}/dashboard"


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Print no line for a request."""


def dashboard_app(storage: ReadOnlyStorage) -> WSGIApplication:
    """Return the dashboard as a WSGI application that refuses to change anything and names pixeltune's best trials."""
    from optuna_dashboard import wsgi

    app: WSGIApplication = wsgi(storage, artifact_store=GalleryStore(storage))

    def reading_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in _READING:
            return _refuse(environ, start_response)
        detail = _DETAIL.fullmatch(environ.get("PATH_INFO", ""))
        if detail is None or _names_our_best(storage, int(detail[1])):
            return app(environ, start_response)
        return _with_our_best(app, storage, int(detail[1]), environ, start_response)

    return reading_app


def _refuse(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdecimal():  # what is left unread resets the connection before the browser sees the answer
        environ["wsgi.input"].read(min(int(length), _MOST_REFUSED_BYTES))
    start_response("403 Forbidden", [("Content-Type", "application/json")])
    return [json.dumps({"reason": _REFUSAL}).encode()]


def _names_our_best(storage: ReadOnlyStorage, study_id: int) -> bool:
    """Return whether the dashboard's own choice is right: it knows no constraints, and would choose by the test set."""
    try:
        search = storage.search(study_id)
    except KeyError:
        return True
    if search.manifest.constraints or search.manifest.final is not None:
        return False
    is_complete = any(trial.state is TrialState.COMPLETE for trial in search.trials())
    return is_complete == bool(search.best())


def _with_our_best(
    app: WSGIApplication,
    storage: ReadOnlyStorage,
    study_id: int,
    environ: WSGIEnvironment,
    start_response: StartResponse,
) -> Iterable[bytes]:
    """Answer with the detail of a study in which `best_trials` are pixeltune's."""
    body, status, headers = _call(app, environ)
    if status.startswith("200"):
        detail = json.loads(body)
        best = storage.search(study_id).best()
        trials = {trial["trial_id"]: trial for trial in (*detail["best_trials"], *detail["trials"])}
        if not best <= trials.keys():  # the browser asked for the newest trials alone
            whole = json.loads(_call(app, environ | {"QUERY_STRING": ""})[0])
            trials = {trial["trial_id"]: trial for trial in whole["trials"]}
        detail["best_trials"] = [trials[number] for number in sorted(best & trials.keys())]
        body = json.dumps(detail).encode()
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start_response(status, headers)
    return [body]


def _call(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[bytes, str, list[tuple[str, str]]]:
    """Return the body, the status and the headers of an answer."""
    answer: list[Any] = []

    def keep(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
        answer[:] = [status, headers]
        return lambda _part: None

    parts: Iterator[bytes] | Iterable[bytes] = app({**environ}, keep)
    body = b"".join(parts)
    return body, answer[0], answer[1]
