"""No page is heavy: what it loads that no other page has, and all that a first visit loads, without compression."""

import re
from urllib.parse import unquote, urlsplit

LOADS = re.compile(r'<(?:script|img|link)\b[^>]*?\b(?:src|href)="([^"#]+)"')


def weight(page) -> tuple[int, int]:
    """Bytes of the page and its pictures; with scripts and styles."""
    files = {page.parent / unquote(urlsplit(link).path) for link in LOADS.findall(page.read_text(encoding="utf-8"))
             if not urlsplit(link).scheme}
    sizes = {file: file.stat().st_size for file in files if file.is_file() and file.suffix != ".html"}
    own = page.stat().st_size + sum(size for file, size in sizes.items() if file.suffix in (".png", ".svg"))
    return own, page.stat().st_size + sum(sizes.values())


def test_no_page_is_heavy(html, pages):
    weights = {name: weight(html / name) for name in pages}
    assert {name: own for name, (own, _) in weights.items() if own > 2_000_000} == {}
    assert {name: whole for name, (_, whole) in weights.items() if whole > 3_000_000} == {}
    assert min(whole for _, whole in weights.values()) > 500_000  # the theme's styles alone
