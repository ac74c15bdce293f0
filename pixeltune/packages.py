"""Packages that may be missing: which command installs them, given how pixeltune itself is installed."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from pixeltune.errors import MissingPackageError
from pixeltune.format import enumerated, is_or_are

_EXTRAS = {
    "apprise": "notify",
    "boto3": "aws",
    "cmaes": "samplers",
    "constriction": "codec",
    "jinja2": "report",
    "kaleido": "report",
    "matplotlib": "paper",
    "mlflow": "mlflow",
    "optuna_dashboard": "dashboard",
    "plotly": "report",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
}
"""Packages that an extra of pixeltune installs."""
_DISTRIBUTIONS = {
    "optuna": "optuna",
    "ray": "ray[default,train,tune]",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "torch": "torch",
}
"""Dependencies that training, evaluation and sampling work without, and what pip calls them."""


def require_packages(purpose: str, *names: str) -> None:
    """Refuse to go on without these packages; nothing is imported.

    Args:
        purpose: What needs them, as the subject of the error.
        names: The names by which they are imported.

    Raises:
        MissingPackageError: Some are not installed. The error names all of them and the command that installs them.
    """
    missing = [name for name in names if not has_package(name)]
    if missing:
        raise MissingPackageError(
            f"{purpose} needs {enumerated(names)}, but {enumerated(missing)} {is_or_are(len(missing))} not installed",
            install_command(missing),
        )


def has_package(name: str) -> bool:
    """Return whether an import of `name` finds something."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a finder that refuses it, or None in its place
        return False


def install_command(names: Iterable[str]) -> str:
    """Return the command that installs these packages next to this pixeltune.

    pixeltune is on no package index: an extra is installed from where pixeltune itself came from, a checkout or a file.
    """
    extras = list(dict.fromkeys(_EXTRAS[name] for name in names if name in _EXTRAS))
    others = list(dict.fromkeys(_DISTRIBUTIONS.get(name, name) for name in names if name not in _EXTRAS))
    checkout = checkout_folder()
    if checkout is not None and Path(sys.prefix) == checkout / ".venv":  # the environment of `uv run`
        project = [] if Path.cwd() == checkout else ["--project", str(checkout)]
        options = [word for extra in extras for word in ("--extra", extra)]
        return shlex.join(["uv", "sync", "--inexact", *project, *options])
    words = ["pip", "install"] if has_package("pip") else ["uv", "pip", "install"]
    if extras:
        wanted = f"[{','.join(extras)}]"
        if checkout is not None:
            words += ["-e", f"{'.' if Path.cwd() == checkout else checkout}{wanted}"]
        else:
            origin = _origin()
            words.append(f"pixeltune{wanted} @ {origin}" if origin else f"pixeltune{wanted}")
    return shlex.join([*words, *others])


def checkout_folder() -> Path | None:
    """Return the folder of the checkout that this code runs from; None for an installed package."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def _origin() -> str:
    """Return the file or repository that pixeltune was installed from; "" if that is not recorded."""
    import importlib.metadata

    try:
        text = importlib.metadata.distribution("pixeltune").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    record = json.loads(text) if text else {}
    url = str(record.get("url", ""))
    return f"{record['vcs_info']['vcs']}+{url}" if "vcs_info" in record else url
