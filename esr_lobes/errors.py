"""Errors that a user can mend, and how a command ends on them.

Authors
 * The esr_lobes contributors
"""

import logging
import os
import sys
from functools import wraps

logger = logging.getLogger(__name__)


class MendableError(ValueError):
    """What the user can put right; says what is wrong, where, what to do."""


MENDABLE = (
    MendableError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ImportError,
)
"""What ends a command with one line instead of a trace."""


def one_line_errors(function):
    """Returns the main function of a command with errors of one line.

    What a user can mend ends the command with one line on standard error
    and status 2; anything else is a fault of ours and keeps its trace. Who
    reads the output may stop early (``| head``); that is no mistake at all.

    Arguments
    ---------
    function : callable
        The main function.

    Returns
    -------
    callable
        The same, more polite.
    """

    @wraps(function)
    def wrapped(*args, **kwargs):
        try:
            result = function(*args, **kwargs)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # Python flushes once more at its end, which must not fail again.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            sys.exit(1)
        except MENDABLE as error:
            logger.debug("The whole story:", exc_info=True)
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped
