"""The directive ``public-names``: documentation of what ``zolib.__all__`` holds, one kind at a time.

    .. public-names:: functions

Kinds are in `KINDS`; every public name but a module belongs to exactly one.
"""

import inspect

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import zolib

KINDS = ("functions", "probes", "feedbacks", "errors", "other")


def kind(thing) -> str | None:
    """The kind of a public object; None for a module, which has its own place."""
    if inspect.ismodule(thing):
        return None
    if inspect.isroutine(thing):
        return "functions"
    if inspect.isclass(thing):
        for name, base in (("probes", zolib.Probe), ("feedbacks", zolib.Feedback), ("errors", Exception)):
            if issubclass(thing, base):
                return name
    return "other"


def public(wanted: str) -> list[str]:
    """Public names of one kind; of classes, the general one first."""
    names = [name for name in zolib.__all__ if kind(getattr(zolib, name)) == wanted]
    return sorted(names, key=lambda name: len(getattr(getattr(zolib, name), "__mro__", ())))


class PublicNames(SphinxDirective):
    required_arguments = 1

    def run(self):
        wanted = self.arguments[0]
        if wanted not in KINDS:
            raise self.error(f"{wanted!r} is none of {', '.join(KINDS)}")
        lines = []
        for name in public(wanted):
            thing = getattr(zolib, name)
            role = "function" if wanted == "functions" else "exception" if wanted == "errors" else "class"
            if not inspect.isclass(thing) and not inspect.isroutine(thing):
                role = "data"
            lines += [f".. auto{role}:: zolib.{name}", *(["   :members:"] if role == "class" else []), ""]
        box = nodes.Element()
        self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, box)
        return box.children


def _home(app, module, name):
    """Where `viewcode` looks for the source of `zolib.catalogue`: an object, whose class is documented elsewhere."""
    return "zolib.methods" if (module, name) == ("zolib", "catalogue") else None


def setup(app):
    app.setup_extension("sphinx.ext.viewcode")
    app.add_directive("public-names", PublicNames)
    app.connect("viewcode-follow-imported", _home)
