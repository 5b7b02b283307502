"""Every link of the built book leads somewhere, those in raw HTML and in figures included."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest


class Links(HTMLParser):
    """The addresses a page refers to, and the places within it that can be referred to."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.places = set(), {""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src", "xlink:href") and value:
                self.links.add(value)
            if name == "id" or (name == "name" and tag == "a"):
                self.places.add(value)


def broken(pages: dict[Path, Links]) -> list[str]:
    """Links to local files that do not exist, or to places that their page does not have."""
    found = []
    for page, content in pages.items():
        for link in sorted(content.links):
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            address, place = urldefrag(link)
            address = unquote(urlsplit(address).path)
            target = (page.parent / address).resolve() if address else page
            if not target.exists():
                found.append(f"{page.name}: {link} leads to no file")
            elif target in pages and unquote(place) not in pages[target].places:
                found.append(f"{page.name}: {link} leads to no place on its page")
    return found


def read(html: Path) -> dict[Path, Links]:
    return {page.resolve(): Links(page.read_text(encoding="utf-8")) for page in html.rglob("*.html")
            if "_static" not in page.parts}


def test_every_link_leads_somewhere(html):
    pages = read(html)
    assert len(pages) > 20
    assert broken(pages) == []


@pytest.mark.parametrize(("link", "complaint"), [
    ("there.html", None), ("there.html#place", None), ("#here", None), ("https://example.org/nothing", None),
    ("nowhere.html", "no file"), ("there.html#nowhere", "no place"), ("#nowhere", "no place"),
])
def test_broken_links_are_found(tmp_path, link, complaint):
    (tmp_path / "page.html").write_text(f'<p id="here"><svg><a href="{link}">x</a></svg></p>')
    (tmp_path / "there.html").write_text('<p id="place">')
    found = broken(read(tmp_path))
    assert [] == found if complaint is None else complaint in found[0]
