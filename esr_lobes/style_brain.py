"""What all trainings on styles share: a classifier, and how clips are judged.

Authors
 * The esr_lobes contributors
"""

import speechbrain as sb
import torch
import torch.nn.functional as F

from esr_lobes.pages import PageError
from esr_lobes.retrieval_brain import CheckpointError, RetrievalBrain

__all__ = ["CheckpointError", "StyleBrain"]


class StyleBrain(RetrievalBrain):
    """Trains modules on clips with styles; its children say on which terms.

    Validation ranks whole clips for each style, and the checkpoint of the
    best mean average precision is kept.

    Beside what :class:`~esr_lobes.retrieval_brain.RetrievalBrain` needs, the
    page gives: ``train_prompts`` (a bank, whose styles are those of the
    classifier), ``wave_augment`` (or null), ``label_smoothing``, ``lr``.
    """

    MODULES_NEEDED = ("speech_encoder", "speech_projection", "classifier")
    TERMS = ("classification",)
    MERITS = ("mAP",)

    @property
    def styles(self):
        """All styles, in the order of the classifier's outputs."""
        return self.hparams.train_prompts.styles

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        super()._check_page()
        page = self.hparams
        n_outputs = self.modules.classifier[-1].out_features
        if n_outputs != len(self.styles):
            raise PageError(
                f"The classifier has {n_outputs} outputs, the prompt bank "
                f"{page.train_prompts.name} has {len(self.styles)} styles: "
                f"add --n_styles {len(self.styles)}"
            )
        self._check_widths()
        if page.lr < 0:
            raise PageError("lr is not below 0")

    def _check_widths(self):
        """Raises a PageError if a projection does not fit its encoder."""
        for side in ("speech", "text"):
            if f"{side}_encoder" not in self.modules:
                continue
            given = self.modules[f"{side}_encoder"].width
            taken = self.modules[f"{side}_projection"].in_features
            if given != taken:
                raise PageError(
                    f"The {side} encoder gives {given} values, its projection "
                    f'takes {taken}: add --{side}_encoder="{{width: {given}}}"'
                )

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
        if "classification" not in self.terms:
            return {}
        logits = self.modules.classifier(speech)
        smoothing = self.hparams.label_smoothing
        return {
            "classification": F.cross_entropy(
                logits, styles, label_smoothing=smoothing
            )
        }

    def embed_speech(self, batch, stage):
        """Returns the clips of a batch in the shared space.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig``, on the device.
        stage : sb.Stage
            TRAIN augments the waveforms.

        Returns
        -------
        torch.Tensor
            Of shape [batch, channel], float32, not yet of unit length.
        """
        wavs, wav_lens = batch.sig
        augment = self.hparams.wave_augment
        if stage == sb.Stage.TRAIN and augment is not None:
            wavs, wav_lens = augment(wavs, wav_lens)
        pooled = self.tower("speech_encoder")(wavs, wav_lens).float()
        with self.full_precision():
            return self.tower("speech_projection")(pooled)

    def judge(self, epoch, loss):
        """Returns the mean average precision over the clips just seen.

        Arguments
        ---------
        epoch : int
            Which one is at its end.
        loss : float
            Mean over the clips.

        Returns
        -------
        dict
            ``loss``, and ``mAP`` from 0 to 1.
        """
        rows = torch.cat([rows for rows, _ in self.seen])
        styles = [style for _, names in self.seen for style in names]
        return {"loss": loss, "mAP": self.rank_clips(rows, styles)}

    def rank_clips(self, rows, styles):
        """Returns the mean average precision over the clips just seen.

        Arguments
        ---------
        rows : torch.Tensor
            What was kept of each clip, of shape [clip, any].
        styles : list of str
            The style of each clip; only those that occur are searched for.

        Returns
        -------
        float
            From 0 to 1.
        """
        raise NotImplementedError
