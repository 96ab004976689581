"""Batches of clips: nothing is lost, little is padded, seeds decide.

Authors
 * The esr_lobes contributors
"""

import itertools

import pytest
import torch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.sampler import ReproducibleRandomSampler
from speechbrain.utils.checkpoints import Checkpointer

from esr_lobes.batching import ClipBatches


def lengths(n_clips, shortest=2.0, longest=8.0):
    draws = torch.rand(n_clips, generator=torch.Generator().manual_seed(0))
    return (shortest + (longest - shortest) * draws).tolist()


def padding(seconds, batches):
    """Returns which share of all samples of an epoch is padding."""
    padded = sum(len(b) * max(seconds[i] for i in b) for b in batches)
    return 1 - sum(seconds) / padded


@pytest.mark.parametrize("is_bucketed", [True, False])
@pytest.mark.parametrize("n_clips", [1, 7, 8, 65])
def test_each_clip_comes_once_in_batches_that_are_full(n_clips, is_bucketed):
    batches = ClipBatches(lengths(n_clips), 8, is_bucketed=is_bucketed)
    for epoch in range(3):
        batches.set_epoch(epoch)
        epoch_batches = list(batches)
        assert len(epoch_batches) == len(batches)
        assert sorted(sum(epoch_batches, [])) == list(range(n_clips))
        sizes = sorted(map(len, epoch_batches))
        assert sizes[1:] == [8] * (len(batches) - 1)


def test_buckets_save_most_of_the_padding():
    """Clips of 2 to 8 s, 32 a batch: 36 % of it is padding, or 8 %."""
    seconds = lengths(3000)
    loose = padding(seconds, list(ClipBatches(seconds, 32, is_bucketed=False)))
    tight = padding(seconds, list(ClipBatches(seconds, 32)))
    assert 0.34 < loose < 0.38
    assert tight < 0.09


def test_an_epoch_depends_on_seed_and_number_only():
    seconds = lengths(50)
    batches, again = ClipBatches(seconds, 4, 7), ClipBatches(seconds, 4, 7)
    batches.set_epoch(3)
    third = list(batches)
    batches.set_epoch(4)
    assert list(batches) != third
    again.set_epoch(3)
    assert list(again) == third == list(again)
    other = ClipBatches(seconds, 4, 8)
    other.set_epoch(3)
    assert list(other) != third


def test_other_clips_meet_in_each_epoch():
    batches = ClipBatches(lengths(1000), 8)
    meetings = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        meetings.append(
            {
                frozenset(pair)
                for batch in batches
                for pair in itertools.combinations(batch, 2)
            }
        )
    both = meetings[0] & meetings[1]
    assert len(both) < 0.2 * len(meetings[0])


def test_without_buckets_the_order_is_that_of_the_toolkit():
    sampler = ReproducibleRandomSampler(range(10), seed=5)
    batches = ClipBatches(lengths(10), 4, seed=5, is_bucketed=False)
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches.set_epoch(epoch)
        assert sum(batches, []) == list(sampler)


@pytest.mark.parametrize("is_bucketed", [True, False])
@pytest.mark.parametrize("n_clips", [1, 10, 25, 48])
def test_processes_share_the_batches_of_one(n_clips, is_bucketed):
    seconds = lengths(n_clips)
    whole = list(ClipBatches(seconds, 12, is_bucketed=is_bucketed))
    parts = [
        list(
            ClipBatches(
                seconds, 4, is_bucketed=is_bucketed, rank=rank, n_ranks=3
            )
        )
        for rank in range(3)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert all(shares)  # nobody waits for the others with nothing to do
        assert set(sum(shares, [])) == set(batch)
        if len(batch) >= 3:
            assert len(sum(shares, [])) == len(batch)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_toolkits_loader_goes_on_where_it_stopped(tmp_path):
    def make():
        batches = ClipBatches(lengths(20), 3)
        batches.set_epoch(2)
        return SaveableDataLoader(range(20), batch_sampler=batches)

    loader = make()
    checkpointer = Checkpointer(tmp_path, {"loader": loader})
    seen = []
    for i, batch in enumerate(loader):
        seen.append(batch.tolist())
        if i == 2:
            checkpointer.save_checkpoint(end_of_epoch=False)
    again = make()
    Checkpointer(tmp_path, {"loader": again}).recover_if_possible()
    assert [batch.tolist() for batch in again] == seen[3:]


@pytest.mark.parametrize("seconds, batch_size", [([], 4), ([1.0], 0)])
def test_nothing_to_share_out(seconds, batch_size):
    with pytest.raises(ValueError, match="there must be clips"):
        ClipBatches(seconds, batch_size)
