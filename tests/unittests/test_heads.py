"""Sizes of the heads.

Authors
 * The esr_lobes contributors
"""

import torch

from esr_lobes.heads import (
    ModalityDiscriminator,
    Projection,
    StyleClassifier,
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_sizes_of_the_paper():
    assert count(Projection(768, 512)) == 768 * 512 + 512
    assert count(StyleClassifier(512, 22)) == 512 * 128 + 128 + 128 * 22 + 22
    assert count(ModalityDiscriminator(512)) == 512 * 128 + 128 + 128 + 1


def test_discriminator_gives_one_logit_a_row():
    assert ModalityDiscriminator(4)(torch.zeros(1, 4)).shape == (1,)
