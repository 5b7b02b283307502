"""What the exercises of a chapter must satisfy: four to six, each with one solution, and those in code check themselves.

A solution follows its exercise and stands in the page itself, folded away (``:class: dropdown``), so that a reader
needs nothing but the page. One with code is gated: ``solution-start``, the cells, ``solution-end``; an ``assert``
among its cells says whether the code is right. Only where the exercise is marked ``(research)`` may it be missing.
"""

import re

FEWEST, MOST = 4, 6
OPENING = re.compile(r"^(:{3,}|`{3,})\{(exercise|exercise-start|solution|solution-start|solution-end)\} ?(.*)$")


def directives(notebook):
    """(kind, argument, options, text) of each directive on exercises, in order; cells of code as ("code", "", {}, source)."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield "code", "", {}, cell["source"]
            continue
        lines = cell["source"].splitlines()
        for number, line in enumerate(lines):
            if not (opened := OPENING.match(line)):
                continue
            body = lines[number + 1:]
            ends = (n for n, text in enumerate(body) if text.strip() == opened[1])
            body = body[:next(ends, len(body))]
            options = dict(re.match(r":([\w-]+): ?(.*)", text).groups() for text in body if re.match(r":[\w-]+:", text))
            yield opened[2], opened[3].strip(), options, "\n".join(body)


def problems(notebook) -> list[str]:
    found, solved = [], []
    exercises = {}  # label: title
    inside, code = None, []
    for kind, argument, options, text in directives(notebook):
        if kind == "code":
            code.append(text)
        elif kind.startswith("exercise"):
            label = options.get("label", f"({argument}, without a label)")
            exercises[label] = argument
        elif kind == "solution-end":
            checked = any(re.search(r"^\s*assert\b", cell, re.MULTILINE) for cell in code)
            if not checked and "(research)" not in exercises.get(inside, ""):
                found.append(f"no cell of the solution of {inside} asserts anything")
            inside = None
        else:
            solved.append(argument)
            if argument not in exercises:
                found.append(f"the solution of {argument} does not follow an exercise of that label")
            if "dropdown" not in options.get("class", "").split():
                found.append(f"the solution of {argument} is not folded away (:class: dropdown)")
            if kind == "solution-start":
                inside, code = argument, []
    if inside:
        found.append(f"the solution of {inside} does not end")
    found += [f"the exercise {label} has {solved.count(label)} solutions" for label in exercises
              if solved.count(label) != 1]
    if not FEWEST <= len(exercises) <= MOST:
        found.append(f"has {len(exercises)} exercises, not {FEWEST} to {MOST}")
    return found
