"""What each page of the built book weighs and when a reader sees something, from a server on this machine.

    python book/tools/weight.py [page.html ...]

Weight is all that the page loads when nothing is cached, in kilobytes as they travel without compression. First
paint and the moment when all formulas are set are medians of three, in milliseconds: they depend on the machine.
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
TYPESET = """async () => { if (window.MathJax?.startup?.promise) await MathJax.startup.promise; return performance.now(); }"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def weigh(browser, address: str) -> tuple[float, float, float]:
    """Kilobytes loaded, milliseconds to the first paint, milliseconds until all formulas are set."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address, wait_until="load")
    typeset = page.evaluate(TYPESET)
    page.wait_for_timeout(50)
    found = page.evaluate(LOADED) / 1000, page.evaluate(PAINTED), typeset
    context.close()
    return found


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
        print(f"{'page':52s} {'kB':>6s} {'paint':>6s} {'formulas':>8s}")
        for name in names:
            runs = [weigh(browser, f"http://127.0.0.1:{server.server_port}/{name}") for _ in range(3)]
            size, paint, typeset = map(statistics.median, zip(*runs, strict=True))
            print(f"{name:52s} {size:6.0f} {paint:6.0f} {typeset:8.0f}", flush=True)
        browser.close()
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
