"""Roles and elements that Sphinx writes and screen readers stumble over are set right in each page.

Exercises, solutions and proofs share an id with all others of their page: it becomes a class. Entries of the
bibliography are items of their list; the lines of a long signature are not definitions without terms. A long name of
code may be broken where its words end.
"""

import re

SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)
LONG_NAME = re.compile(r'(?<=<span class="pre">)[\w./]{25,}(?=</span>)')
SHARED = re.compile(r'<(section|div)((?: class="[^"]*")?) id="(\w+-content|proof)"')


def own_class(found) -> str:
    """The opening of an element whose id is made a class."""
    classes = found[2].removeprefix(' class="').removesuffix('"')
    return f'<{found[1]} class="{" ".join([*classes.split(), found[3]])}"'


def mended(body: str) -> str:
    body = SHARED.sub(own_class, body)
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    body = LONG_NAME.sub(lambda found: re.sub(r"(?<=[_/])(?=\w)", "<wbr>", found[0]), body)
    return SIGNATURE.sub(lambda found: re.sub(r"<(/?)d[ld]>", r"<\1span>", found[0])
                         .replace("<span>\n<span>", '<span class="sig-lines">\n<span>'), body)


def _mend(app, pagename, templatename, context, doctree):
    if "body" in context:
        context["body"] = mended(context["body"])


def setup(app):
    app.connect("html-page-context", _mend)
