"""The subcommands of ``esr``, one a module.

Each has ``add``, which makes its parser, and ``run``. What is heavy to
import, a command imports when it runs.

Authors
 * The esr_lobes contributors
"""

from esr_lobes.commands import (
    app,
    ask,
    cascade,
    evaluate,
    figures,
    import_checkpoint,
    index,
    optimize,
    publish,
    search,
    tables,
)

ALL = (
    index,
    search,
    ask,
    app,
    optimize,
    publish,
    evaluate,
    tables,
    figures,
    import_checkpoint,
    cascade,
)
