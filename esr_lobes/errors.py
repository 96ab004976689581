"""How a command ends on what its user can mend.

Authors
 * The esr_lobes contributors
"""

import sys
from functools import wraps

from speechbrain.utils.logger import get_logger

from esr_lobes.audio import AudioError
from esr_lobes.brain import CheckpointError
from esr_lobes.manifests import ManifestError
from esr_lobes.pages import PageError
from esr_lobes.preparation import PreparationError
from esr_lobes.prompts import PromptBankError
from esr_lobes.safety import UnsafePageError, WeightsError
from esr_lobes.trials import TrialsError

MENDABLE = (
    AudioError,
    CheckpointError,
    FileNotFoundError,
    ImportError,
    ManifestError,
    PageError,
    PreparationError,
    PromptBankError,
    TrialsError,
    UnsafePageError,
    WeightsError,
)
logger = get_logger(__name__)


def one_line_errors(function):
    """Returns the main function of a command with errors of one line.

    What a user can mend ends the command with one line on standard error
    and status 2; anything else is a fault of ours and keeps its trace.

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
            return function(*args, **kwargs)
        except MENDABLE as error:
            logger.debug("The whole story:", exc_info=True)
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped
