"""Whether a device that was asked for is really there.

Authors
 * The esr_lobes contributors
"""

import textwrap

import torch

from esr_lobes.errors import MendableError


def check_device(name, precision="fp32"):
    """Returns the name of a device that can compute what is asked of it.

    Arguments
    ---------
    name : str
        Such as cpu, cuda or cuda:1.
    precision : str
        fp32, bf16 or fp16.

    Returns
    -------
    str
        The same name.

    Raises
    ------
    MendableError
        If there is no such device here, or it lacks that precision.

    Example
    -------
    >>> check_device("cpu", "bf16")
    'cpu'
    >>> check_device("cpu", "fp16")
    Traceback (most recent call last):
    esr_lobes.errors.MendableError: fp16 needs a GPU: take --precision=bf16
    """
    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = textwrap.shorten(str(error), 160)
        raise MendableError(
            f"--device {name} cannot be used here: give cpu, or cuda where "
            f"there is a GPU ({reason})"
        ) from error
    if precision == "fp16" and torch.device(name).type == "cpu":
        raise MendableError("fp16 needs a GPU: take --precision=bf16")
    return name
