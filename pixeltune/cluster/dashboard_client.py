"""The client of a head's dashboard: Ray's own, restricted to the given URL, with timeouts."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pixeltune.cluster.ssh_tunnel import DashboardConnection, UnreachableError
from pixeltune.errors import SearchError
from pixeltune.tune.ray_session import set_environment, token_file

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_REQUEST_SECONDS = (10, 60)
_SERVER_FAULT = re.compile(r"status code 5\d\d")


class DashboardFaultError(SearchError):
    """The dashboard could not do what was asked, as while the head's other processes start or end."""


@contextmanager
def client_at(reach: DashboardConnection) -> Iterator[JobSubmissionClient]:
    """Yield a client of the dashboard; UnreachableError if the connection fails or breaks."""
    set_environment(None)  # before Ray is imported: our clusters require the token as a local Ray does
    _require_token()
    with reach() as url, _to_that_url_alone():
        try:
            yield _connected(url)
        except ConnectionError as error:
            why = " ".join(str(error).split())[:200]
            raise UnreachableError(f"Ray's dashboard must answer on the head, but does not ({why}); ray up") from None
        except RuntimeError as error:  # Ray's exception for an answer that is not 200
            kind = DashboardFaultError if _SERVER_FAULT.search(str(error)) else SearchError
            raise kind(f"Ray's dashboard must do as asked, but: {' '.join(str(error).split())[:300]}") from None


def _require_token() -> None:
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    if not token_file().is_file():
        raise SearchError(
            f"the cluster's token must be in {token_file()}, but there is none; it is made by "
            "`ray get-auth-token --generate` before `ray up`, or copied from where that was done"
        )


def _connected(url: str) -> JobSubmissionClient:
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)  # they set their own levels

    class Client(JobSubmissionClient):
        """Ray's own client, with timeouts."""

        def _do_request(self, *words: Any, **options: Any) -> requests.Response:
            try:
                return super()._do_request(*words, timeout=_REQUEST_SECONDS, **options)
            except requests.exceptions.RequestException as error:
                raise ConnectionError(f"the dashboard does not answer: {type(error).__name__}") from None
            except AuthenticationError as error:
                raise SearchError(
                    "the cluster asks for its token, as ~/.ray/auth_token was when `ray up` ran, but: "
                    + " ".join(str(error).split())[:200]
                ) from None

    return Client(url)


@contextmanager
def _to_that_url_alone() -> Iterator[None]:
    """Override these variables: Ray's clients would follow them instead of their URL, or send the token to a proxy."""
    wanted = {"RAY_ADDRESS": None, "RAY_API_SERVER_ADDRESS": None, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    kept = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(kept)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
