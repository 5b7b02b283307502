"""Collects what the executed chapters measured, and compares it with what is claimed.

Only executed outputs count, never the stored ones: a number that no longer comes out must not reach the page.
MyST-NB leaves each executed notebook in its output folder while it reads the chapter; the records found there
are kept in Sphinx's environment.
"""

import json
from pathlib import Path

from sphinx.util import logging

from zolib import claims

from .alt_text import cells

logger = logging.getLogger(__name__)


def claims_file(app) -> Path:
    return Path(app.srcdir) / "book" / "claims.toml"


def measured(env) -> dict[str, list[dict]]:
    """The records of every chapter, by the chapter's document name."""
    if not hasattr(env, "zobook_measured"):
        env.zobook_measured = {}
    return env.zobook_measured


def anchor(claim_id: str) -> str:
    return f"claim-{claim_id}"


def _read(app, doctree):
    env = app.env
    if Path(env.doc2path(env.docname)).suffix != ".ipynb":
        return
    executed = Path(env.mystnb_config.output_folder) / f"{env.docname}.ipynb"
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    for position, cell in enumerate(notebook["cells"], start=1):
        for output in cell.get("outputs", []):
            if "data" in output and not set(output["data"]) - {claims.MIME}:
                logger.warning("cell %d: an output has no form that a page can show", position,
                               location=env.docname)
    found = claims.records(notebook)
    nodes_of = dict(cells(doctree))
    for record in found:
        cell = nodes_of.get(record["cell"])
        if cell is not None and anchor(record["id"]) not in cell["ids"]:
            cell["ids"].append(anchor(record["id"]))
    measured(env)[env.docname] = found


def _forget(app, env, docname):
    measured(env).pop(docname, None)


def _compare(app, env):
    if not claims_file(app).exists():
        return
    found = {name.rsplit("/", 1)[-1]: records for name, records in measured(env).items()}
    try:
        for problem in claims.disagreements(claims.load(claims_file(app)), found):
            logger.warning("ledger of claims: %s", problem)
    except claims.ClaimError as error:
        logger.warning("ledger of claims: %s", error)


def setup(app):
    app.connect("doctree-read", _read)
    app.connect("env-purge-doc", _forget)
    app.connect("env-updated", _compare)
