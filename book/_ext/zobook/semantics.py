"""Roles and elements that Sphinx writes and screen readers stumble over are set right in each page.

Entries of the bibliography are items of their list; the lines of a long signature are not a list of definitions
without terms.
"""

import re

SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.DOTALL)


def mended(body: str) -> str:
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    return SIGNATURE.sub(lambda found: re.sub(r"<(/?)d[ld]>", r"<\1span>", found[0])
                         .replace("<span>\n<span>", '<span class="sig-lines">\n<span>'), body)


def _mend(app, pagename, templatename, context, doctree):
    if "body" in context:
        context["body"] = mended(context["body"])


def setup(app):
    app.connect("html-page-context", _mend)
