"""The repository's address is one setting: what needs it is shown when it is set, and left out while it is empty."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from structure_first.book import pages, repository
from structure_first.errors import UserError

ROOT = Path(__file__).parents[2]
URL = "https://github.com/someone/a-book"


def at(url: str) -> dict:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    return config | {"repository": {**config["repository"], "url": url}}


def pages_of(book) -> dict[str, str]:
    return {name: (book.html / f"{name}.html").read_text() for name in ("intro", "chapters/01_tiny")}


@pytest.fixture
def known(built_book) -> dict[str, str]:
    """The pages of a book with an address, of which one chapter alone was ever committed."""

    def git(*arguments: str) -> None:
        named = ["-c", "user.name=a", "-c", "user.email=a@b"]
        dated = {"GIT_AUTHOR_DATE": "2024-05-06T12:00:00Z", "GIT_COMMITTER_DATE": "2024-05-06T12:00:00Z"}
        command = ["git", "-C", str(built_book.root), *named, *arguments]
        subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"} | dated)

    (built_book.root / "_config.yml").write_text(yaml.safe_dump(at(URL + "/")))
    assert repository.modified(built_book.book) == {}, "not a checkout yet"
    git("init")
    git("add", "book/chapters")
    git("commit", "-m", "A chapter")
    assert repository.modified(built_book.book) == {"chapters/01_tiny": "2024-05-06"}
    built_book.build()
    return pages_of(built_book)


def test_with_an_address_pages_have_buttons_and_dates_and_without_they_have_none(known, once_built):
    unknown = pages_of(once_built)
    assert "Last updated on 2024-05-06" in known["chapters/01_tiny"]
    assert "Last updated" not in known["intro"], "of a page that was never committed"
    assert f'href="{URL}"' in known["intro"] and f"{URL}/issues/new" in known["intro"]
    notebook = "book/chapters/01_tiny.ipynb"
    for there in (
        f"https://mybinder.org/v2/gh/someone/a-book/main?urlpath=lab/tree/{notebook}",
        f"https://colab.research.google.com/github/someone/a-book/blob/main/{notebook}",
    ):
        assert there in known["chapters/01_tiny"] and there not in known["intro"], (
            "a page of text has nothing to launch"
        )
    elsewhere = r"mybinder|colab|github\.com/(?!executablebooks)|/issues/new"
    assert not re.findall(elsewhere, unknown["intro"] + unknown["chapters/01_tiny"])


def test_a_hub_of_ones_own_and_another_host():
    theme = repository.configured(at("https://codeberg.org/someone/a-book"), {})["sphinx"]["config"][
        "html_theme_options"
    ]
    assert theme["repository_url"] == "https://codeberg.org/someone/a-book"
    assert "binderhub_url" in theme["launch_buttons"] and "colab_url" not in theme["launch_buttons"]
    own = at(URL) | {"launch_buttons": {"jupyterhub_url": "https://hub.example"}}
    theme = repository.configured(own, {})["sphinx"]["config"]["html_theme_options"]
    assert theme["launch_buttons"] == {"jupyterhub_url": "https://hub.example"}
    assert theme["home_page_in_toc"], "the theme's own options are lost"


@pytest.mark.parametrize("url", ["github.com/someone/a-book", "https://github.com", "https://x/a b/c", '"><script>'])
def test_what_is_no_address_is_refused_in_one_line(url):
    with pytest.raises(UserError, match=r"url must be like https://HOST/OWNER/NAME, or empty, not "):
        repository.address(at(url))


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_what_is_no_configuration_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "_config.yml").write_text(text)
    with pytest.raises(UserError, match=r"_config\.yml") as caught:
        repository.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_first_page_says_how_to_launch_and_cite(tmp_path, quick):
    (tmp_path / "book").mkdir()
    for name in ("claims.yml", "results"):
        (tmp_path / "book" / name).symlink_to(ROOT / "book" / name)
    shutil.copy2(ROOT / "CITATION.cff", tmp_path)
    for url in (URL, ""):
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(at(url)))
        found = pages.fragments(tmp_path / "book" / "results")
        assert (f"git clone --depth 1 --branch main {URL}" in found["launch"]) == bool(url) == bool(found["launch"])
        assert (f"  url = {{{URL}}},\n" in found["citation"]) == bool(url)
        assert "title = {Structure First: Procedural Pretraining, Reproduced}" in found["citation"]


def test_the_citation_file_has_the_address_that_is_set():
    address = repository.address(repository.read(ROOT))
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text()).get("repository-code", "") == address
