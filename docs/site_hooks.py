"""Pages of the documentation site that are made from the code or from files outside of docs/.

MkDocs calls these functions (`hooks` in mkdocs.yml). Links to files of the repository lead to their pages if there
are any, and are text otherwise.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "measured.md",
    "cluster/README.md": "guides/clusters.md",
    "search_spaces/LOG.md": "log.md",
}
"""Files of the repository that are pages, by their path."""

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(docs/([^)]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are no files of docs/."""
    made = {page: _moved((ROOT / path).read_text(encoding="utf-8"), path, page) for path, page in PAGES.items()}
    made |= {
        "reference/cli.md": command_line_page(),
        "reference/config.md": config_page(),
        "reference/columns.md": columns_page(),
        "reference/python.md": python_page(),
    }
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links of the pages in docs/ lead to pages of the site."""
    return _moved(markdown, f"docs/{page.file.src_uri}", page.file.src_uri) if page.file.abs_src_path else markdown


def command_line_page() -> str:
    """Return the help of every verb, from the parsers themselves."""
    from pixeltune.cli import command_line
    from pixeltune.cli.search import launch_line

    sections = [f"## `launch.py`\n\n```text\n{launch_line().format_help()}```\n"]
    for words, parser in _parsers(command_line(), ("pixeltune",)):
        sections.append(f"## `{' '.join(words)}`\n\n```text\n{parser.format_help()}```\n")
    return "# Command line\n\n" + "\n".join(sections)


def config_page() -> str:
    """Return every key of a configuration, by section."""
    from pixeltune.results.schema import config_columns

    lines = [
        "# Configuration keys",
        "",
        "In a TOML file, in `TrialConfig.build`, in `vary` and with `--set KEY=VALUE`.",
    ]
    section = None
    for key, column in config_columns().items():
        if key.partition(".")[0] != section and "." in key:
            section = key.partition(".")[0]
            lines += ["", f"## {section}", "", "| key | type | unit | meaning |", "|---|---|---|---|"]
        elif "." not in key and section != "":
            section = ""
            lines += ["", "## Without a section", "", "| key | type | unit | meaning |", "|---|---|---|---|"]
        meaning = column.description.replace("|", "\\|")
        lines.append(f"| `{key}` | {column.type} | {column.unit} | {meaning} |")
    return "\n".join(lines) + "\n"


def columns_page() -> str:
    """Return every column of the results, as `pixeltune columns` prints them."""
    from pixeltune.cli.columns import reference

    return "# Columns of the results\n\n" + "\n".join(line.replace("### ", "## ", 1) for line in reference()) + "\n"


def python_page() -> str:
    """Return the public names, whose docstrings mkdocstrings renders."""
    import pixeltune

    intro = "# Python\n\n`import pixeltune as pt` has these names; other modules may change without notice.\n"
    return intro + "\n".join(f"\n::: {pixeltune._HOMES[name]}.{name}\n" for name in pixeltune.__all__)


def _parsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _parsers(child, (*words, name))


def _moved(text: str, source: str, page: str) -> str:
    """Return the text with links that are right on the site. source: its path in the repository; page: on the site."""

    def follow(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        found = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if found is None or not found.endswith(".md"):
            return f"{words} (`{path}`)" if words != f"`{path}`" else words
        return f"[{words}]({posixpath.relpath(found, posixpath.dirname(page) or '.')}{anchor})"

    return _IMAGE.sub(r"![\1](\2)", _LINK.sub(follow, text))
