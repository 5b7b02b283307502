"""The pages that show the library's source are written anew in each build.

Sphinx writes them only when a source file changes, so their links back to the documentation would outlive what
they point to.
"""

import shutil
from pathlib import Path


def _remove(app):
    shutil.rmtree(Path(app.outdir) / "_modules", ignore_errors=True)


def setup(app):
    app.connect("builder-inited", _remove)
