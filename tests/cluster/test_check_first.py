"""A cluster file is checked before its cluster is asked, in one process, as `--cluster` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.cluster_files import filled_in, write

CODE = """
import sys
from pixeltune.cluster.checks_file import check_cluster_file

check_cluster_file(sys.argv[1])
from ray._private.authentication.authentication_utils import is_token_auth_enabled

print(is_token_auth_enabled())
"""


def test_after_a_check_ray_still_sends_the_token(tmp_path: Path) -> None:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    path = write(tmp_path, filled_in("onprem"))
    told = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], env=plain, capture_output=True, text=True, check=True
    )
    assert told.stdout == "True\n"
