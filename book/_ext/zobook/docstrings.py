"""Docstrings as the library's pages show them.

They may write |g| for a norm: outside code and formulas a bar is a bar, not the mark-up of a substitution. What Python
writes itself, for the fields of a named tuple and the arguments of an enumeration, says nothing and is left out.
"""

import enum
import re

CODE = re.compile(r"(``.*?``|`[^`]*`)")
BLOCK = re.compile(r"^\s*(\.\. [\w:-]+::.*|.*::)\s*$")


def escape_bars(lines: list[str]) -> None:
    """Escape the bars of running text, in place; code, literal blocks and directives stay as they are."""
    block = None  # the indentation of the line that opened a block
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indent <= block:
            block = None
        if block is None and not line.lstrip().startswith(">>>") and not BLOCK.match(line):
            parts = CODE.split(line)
            parts[::2] = [re.sub(r"(?<!\\)\|", r"\|", part) for part in parts[::2]]
            lines[i] = "".join(parts)
        if block is None and BLOCK.match(line):
            block = indent


def _process(app, what, name, obj, options, lines):
    lines[:] = [line for line in lines if not re.fullmatch(r"Alias for field number \d+", line)]
    escape_bars(lines)


def _sign(app, what, name, obj, options, arguments, returned):
    return ("", None) if isinstance(obj, enum.EnumMeta) else None


def setup(app):
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-signature", _sign)
