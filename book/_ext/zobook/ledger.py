"""Collects what the executed chapters measured, and compares it with what is claimed.

Only executed outputs count, never the stored ones: a number that no longer comes out must not reach the page.
They are taken from the cache of executed notebooks. The copy that MyST-NB leaves in ``_build/jupyter_execute``
will not do: when a notebook comes from the cache, that copy holds the stored outputs.
"""

from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_cache import get_cache
from sphinx.util import logging

from zolib import claims

from .alt_text import cells

logger = logging.getLogger(__name__)

SHOWABLE = ("text/", "image/", "application/javascript")  # beginnings of the kinds of output a page can show


def claims_file(app) -> Path:
    return Path(app.srcdir) / "book" / "claims.toml"


def measured(env) -> dict[str, list[dict] | None]:
    """The records of every chapter, by the chapter's document name; None where its run did not finish."""
    if not hasattr(env, "zobook_measured"):
        env.zobook_measured = {}
    return env.zobook_measured


def executed(source: Path, cache_path: str):
    """The notebook with the outputs of its last successful run, or None: the failure is reported elsewhere."""
    try:
        return get_cache(cache_path).merge_match_into_notebook(nbformat.read(source, as_version=4))[1]
    except KeyError:
        return None


def anchor(claim_id: str) -> str:
    return f"claim-{claim_id}"


def _read(app, doctree):
    env = app.env
    source = Path(env.doc2path(env.docname))
    if source.suffix != ".ipynb":
        return
    notebook = executed(source, app.config.nb_execution_cache_path)
    if notebook is None:
        measured(env)[env.docname] = None
        logger.warning("ledger of claims: no finished run of this chapter (it failed, or was changed meanwhile)",
                       location=env.docname)
        return
    for position, cell in enumerate(notebook["cells"], start=1):
        for output in cell.get("outputs", []):
            if "data" in output and not any(kind.startswith(SHOWABLE) for kind in output["data"]):
                logger.warning("cell %d: an output has no form that a page can show", position,
                               location=env.docname)
    found = claims.records(notebook)
    nodes_of = dict(cells(doctree))
    for record in found:
        cell = nodes_of.get(record["cell"])
        if cell is None:
            continue
        if anchor(record["id"]) not in cell["ids"]:
            cell["ids"].append(anchor(record["id"]))
        for text in cell.findall(nodes.literal_block):
            if text.astext().startswith(f"{record['verdict']}: {record['id']}\n"):
                text["classes"] += ["claim-output", f"claim-{record['verdict']}"]
    measured(env)[env.docname] = found


def _forget(app, env, docname):
    measured(env).pop(docname, None)


def _compare(app, env):
    if not claims_file(app).exists():
        return
    found = {name.rsplit("/", 1)[-1]: records for name, records in measured(env).items()}
    unfinished = tuple(name for name, records in found.items() if records is None)
    try:
        declared = {name: claim for name, claim in claims.load(claims_file(app)).items()
                    if not any(file.startswith(claim.chapter) for file in unfinished)}  # their failure says enough
        finished = {name: records for name, records in found.items() if records is not None}
        for problem in claims.disagreements(declared, finished):
            logger.warning("ledger of claims: %s", problem)
    except claims.ClaimError as error:
        logger.warning("ledger of claims: %s", error)


def setup(app):
    app.connect("doctree-read", _read)
    app.connect("env-purge-doc", _forget)
    app.connect("env-updated", _compare)
