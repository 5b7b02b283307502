"""What each page of the built book weighs and when a reader sees something, from a server on this machine.

    python book/tools/weight.py [page.html ...]

Weight is all that the page loads when nothing is cached, in kilobytes as they travel without compression. First
paint is in milliseconds, which depend on the machine. Shift is how much of what is seen moves while the page loads, as
the browser sums it, on a wide screen and on a phone; up to 0.1 is called good. All are medians of three.
"""

import functools
import re
import shutil
import statistics
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADED = """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
  .reduce((sum, e) => sum + e.decodedBodySize, 0)"""
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
# How much of what is seen has moved since the page appeared.
MOVED = """() => new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 150);
})"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def weigh(browser, address: str) -> tuple[float, float, float, float]:
    """Kilobytes loaded, milliseconds to the first paint, shift on a wide screen and on a phone."""
    found = []
    for width in (1280, 390):
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        page.goto(address, wait_until="load")
        found.append((page.evaluate(MOVED), page.evaluate(LOADED) / 1000, page.evaluate(PAINTED)))
        context.close()
    (wide, size, paint), (phone, _, _) = found
    return size, paint, wide, phone


def main() -> int:
    html = ROOT / "_build" / "html"
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
    names = sys.argv[1:] or [f"{name}.html" for name in listed]
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program or not html.exists():
        print("first make book, and put Chromium on the path", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        print(f"{'page':52s} {'kB':>6s} {'paint':>6s} {'shift: wide':>12s} {'phone':>6s}")
        for name in names:
            runs = [weigh(browser, f"http://127.0.0.1:{server.server_port}/{name}") for _ in range(3)]
            size, paint, wide, phone = map(statistics.median, zip(*runs, strict=True))
            print(f"{name:52s} {size:6.0f} {paint:6.0f} {wide:12.3f} {phone:6.3f}", flush=True)
        browser.close()
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
