"""Which clips make a batch: all once an epoch, those of like length together.

Authors
 * The esr_lobes contributors
"""

import math

import torch
from torch.utils.data import Sampler


class ClipBatches(Sampler):
    """Gives batches of clips, every clip once an epoch.

    In bucketed batches lengths are alike, so that little is padded, and yet
    other clips meet in each epoch: clips are sorted by a length that is
    moved at random by up to a share of itself, cut into batches, and the
    batches are shuffled. All batches but one are full, unlike those of
    ``speechbrain.dataio.sampler.DynamicBatchSampler``, which has a rest in
    each bucket, and whose batches of several processes at one step are of
    unlike lengths, so that all wait for the longest.

    An epoch depends on seed and number of the epoch only. Of several
    processes each gets every n-th clip of a common batch: together they see
    what a single process with the whole batch would. Where the last clips
    are fewer than the processes, some are heard twice.

    Arguments
    ---------
    seconds : list of float
        Length of each clip as it is trained on.
    batch_size : int
        Most clips in a batch of one process.
    seed : int
        Start of the draws.
    is_bucketed : bool
        Whether lengths in a batch are alike; else any clips meet.
    spread : float
        How far a length may be moved, as a share of it: more lets more
        clips meet, less pads less.
    rank : int
        Number of this process.
    n_ranks : int
        Number of processes.

    Example
    -------
    >>> batches = ClipBatches([2.0, 8.0, 2.1, 7.9], batch_size=2)
    >>> sorted(sorted(batch) for batch in batches)
    [[0, 2], [1, 3]]
    """

    def __init__(
        self,
        seconds,
        batch_size,
        seed=0,
        is_bucketed=True,
        spread=0.1,
        rank=0,
        n_ranks=1,
    ):
        if not len(seconds) or batch_size < 1:
            raise ValueError("there must be clips, and batch_size at least 1")
        self.seconds = torch.as_tensor(seconds, dtype=torch.float64)
        self.common_size = batch_size * n_ranks
        self.seed = seed
        self.is_bucketed = is_bucketed
        self.spread = spread
        self.rank, self.n_ranks = rank, n_ranks
        self.epoch = 0

    def set_epoch(self, epoch):
        """Sets which epoch comes next.

        Arguments
        ---------
        epoch : int
            Its number.
        """
        self.epoch = epoch

    def __len__(self):
        """Number of batches of an epoch, the same for all processes."""
        return math.ceil(len(self.seconds) / self.common_size)

    def __iter__(self):
        """Yields the indices of the clips of each batch of this process."""
        for batch in self._common_batches():
            missing = self.n_ranks - len(batch)
            if missing > 0:
                batch = batch + [batch[i % len(batch)] for i in range(missing)]
            yield batch[self.rank :: self.n_ranks]

    def _common_batches(self):
        """Returns the batches of all processes together."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        n_clips, size = len(self.seconds), self.common_size
        order = torch.randperm(n_clips, generator=generator)
        if not self.is_bucketed:
            return [batch.tolist() for batch in order.split(size)]
        draws = torch.rand(n_clips, generator=generator, dtype=torch.float64)
        moved = self.seconds[order] * (1 + self.spread * (2 * draws - 1))
        order = order[moved.argsort(stable=True)]
        sizes = torch.full((len(self),), size)
        # The batch that is not full is of any length, not always the longest.
        rest = torch.randint(len(self), (), generator=generator)
        sizes[rest] -= int(sizes.sum()) - n_clips
        batches = order.split(sizes.tolist())
        places = torch.randperm(len(self), generator=generator)
        return [batches[place].tolist() for place in places.tolist()]
