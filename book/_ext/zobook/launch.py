"""Links that run a chapter elsewhere, all from one setting: ``zobook_repository``, written owner/name.

With it each chapter has buttons for Colab, for Binder and for its source, and a line that says how to install the
library there. Without it there are none, and nothing else depends on it.
"""

import re

from docutils import nodes
from sphinx.errors import ExtensionError

BINDER, COLAB = "https://mybinder.org", "https://colab.research.google.com"


def address(config) -> str:
    """The address of the repository; empty if none is set."""
    name = config.zobook_repository
    if name and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ExtensionError(f"zobook_repository is {name!r}: write it as owner/name, or leave it empty")
    return f"https://github.com/{name}" if name else ""


def _give_buttons(app, config):
    if url := address(config):
        config.html_theme_options |= {
            "repository_url": url,
            "repository_branch": "main",
            "use_repository_button": True,
            "use_source_button": True,
            "use_issues_button": True,
            "launch_buttons": {"binderhub_url": BINDER, "colab_url": COLAB, "notebook_interface": "jupyterlab"},
        }


def is_chapter(app, docname: str) -> bool:
    return app.env.doc2path(docname).endswith(".ipynb")


def _say_how(app, doctree, docname):
    url = address(app.config)
    if not url or not is_chapter(app, docname):
        return
    file = app.env.doc2path(docname, base=False)
    line = nodes.paragraph("", "Run this chapter in ", classes=["run-elsewhere"])
    branch = f"{app.config.zobook_repository}/blob/main/{file}"
    links = (("Colab", f"{COLAB}/github/{branch}"),
             ("Binder", f"{BINDER}/v2/gh/{app.config.zobook_repository}/main?urlpath=lab/tree/{file}"),
             ("its source", f"{url}/blob/main/{file}"))
    for between, (name, target) in zip(("", " or ", ", or read "), links, strict=True):
        line += [nodes.Text(between), nodes.reference("", name, refuri=target)]
    line += [nodes.Text(". On Colab, this comes first: "), nodes.literal("", f"%pip install git+{url}"), nodes.Text(".")]
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app):
    app.add_config_value("zobook_repository", "", "env")
    app.connect("config-inited", _give_buttons)
    app.connect("doctree-resolved", _say_how)
