"""What pages say of the repository: its address, one setting of `_config.yml`, without which nothing that needs it is
shown; when each page last changed; and how to cite the book.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from structure_first.errors import UserError
from structure_first.pretraining.reading import read_yaml


def read(root: Path) -> dict[str, Any]:
    """The book's configuration; empty where there is none. Raises `UserError` for what is no YAML of settings."""
    file, advice = root / "_config.yml", "write its settings as name: value"
    config = read_yaml(file, advice) if file.is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"{file} holds no settings; {advice}")
    return config


def address(config: Mapping[str, Any]) -> str:
    """The repository's address, without a slash at its end; raises `UserError` for what does not look like one."""
    url = str((config.get("repository") or {}).get("url") or "").rstrip("/")
    if url and not re.fullmatch(r"https://[\w.-]+(/[\w.-]+){2,}", url):
        problem = f"_config.yml: the repository's url must be like https://HOST/OWNER/NAME, or empty, not {url}"
        raise UserError(problem)
    return url


def configured(config: Mapping[str, Any], modified: Mapping[str, str]) -> dict[str, Any]:
    """The configuration that Jupyter Book gets: with buttons, where there is an address, and each page's last change.

    Theme options that stand under `sphinx:` take the place of all that Jupyter Book makes of its own settings, so what
    it would make of `repository:` and `launch_buttons:` is added to them.
    """
    sphinx = dict(config.get("sphinx") or {})
    settings = dict(sphinx.get("config") or {})
    settings["html_context"] = {**settings.get("html_context", {}), "modified": dict(modified)}
    if url := address(config):
        launch = dict(config.get("launch_buttons") or {})
        if not url.startswith("https://github.com/"):
            launch.pop("colab_url", None)  # it opens no other host's notebooks
        settings["html_theme_options"] = {
            **settings.get("html_theme_options", {}),
            "repository_url": url,
            "repository_branch": branch(config),
            "path_to_docs": "book",
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": launch,
        }
    return {**config, "sphinx": {**sphinx, "config": settings}}


def branch(config: Mapping[str, Any]) -> str:
    return (config.get("repository") or {}).get("branch") or "main"


def modified(book: Path) -> dict[str, str]:
    """The day of the last commit of each page, by its name; none outside of a checkout."""
    command = ["git", "-C", str(book), "log", "--format=%x00%cs", "--name-only", "--relative", "--", "."]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    days: dict[str, str] = {}
    for commit in said.split("\0")[1:]:  # from the newest
        day, *files = commit.split()
        for path in map(Path, files):
            if path.suffix in (".md", ".ipynb"):
                days.setdefault(str(path.with_suffix("")), day)
    return days


def launch(config: Mapping[str, Any]) -> str:
    """How to run a chapter elsewhere than here, as Markdown; nothing while there is no address."""
    url = address(config)
    if not url:
        return ""
    name = url.rpartition("/")[2]
    return f"""The rocket above a chapter opens its notebook where notebooks run: on Binder, which makes the environment
of `environment.yml`, on a JupyterHub whose image was made of the same file, or on Colab, where a first cell has to say:

```text
!git clone --depth 1 --branch {branch(config)} {url}
%pip install --quiet -c {name}/constraints.txt -e ./{name}
```

Then restart the session, and begin with `%cd {name}/book/chapters`.
"""


def citation(root: Path, config: Mapping[str, Any]) -> str:
    """The book's BibTeX entry, from `CITATION.cff`, in a box of Markdown; nothing where that file is not."""
    if not (file := root / "CITATION.cff").is_file():
        return ""
    told = read_yaml(file, "restore it")
    fields = {
        "title": told["title"],
        "author": " and ".join(f"{{{each['name']}}}" for each in told["authors"]),
        "year": config.get("copyright", ""),
        "version": told["version"],
        "url": address(config),
    }
    lines = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items() if value)
    return f"```bibtex\n@misc{{structurefirst{fields['year']},\n{lines}}}\n```\n"
