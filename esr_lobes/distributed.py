"""One training on several processes, as ``torchrun`` starts them.

What a batch teaches depends on all of its clips, since each is compared with
the prompts of the others. So every process gathers the embeddings of all,
computes the loss of the whole batch, and has its share of the gradient.

Authors
 * The esr_lobes contributors
"""

import atexit
import os
from dataclasses import replace

import torch
from speechbrain.utils.distributed import (
    ddp_init_group,
    infer_device,
    is_distributed_initialized,
)
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from esr_lobes.errors import MendableError


def join_processes(run_opts):
    """Makes this process one of those that ``torchrun`` has started.

    Each takes a GPU of its own, or all of them the CPU; they talk by nccl
    between GPUs and by gloo otherwise, unless the command line says how.
    Without ``torchrun`` nothing is joined.

    Arguments
    ---------
    run_opts : RunOptions
        From ``speechbrain.parse_arguments``.

    Returns
    -------
    RunOptions
        The same, with the device and the backend of this process.

    Raises
    ------
    MendableError
        If there are fewer GPUs here than processes.

    Example
    -------
    >>> from speechbrain.utils.run_opts import RunOptions
    >>> join_processes(RunOptions(device="cpu")).device
    'cpu'
    """
    device = run_opts.device or infer_device()
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is None:
        return replace(run_opts, device=device)
    if device == "cuda":
        device = f"cuda:{local_rank}"  # else all would take the first
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and int(local_rank) >= torch.cuda.device_count():
        raise MendableError(
            f"There are {torch.cuda.device_count()} GPUs for "
            f"{os.environ['LOCAL_WORLD_SIZE']} processes: start fewer "
            "(torchrun --nproc_per_node), or add --device=cpu"
        )
    given = run_opts.overridden_args
    backend = run_opts.distributed_backend
    if "distributed_backend" not in given:
        backend = "nccl" if on_gpu else "gloo"
    run_opts = replace(
        run_opts,
        device=device,
        distributed_backend=backend,
        # Only what counts as given is handed to the Brain.
        overridden_args=given | {"device", "distributed_backend"},
    )
    if not is_distributed_initialized():
        ddp_init_group(run_opts)
        # Else nccl complains at the end of each process.
        atexit.register(distributed.destroy_process_group)
    return run_opts


def rank():
    """Returns the number of this process, from 0; 0 is the main one.

    Example
    -------
    >>> rank(), n_ranks()
    (0, 1)
    """
    return distributed.get_rank() if is_distributed_initialized() else 0


def n_ranks():
    """Returns how many processes train together."""
    return distributed.get_world_size() if is_distributed_initialized() else 1


class _GatherRows(torch.autograd.Function):
    """Rows of all processes; each gets the gradient of its own rows back."""

    @staticmethod
    def forward(ctx, rows, counts):
        """Returns the rows of all, those of the first process first."""
        ctx.begin, ctx.counts = sum(counts[: rank()]), counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        parts = zip(parts, counts, strict=True)
        return torch.cat([part[:count] for part, count in parts])

    @staticmethod
    def backward(ctx, gradient):
        """Returns the gradient of one's own rows, and none for the counts.

        All processes compute the same loss of the same rows, so nothing
        needs to be sent. DDP takes the mean over processes, of which only
        this one passes through these rows: hence the factor.
        """
        end = ctx.begin + ctx.counts[rank()]
        return len(ctx.counts) * gradient[ctx.begin : end], None


def gather_rows(*tensors):
    """Returns the rows of all processes, so that the loss is of all of them.

    With DDP around the modules, and as long as every process computes the
    same loss of what is returned, loss and gradients are those of a single
    process with the whole batch. Processes may have unequal numbers of rows.

    Arguments
    ---------
    *tensors : torch.Tensor or None
        All with as many rows; None stays None.

    Returns
    -------
    list of torch.Tensor or None
        The same with the rows of all, those of process 0 first. With a
        single process, what was given.

    Example
    -------
    >>> gather_rows(torch.tensor([1, 2]), None)
    [tensor([1, 2]), None]
    """
    if not is_distributed_initialized():
        return list(tensors)
    first = next(t for t in tensors if t is not None)
    count = torch.tensor([len(first)], device=first.device)
    counts = [torch.empty_like(count) for _ in range(n_ranks())]
    distributed.all_gather(counts, count)
    counts = torch.cat(counts).tolist()
    return [t if t is None else _GatherRows.apply(t, counts) for t in tensors]


def parallel(module, device, may_skip=False):
    """Returns a module whose gradients are the mean over processes.

    Batch norms take their statistics over all processes on GPUs; PyTorch
    cannot do so on the CPU, where each process has those of its own clips
    and the running ones are those of process 0.

    Arguments
    ---------
    module : torch.nn.Module
        With at least one parameter that learns.
    device : str
        Where it lies.
    may_skip : bool
        Whether a step may leave parameters out, such as dropped layers;
        finding them takes a little time.

    Returns
    -------
    DistributedDataParallel
        Around the same module.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return DistributedDataParallel(
        module,
        device_ids=[device] if on_gpu else None,
        find_unused_parameters=may_skip,
        gradient_as_bucket_view=True,  # else all gradients lie there twice
    )


def bare(module):
    """Returns a module without what DDP or the compiler put around it.

    Arguments
    ---------
    module : torch.nn.Module
        Any.

    Returns
    -------
    torch.nn.Module
        The one that was made from the page, with its own attributes.

    Example
    -------
    >>> linear = torch.nn.Linear(1, 1)
    >>> bare(torch.compile(linear)) is linear and bare(linear) is linear
    True
    """
    while True:
        if isinstance(module, DistributedDataParallel):
            module = module.module
        elif hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module
