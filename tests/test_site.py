"""The pages make a site that loads nothing from the network, with a search that was built beforehand."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
         "object": "data", "embed": "src", "link": "href"}  # fmt: skip
NOT_LOADED = {"canonical", "prev", "next", "edit"}  # what a link element may only name


class Loads(HTMLParser):
    """Addresses that a browser fetches by itself when it shows a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADS and not (tag == "link" and set((given.get("rel") or "").split()) & NOT_LOADED):
            self.found += [given.get(LOADS[tag]) or "", *re.findall(r"\S*//\S+", given.get("srcset") or "")]
        self.found += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style") or "")


def far(address: str) -> bool:
    return bool(re.match(r"(https?:)?//", address))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a broken link or a page outside the navigation is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_of_the_site_loads_anything_from_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    loaded = {f"{page.name}: {one}" for page in pages for one in Loads(page.read_text()).found if far(one)}
    for sheet in site.rglob("*.css"):
        fetched = re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)", sheet.read_text())
        loaded |= {f"{sheet.name}: {one}" for one in fetched}
    assert not loaded
    assert Loads('<script src="https://a/b"></script><img src="//c/d">').found == ["https://a/b", "//c/d"]


def test_what_the_pages_load_is_there(site: Path) -> None:
    missing = set()
    for page in site.glob("*.html"):
        for one in Loads(page.read_text()).found:
            path = one.split("?")[0].split("#")[0]
            if path and not path.startswith(("data:", "/")) and not (page.parent / path).exists():
                missing.add(f"{page.name}: {one}")
    assert not missing


def test_search_index_is_built_and_finds_every_page(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert index.startswith("var __index = ")
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert not {page for page in pages if f'"location":"{page}.html' not in index}
