"""The book opens from a file, from a folder of a larger site, and without scripts: every page, readable."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Site(SimpleHTTPRequestHandler):
    """A site that knows nothing but the book, in a folder two levels down."""

    PREFIX = "/courses/zolib"

    def translate_path(self, path):
        inside = path.startswith(self.PREFIX + "/")
        return super().translate_path(path.removeprefix(self.PREFIX) if inside else "/nothing/is/here")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(html):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Site, directory=html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{Site.PREFIX}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_every_page_works_in_a_folder_of_a_site(site, open_page, pages):
    problems = []
    for name in pages:
        with open_page(f"{site}/{name}") as page:
            problems += [f"{name}: {fault}" for fault in page.faults]
    assert not problems, "\n".join(problems)
    with open_page(f"{site}/index.html") as page:
        page.wait_for_url(f"{site}/book/index.html")


# What a reader without scripts sees: the text, every formula, every picture, one frame of each figure that would move.
PLAIN = """() => {
  const bad = [], shown = (e) => e.getClientRects().length > 0 && getComputedStyle(e).visibility === "visible"
    && e.getBoundingClientRect().height > 0;
  const article = document.querySelector("article");
  const words = (article ? article.innerText : "").split(/\\s+/).length;
  if (words < 30) bad.push(`only ${words} words`);
  for (const e of document.querySelectorAll("article :is(h1, h2, section > p)"))
    if (e.textContent.trim() && !shown(e) && !e.closest("details, noscript")) bad.push("hidden: " + e.textContent.slice(0, 60));
  for (const e of document.querySelectorAll("article .math"))
    if (!e.querySelector("mjx-container svg use")) bad.push("a formula as source: " + e.textContent.slice(0, 60));
  for (const e of document.querySelectorAll("article img"))
    if (!e.naturalWidth || !(shown(e) || e.closest("details"))) bad.push("no picture: " + e.src);
  for (const e of document.querySelectorAll(".zolib-moving")) {
    if (![...e.querySelectorAll("svg")].every((s) => shown(s) && s.querySelector("polyline, circle, path"))) bad.push("no frame");
    if (!shown(e.querySelector(".words")) || !e.querySelector(".words").textContent.trim()) bad.push("a frame without words");
    if (shown(e.querySelector("input"))) bad.push("a slider that does nothing");
  }
  for (const e of document.querySelectorAll(".admonition.dropdown, details.admonition"))
    if (!e.open && e.tagName !== "DETAILS" && !shown(e.lastElementChild)) bad.push("a solution that cannot be opened");
  return bad;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_can_be_read_without_scripts(addresses, open_page, pages, width):
    problems = []
    for name in pages:
        if name == "search.html":
            continue  # it says itself that it needs scripts
        with open_page(f"{addresses['file']}/{name}", width, scripts=False) as page:
            found = [fault for fault in page.faults if not fault.endswith(": csp")]  # scripts, refused as asked
            found += page.evaluate(PLAIN)
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                found.append(f"scrolls sideways at {width} px")
            problems += [f"{name}: {problem}" for problem in found]
    assert not problems, "\n".join(problems)
