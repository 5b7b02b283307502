"""The built book, and a browser that can reach nothing but it."""

import fcntl
import functools
import os
import re
import shutil
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import build
import pytest

ROOT = Path(__file__).parents[2]
CUT_OFF = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-background-networking",
           "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book. What is there already is reused as far as it is current.

    Of the processes of one run the first builds it: another build would take pages away from under the tests of the
    first one.
    """
    lock, run = ROOT / "_build" / ".lock", os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not run or file.read() != run:
            done = build.build(ROOT, quiet=True)
            assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
            file.truncate(0)
            file.write(run)
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def pages():
    """Every page of the book that a reader may open, relative to the folder of the built book."""
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
    return [f"{name}.html" for name in listed] + ["genindex.html", "search.html"]


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium. Where there is none the test is skipped, or fails if ZOLIB_REQUIRE_BROWSER is 1."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        refuse = pytest.fail if os.environ.get("ZOLIB_REQUIRE_BROWSER") == "1" else pytest.skip
        refuse("no Chromium on the path (Debian: apt install chromium): the built book was not opened in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CUT_OFF)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def addresses(html):
    """Where the book can be read from: as files, and from a local server."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"file": html.as_uri(), "http": f"http://127.0.0.1:{server.server_port}"}
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_page(chromium):
    """Opens an address and gives the page; whatever went wrong while it was open is in ``page.faults``."""
    @contextmanager
    def opened(address: str, width: int = 1280, scheme: str = "light", scripts: bool = True):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme,
                                       reduced_motion="reduce", java_script_enabled=scripts)
        page = context.new_page()
        home = address.split("/", 3)[:3] if address.startswith("http") else ["file:", "", ""]
        page.faults = []

        def request(request):
            if not request.url.startswith(("/".join(home), "data:", "blob:")):
                page.faults.append(f"asked for {request.url}")

        page.on("request", request)
        page.on("requestfailed", lambda request: page.faults.append(f"failed to load {request.url}: {request.failure}"))
        page.on("response", lambda response: response.status >= 400 and page.faults.append(
            f"status {response.status} for {response.url}"))
        page.on("console", lambda message: message.type in ("error", "warning") and page.faults.append(
            f"console: {message.text}"))
        page.on("pageerror", lambda error: page.faults.append(f"script: {error}"))
        try:
            page.goto(address, wait_until="load")
            yield page
        finally:
            context.close()

    return opened
