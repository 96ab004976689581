"""What is learnt about styles: two towers that meet, or a classifier.

Authors
 * The esr_lobes contributors
"""

import random
from numbers import Real
from typing import NamedTuple

import speechbrain as sb
import torch
import torch.nn.functional as F

from esr_lobes import distributed, losses
from esr_lobes.datasets import ClipReader, make_dataset
from esr_lobes.metrics import (
    mean_average_precision,
    mean_over_styles,
    rank_styles,
)
from esr_lobes.pages import PageError
from esr_lobes.style_brain import CheckpointError, StyleBrain

__all__ = ["CheckpointError", "StyleClassificationBrain", "StyleRetrievalBrain"]

POSITIVES = {
    "same_style": losses.same_style_positives,
    "pair": losses.pairwise_positives,
}


class Embedded(NamedTuple):
    """What a batch becomes; text is None while no term asks for it."""

    speech: torch.Tensor
    text: torch.Tensor | None


class StyleRetrievalBrain(StyleBrain):
    """Teaches a speech and a text tower to meet, in stages.

    The objective of "Expressive Speech Retrieval using Natural Language
    Descriptions of Speaking Style" (Kang and Roy, 2025,
    https://arxiv.org/abs/2508.11187): style classification from the
    beginning, contrastive and adversarial terms from later epochs on.
    Which terms a stage has is decided by :meth:`active_terms` alone.

    Validation embeds whole clips and ranks them for the averaged prompts of
    each style.

    Beside what :class:`StyleBrain` needs, the page gives: ``loss_weights``
    and ``start_epochs`` by term, ``positives`` ("same_style" or "pair"),
    ``valid_prompts`` (a bank), ``prompt_mix`` (or null),
    ``discriminator_lr``.
    """

    MODULES_NEEDED = (
        *StyleBrain.MODULES_NEEDED,
        "text_encoder",
        "text_projection",
        "discriminator",
        "logit_scale",
    )
    TERMS = ("classification", "contrastive", "adversarial")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        text_encoder = self.modules.text_encoder
        if text_encoder.is_frozen:
            text_encoder.warm(self.hparams.train_prompts.all_prompts())
            text_encoder.warm(self.hparams.valid_prompts.all_prompts())
        elif self.checkpointer is not None:
            self.checkpointer.add_recoverable("text_encoder", text_encoder)

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        super()._check_page()
        page = self.hparams
        if page.positives not in POSITIVES:
            raise PageError(
                f"positives is {' or '.join(POSITIVES)}, not {page.positives!r}"
            )
        for name in ("loss_weights", "start_epochs"):
            for term in self.TERMS:
                value = getattr(page, name).get(term)
                if not isinstance(value, Real) or value < 0:
                    raise PageError(f"{name}: {term} must be a number from 0")
        if page.discriminator_lr < 0:
            raise PageError("discriminator_lr is not below 0")

    def active_terms(self, epoch):
        """Returns the terms of this epoch's loss with their weights.

        Arguments
        ---------
        epoch : int
            Counted from 1.

        Returns
        -------
        dict
            Weights by name of the term.
        """
        weights = self.hparams.loss_weights
        starts = self.hparams.start_epochs
        return {
            term: weights[term]
            for term in self.TERMS
            if weights[term] > 0 and epoch >= starts[term]
        }

    def parameter_groups(self):
        """Returns two groups; the discriminator has a rate of its own."""
        return [
            {"params": self.learning("discriminator")},
            {
                "params": list(self.modules.discriminator.parameters()),
                "lr": self.hparams.discriminator_lr,
            },
        ]

    def on_stage_start(self, stage, epoch=None):
        """Makes an epoch's prompts depend on seed and number only."""
        super().on_stage_start(stage, epoch)
        if stage == sb.Stage.TRAIN:
            rank = distributed.rank()
            seed = f"{self.hparams.seed} {epoch}" + (f" {rank}" if rank else "")
            self.prompt_rng = random.Random(seed)

    def compute_forward(self, batch, stage):
        """Returns both sides of a batch in the shared space.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig`` and ``style``.
        stage : sb.Stage
            TRAIN augments the waveforms.

        Returns
        -------
        Embedded
            Speech and text, each of shape [batch, channel].
        """
        batch = batch.to(self.device)
        speech = self.embed_speech(batch, stage)
        text = None
        if stage == sb.Stage.TRAIN and {"contrastive", "adversarial"} & set(
            self.terms
        ):
            text = self.embed_drawn(batch.style)
        return Embedded(speech, text)

    def embed_drawn(self, styles):
        """Returns prompts drawn anew, in the shared space.

        Arguments
        ---------
        styles : list of str
            The style of each clip.

        Returns
        -------
        torch.Tensor
            One row a clip, of shape [batch, channel].
        """
        bank, mix = self.hparams.train_prompts, self.hparams.prompt_mix
        n_prompts = 1 if mix is None else mix.n_prompts
        prompts = [
            bank.draw(style, self.prompt_rng)
            for style in styles
            for _ in range(n_prompts)
        ]
        pooled = self.modules.text_encoder(prompts).float()
        if mix is not None:
            pooled = mix(pooled.view(len(styles), n_prompts, -1))
        with self.full_precision():
            return self.modules.text_projection(pooled)

    def embed_text(self, prompts):
        """Returns prompts in the shared space, of shape [prompts, channel].

        Arguments
        ---------
        prompts : list of str
            Whole sentences.
        """
        pooled = self.tower("text_encoder")(prompts).float()
        return self.tower("text_projection")(pooled)

    def compute_objectives(self, predictions, batch, stage):
        """Returns the weighted sum of the terms that this epoch has.

        Arguments
        ---------
        predictions : Embedded
            From :meth:`compute_forward`.
        batch : PaddedBatch
            With ``style_index``.
        stage : sb.Stage
            In VALID the clips are kept, for the ranking at its end.

        Returns
        -------
        torch.Tensor
            The loss, without dimensions.
        """
        speech = predictions.speech
        styles = torch.as_tensor(batch.style_index, device=speech.device)
        if stage != sb.Stage.TRAIN:
            self.seen.append((F.normalize(speech, dim=-1).cpu(), batch.style))
            logits = self.tower("classifier")(speech)
            return F.cross_entropy(logits, styles)
        loss = self.weighted_loss(speech, predictions.text, styles)
        logit_scale = distributed.bare(self.modules.logit_scale)
        self.sums["logit_scale"] += logit_scale.value.detach()
        return loss

    def compute_terms(self, speech, text, styles):
        """Returns the terms of the loss by name, not yet weighted.

        Arguments
        ---------
        speech, text : torch.Tensor
            Embeddings of shape [batch, channel], text or None.
        styles : torch.Tensor
            Style indices of shape [batch].

        Returns
        -------
        dict
            A tensor without dimensions a term.
        """
        terms = super().compute_terms(speech, text, styles)
        if text is None:
            return terms
        speech = F.normalize(speech, dim=-1)
        text = F.normalize(text, dim=-1)
        if "contrastive" in self.terms:
            positives = POSITIVES[self.hparams.positives](styles)
            terms["contrastive"] = losses.contrastive_loss(
                self.modules.logit_scale(speech @ text.t()), positives
            )
        if "adversarial" in self.terms:
            terms["adversarial"] = losses.adversarial_loss(
                self.modules.discriminator, speech, text
            )
        return terms

    def rank_clips(self, rows, styles):
        """Returns the mean average precision of the averaged prompts.

        Arguments
        ---------
        rows : torch.Tensor
            Embeddings of unit length, of shape [clip, channel].
        styles : list of str
            The style of each clip.

        Returns
        -------
        float
            From 0 to 1.
        """
        bank = self.hparams.valid_prompts
        queries = {}
        with torch.no_grad():
            for style in sorted(set(styles)):
                prompts = self.embed_text(bank.prompts(style))
                prompts = F.normalize(prompts, dim=-1)
                queries[style] = prompts.mean(dim=0).cpu().numpy()
        return mean_average_precision(rows.numpy(), styles, queries)


class StyleClassificationBrain(StyleBrain):
    """Teaches a speech encoder to name one of the styles, without words.

    The baseline of "Expressive Speech Retrieval using Natural Language
    Descriptions of Speaking Style" (Kang and Roy, 2025,
    https://arxiv.org/abs/2508.11187): it knows no descriptions, only the
    styles it was trained on, and a clip's score for a style is its logit.
    """

    def compute_forward(self, batch, stage):
        """Returns the embeddings of a batch.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig``.
        stage : sb.Stage
            TRAIN augments the waveforms.

        Returns
        -------
        torch.Tensor
            Of shape [batch, channel].
        """
        return self.embed_speech(batch.to(self.device), stage)

    def compute_objectives(self, predictions, batch, stage):
        """Returns the cross-entropy of the styles.

        Arguments
        ---------
        predictions : torch.Tensor
            Embeddings of shape [batch, channel].
        batch : PaddedBatch
            With ``style_index``.
        stage : sb.Stage
            In VALID the logits are kept, for the ranking at its end.

        Returns
        -------
        torch.Tensor
            The loss, without dimensions.
        """
        device = predictions.device
        styles = torch.as_tensor(batch.style_index, device=device)
        if stage == sb.Stage.TRAIN:
            return self.weighted_loss(predictions, None, styles)
        logits = self.tower("classifier")(predictions).float()
        self.seen.append((logits.cpu(), batch.style))
        return F.cross_entropy(logits, styles)

    def rank_clips(self, rows, styles):
        """Returns the mean average precision of ranking by logits.

        Arguments
        ---------
        rows : torch.Tensor
            Logits of shape [clip, style].
        styles : list of str
            The style of each clip.

        Returns
        -------
        float
            From 0 to 1.
        """
        scores = {
            style: rows[:, self.styles.index(style)].numpy()
            for style in sorted(set(styles))
        }
        return mean_over_styles(rank_styles(scores, styles))["AP"]

    @torch.no_grad()
    def score_clips(self, rows, batch_size=16):
        """Returns the logits of whole clips.

        Arguments
        ---------
        rows : list of dict
            Checked rows of a manifest, their styles among ``styles``.
        batch_size : int
            Most clips a pass; those of like length go together.

        Returns
        -------
        torch.Tensor
            Of shape [clip, style], in the order of the rows and of
            ``styles``, on the CPU.
        """
        self.modules.eval()
        clips = make_dataset(rows, self.styles, ClipReader())
        clips = clips.filtered_sorted(sort_key="duration")
        loader = self.make_dataloader(
            clips, sb.Stage.TEST, ckpt_prefix=None, batch_size=batch_size
        )
        logits = {}
        for batch in loader:
            with self.evaluation_ctx:
                embeddings = self.compute_forward(batch, sb.Stage.TEST)
                scores = self.tower("classifier")(embeddings)
            logits.update(zip(batch.id, scores.float().cpu(), strict=True))
        return torch.stack([logits[row["ID"]] for row in rows])
