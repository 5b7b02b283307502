"""Print the built book into one PDF, _build/zolib.pdf, with Chromium.

    python book/tools/pdf.py [docname ...]

Each page is printed on its own, numbered on from the one before. Then all are put together behind a title page and a
table of contents, and links from page to page, which Chromium writes as links to files, are turned into links within.
"""

import html as markup
import io
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject

ROOT = Path(__file__).parents[2]
WIDTH = 658  # CSS pixels between the margins of an A4 page: 210 mm less twice 18 mm

PREPARE = """(targets) => {
  for (const e of document.querySelectorAll("details:not(.hide)")) e.open = true;
  for (const e of document.querySelectorAll(".toggle-hidden")) e.classList.remove("toggle-hidden");
  // what is wider than the page is set smaller
  for (const e of document.querySelectorAll("article table, article mjx-container[display=true]")) {
    const room = e.parentElement.clientWidth, need = Math.max(e.scrollWidth, e.getBoundingClientRect().width);
    if (room && need > room + 1) e.style.zoom = Math.max(0.45, room / need);
  }
  // Chromium names a place in the PDF only if the page itself links to it
  const links = document.createElement("p");
  links.className = "print-targets";
  for (const id of targets.filter((id) => document.getElementById(id))) {
    const a = document.createElement("a");
    a.href = "#" + id;
    a.textContent = "\\u00b7";
    links.append(a);
  }
  document.querySelector("article").append(links);
}"""
NUMBERED = """html {{ counter-reset: page {before}; }}
@page {{ @bottom-center {{ content: counter(page); font: 9pt sans-serif; color: #555; }}
         @top-left {{ content: {head}; font: 9pt sans-serif; color: #555; }} }}
@page :first {{ @top-left {{ content: none; }} }}"""
FRONT = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
@page {{ size: A4; margin: 25mm 22mm; }}
body {{ font: 11pt/1.4 sans-serif; color: #111; margin: 0; }}
.title {{ height: 240mm; display: flex; flex-direction: column; justify-content: center; break-after: page; }}
.title h1 {{ font-size: 30pt; line-height: 1.2; margin: 0 0 6mm; }}
.title p {{ font-size: 14pt; margin: 0 0 4mm; color: #444; }}
h2 {{ font-size: 20pt; }} h3 {{ font-size: 11pt; margin: 3.5mm 0 0.5mm; }}
ol {{ list-style: none; margin: 0; padding: 0; }} li {{ display: flex; gap: 2mm; }}
li a {{ color: inherit; text-decoration: none; }} li i {{ flex: 1; border-bottom: 1px dotted #999; margin-bottom: 1.5mm; }}
</style><section class="title"><h1>{title}</h1><p>{subtitle}</p><p>{authors}</p><p>Version {version}, {year}</p></section>
<h2>Contents</h2>{contents}"""


def listed(root: Path) -> list[tuple[str, str]]:
    """Pairs (part, docname) in the order of the table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    return [("", toc["root"]), *((part["caption"], entry["file"]) for part in toc["parts"] for entry in part["chapters"])]


def links_between(html: Path, docnames: list[str]) -> dict[str, list[str]]:
    """For each page the places on it that other pages link to."""
    wanted = {name: set() for name in docnames}
    for name in docnames:
        for link in re.findall(r'href="([^"#:]+#[^"]+)"', (html / f"{name}.html").read_text(encoding="utf-8")):
            page, place = urldefrag(urljoin(f"{name}.html", markup.unescape(link)))
            if page.removesuffix(".html") in wanted:
                wanted[page.removesuffix(".html")].add(unquote(place))
    return {name: sorted(places) for name, places in wanted.items()}


class Printer:
    """Prints pages of the book, one after the other, with numbers that run on."""

    def __init__(self, browser, html: Path):
        self.page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        self.page.emulate_media(media="print")
        self.html, self.pages = html, 0

    def pdf(self) -> PdfReader:
        return PdfReader(io.BytesIO(self.page.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)))

    def print(self, docname: str, targets: list[str]) -> tuple[str, PdfReader]:
        self.page.goto((self.html / f"{docname}.html").as_uri(), wait_until="load")
        title = " ".join(self.page.inner_text("article h1").rstrip("#").split())
        head = '"' + title.replace("\\", "").replace('"', "'") + '"'
        self.page.add_style_tag(content=NUMBERED.format(before=self.pages, head=head))
        self.page.evaluate(PREPARE, targets)
        printed = self.pdf()
        self.pages += len(printed.pages)
        return title, printed

    def front(self, chapters: list[tuple[str, str, int]], root: Path) -> PdfReader:
        """Title page and contents; ``chapters`` are (part, title, first page)."""
        cited = yaml.safe_load((root / "CITATION.cff").read_text())
        book = cited["preferred-citation"]
        title, _, subtitle = book["title"].partition(": ")
        parts = dict.fromkeys(part for part, _, _ in chapters)
        contents = "".join(
            f"<h3>{markup.escape(part)}</h3><ol>" + "".join(
                f'<li><a href="file:///contents/{number}">{markup.escape(name)}</a><i></i>{number}</li>'
                for of, name, number in chapters if of == part) + "</ol>" for part in parts)
        self.page.set_content(FRONT.format(
            title=title, subtitle=subtitle[:1].upper() + subtitle[1:], version=cited["version"], year=book["year"],
            authors=", ".join(person["name"] for person in book["authors"]), contents=contents))
        return self.pdf()


def places(printed: PdfReader, first: int) -> dict:
    """Named places of one printed page of the book: (page in the whole, height on it)."""
    return {name.lstrip("/"): (first + printed.get_destination_page_number(place), place.get("/Top"))
            for name, place in printed.named_destinations.items()}


def relink(writer: PdfWriter, owner: list[str], first: dict[str, int], where: dict[str, dict], html: Path, body: int) -> int:
    """Point every link into the book at a page of the PDF; the number of links mended. Those to the outside stay."""
    mended = 0
    for number, page in enumerate(writer.pages):
        for note in page.get("/Annots") or []:
            note = note.get_object()
            address = note.get("/A", {}).get("/URI", "") if "/A" in note else ""
            if "/Dest" in note and isinstance(note["/Dest"], str):
                target = where[owner[number]].get(str(note["/Dest"]).lstrip("/"))
            elif address.startswith("file:///contents/"):
                target = body + int(address.rsplit("/", 1)[1]) - 1, None
            elif address.startswith(html.as_uri()):
                file, place = urldefrag(address.removeprefix(html.as_uri() + "/"))
                name = unquote(file).removesuffix(".html")
                if name not in first:  # an index or a source that is not printed: no link at all
                    note.pop("/A")
                    continue
                target = where[name].get(unquote(place), (first[name], None))
            else:
                continue
            if target:
                top = FloatObject(target[1]) if target[1] is not None else NullObject()
                note.pop("/A", None)
                note[NameObject("/Dest")] = ArrayObject(
                    [writer.pages[target[0]].indirect_reference, NameObject("/XYZ"), NullObject(), top, NullObject()])
                mended += 1
    return mended


def bookmarks(writer: PdfWriter, printed: PdfReader, items: list, first: int, parent, depth: int = 2) -> None:
    """Copy the headings of one printed page of the book below ``parent``."""
    last = parent
    for item in items:
        if isinstance(item, list):
            if depth > 1:
                bookmarks(writer, printed, item, first, last, depth - 1)
        else:
            last = writer.add_outline_item(title=item.title, page_number=first + printed.get_destination_page_number(item), parent=parent)


def make(root: Path, browser, only: list[str] = ()) -> PdfWriter:
    html = root / "_build" / "html"
    order = [(part, name) for part, name in listed(root) if not only or name in only]
    targets = links_between(html, [name for _, name in order])
    printer, printed, starts = Printer(browser, html), [], []
    for part, name in order:
        starts.append(printer.pages + 1)
        printed.append((part, name, *printer.print(name, targets[name])))
        print(f"  {name}: {len(printed[-1][-1].pages)} pages", flush=True)
    front = printer.front([(part, title, start) for (part, _, title, _), start in zip(printed, starts, strict=True)], root)

    writer = PdfWriter()
    for page in front.pages:
        writer.add_page(page)
    body, owner, first, where, above = len(front.pages), ["front"] * len(front.pages), {}, {"front": {}}, {}
    for part, name, title, reader in printed:
        first[name] = len(writer.pages)
        where[name] = places(reader, first[name])
        for page in reader.pages:
            writer.add_page(page)
            owner.append(name)
        if part and part not in above:
            above[part] = writer.add_outline_item(title=part, page_number=first[name])
        entry = writer.add_outline_item(title=title, page_number=first[name], parent=above.get(part))
        inner = [items for items in reader.outline if isinstance(items, list)]
        bookmarks(writer, reader, inner[0] if inner else [], first[name], entry, depth=1)
    relink(writer, owner, first, where, html, body)
    writer.set_page_label(0, body - 1, style="/r")
    writer.set_page_label(body, len(writer.pages) - 1, style="/D", start=1)
    cited = yaml.safe_load((root / "CITATION.cff").read_text())["preferred-citation"]
    writer.add_metadata({"/Title": cited["title"], "/Author": ", ".join(person["name"] for person in cited["authors"])})
    writer.compress_identical_objects()
    return writer


def main() -> int:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        print("Printing the book needs Chromium on the path (Debian: apt install chromium).", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        writer = make(ROOT, browser, sys.argv[1:])
        browser.close()
    target = ROOT / "_build" / "zolib.pdf"
    writer.write(target)
    print(f"\n{len(writer.pages)} pages: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
