"""Pictures state their width and height, so that the text below does not jump when they arrive.

One of several panels is too small to read on a phone. It gets a box in which it scrolls; its link, to the picture
alone, makes the box one that the keyboard reaches.
"""

import re
import struct
from pathlib import Path

IMAGE = re.compile(r'(<img(?![^>]*\bwidth=)[^>]*\bsrc="([^"]*_images/([^"/]+\.png))")([^>]*>)')
WIDE = 800  # pixels; one panel is 782 wide


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    return struct.unpack(">II", png[16:24])


def sized(body: str, sources: dict[str, Path]) -> str:
    """``body`` with a width and a height in each image tag; ``sources`` gives each image's file by its name on the page."""
    def state(found):
        with open(sources[found[3]], "rb") as file:
            width, height = size(file.read(24))
        image = f'{found[1]} width="{width}" height="{height}"{found[4]}'
        return image if width < WIDE else f'<a class="wide-picture" href="{found[2]}">{image}</a>'

    return IMAGE.sub(state, body)


def _size(app, pagename, templatename, context, doctree):
    if "body" in context:
        sources = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}
        context["body"] = sized(context["body"], sources)


def setup(app):
    app.connect("html-page-context", _size)
