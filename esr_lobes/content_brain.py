"""What CLSR learns: to recognise words, and to find contexts by them.

Authors
 * The esr_lobes contributors
"""

import torch
import torch.nn.functional as F

from esr_lobes import distributed
from esr_lobes.clsr.losses import (
    label_smoothed_cross_entropy,
    mwer_loss,
    quantity_loss,
)
from esr_lobes.clsr.speech import ClsrSpeech
from esr_lobes.clsr.vocabulary import word_error_rate
from esr_lobes.dual_content_brain import MERIT, DualContentBrain, Heard
from esr_lobes.pages import PageError


class ContentRetrievalBrain(DualContentBrain):
    """Teaches CLSR: a recogniser whose words a text encoder reads.

    "End-to-end Contrastive Language-Speech Pretraining Model For Long-form
    Spoken Question Answering" (Hu et al., 2025,
    https://arxiv.org/abs/2511.09282). Before the stages of
    :class:`DualContentBrain` comes ``recognition``, in which the recogniser
    learns alone. In ``joint`` it goes on to do so, and learns at the same
    time from how its words are read:

    ``(1 - quantity_weight - contrastive_weight) * (ce_weight * cross_entropy
    + mwer_weight * mwer) + quantity_weight * quantity + contrastive_weight *
    contrastive``

    Beside these terms the log has ``errors``, the share of tokens that the
    recogniser's first pass had wrong, and ``gradient at embeddings`` and
    ``gradient at logits``, norms of what comes back through the VQ.

    The page gives, beside what :class:`DualContentBrain` needs: ``vq``, the
    four weights, ``n_candidates`` (of MWER) and ``label_smoothing``. No
    sampler: ``sampling_ratio: 0``. No VQ: ``vq: {is_hard: False}``.
    """

    MODULES_NEEDED = (
        "paraformer",
        "text_encoder",
        "text_projection",
        "logit_scale",
    )
    TERMS = ("cross_entropy", "mwer", "quantity", "contrastive")
    SPEECH = ("paraformer",)
    COMPILED = ("paraformer",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.speech = self._speech_side(self.modules)
        self.judged = self.speech
        if self.average is not None:
            self.judged = self._speech_side(self.average.module)
            self.judged.eval()

    def _speech_side(self, modules):
        """Returns CLSR's speech side of the recogniser that is given."""
        text_encoder = self.modules.text_encoder
        if "text_encoder" in modules:
            text_encoder = modules["text_encoder"]
        speech = ClsrSpeech(
            modules["paraformer"], text_encoder, vq=self.hparams.vq
        )
        return speech.to(self.device)

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        super()._check_page()
        page = self.hparams
        weights = {
            name: getattr(page, name)
            for name in (
                "quantity_weight",
                "contrastive_weight",
                "ce_weight",
                "mwer_weight",
            )
        }
        for name, weight in weights.items():
            if weight < 0:
                raise PageError(f"{name} is not below 0")
        if page.quantity_weight + page.contrastive_weight > 1:
            raise PageError("quantity_weight + contrastive_weight is at most 1")
        if page.stages["recognition"] and not page.ce_weight + page.mwer_weight:
            raise PageError(
                "ce_weight and mwer_weight are 0, so that nothing teaches to "
                "recognise"
            )

    def active_terms(self, epoch):
        """Same as in the base: the weights of the formula, by epoch."""
        page, stage = self.hparams, self.stage_of(epoch)
        a, b = page.quantity_weight, page.contrastive_weight
        if stage == "recognition":
            share, a, b = 1.0, 1.0, 0.0
        elif stage == "joint":
            share = 1.0 - a - b
        else:
            share, a, b = 0.0, 0.0, 1.0
        weights = {
            "cross_entropy": share * page.ce_weight,
            "mwer": share * page.mwer_weight,
            "quantity": a,
            "contrastive": b,
        }
        return {term: weight for term, weight in weights.items() if weight > 0}

    def choose_clips(self, clips, reader, folder):
        """Returns all clips: each teaches to recognise.

        Neither the reader nor the folder are needed.
        """
        return clips

    def tower(self, name):
        """Same as in the base; the name ``speech_encoder`` is known, too."""
        if name == "speech_encoder":
            return self.speech if self.modules.training else self.judged
        return super().tower(name)

    def hear(self, batch):
        """Same as in the base, of a batch; notes what was said in it, too."""
        if self.stage == "text":
            heard = super().hear(batch)
            self.seen[-1] += ([], [])
            return heard
        output = self.judged.paraformer(*batch.sig)
        rows = self.judged.read(output.logits, output.counts).float()
        ids = self.judged.vq.best(output.logits)
        said = self.judged.vocabulary.decode_batch(ids, output.counts)
        self.seen.append(
            (
                F.normalize(rows, dim=-1).cpu(),
                batch.context_id,
                said,
                batch.transcript,
            )
        )
        return Heard(rows, output=output)

    def hear_to_learn(self, batch, places):
        """Same as in the base, with what was said in the batch.

        That is of all clips, the vectors are of those at the places.
        """
        if self.stage == "post":
            # As in use: nothing is masked or shown to the recogniser.
            paraformer = distributed.bare(self.modules.paraformer).eval()
            wavs, wav_lens = batch.sig
            with torch.no_grad():
                output = paraformer(wavs[places], wav_lens[places])
            rows = self.speech.read(output.logits, output.counts)
            return Heard(rows.float(), output=output)
        ids, counts = self.speech.vocabulary.encode_batch(batch.transcript)
        output = self.modules.paraformer(
            *batch.sig, ids.to(self.device), counts.to(self.device)
        )
        rows = None
        if "contrastive" in self.terms:
            logits, counts = output.logits[places], output.counts[places]
            rows = self.speech.read(logits, counts).float()
        return Heard(rows, output=output)

    def terms_of(self, heard, batch):
        """Same as in the base, with those of what was heard in the batch."""
        terms = super().terms_of(heard, batch)
        output, page = heard.output, self.hparams
        if output is None or output.targets is None:
            return terms
        # Means over all processes: each brings what it has seen.
        of_tokens = share_of(output.counts.sum())
        of_clips = share_of(output.counts.new_tensor(len(output.counts)))
        if "cross_entropy" in self.terms:
            terms["cross_entropy"] = of_tokens * label_smoothed_cross_entropy(
                output.logits,
                output.targets,
                output.counts,
                page.label_smoothing,
            )
        if "mwer" in self.terms:
            terms["mwer"] = of_clips * mwer_loss(
                output.logits, output.targets, output.counts, page.n_candidates
            )
        if "quantity" in self.terms:
            terms["quantity"] = of_tokens * quantity_loss(
                output.n_hat, output.counts
            )
        errors = output.errors.sum() / output.counts.sum().clamp(min=1)
        self.sums["errors"] += errors
        return terms

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Notes what came back through the VQ, and moves the average."""
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        for place, norm in self.hparams.vq.gradient_norms.items():
            self.sums[f"gradient at {place}"] += norm
        self.hparams.vq.gradient_norms.clear()

    def judge(self, epoch, loss):
        """Same as in the base, at the end of an epoch, whatever its loss.

        With how many words are wrong.
        """
        stats = super().judge(epoch, loss)
        references = [text for *_, texts in self.seen for text in texts]
        if references:
            said = [text for *_, texts, _ in self.seen for text in texts]
            stats["WER"] = word_error_rate(references, said)
        return stats

    def merit(self, stats, epoch):
        """Same as in the base, of its stats; fewer wrong words in an epoch
        in which it learns to recognise alone."""
        if self.stage_of(epoch) == "recognition" or MERIT not in stats:
            return {f"{self.stage_of(epoch)} merit": -stats.get("WER", 0.0)}
        return super().merit(stats, epoch)


def share_of(n_own):
    """Returns by what to multiply a mean over one's own, with others at work.

    Processes take the mean of their gradients; a mean over the tokens of all
    is wanted, of which a process may have more than another.

    Arguments
    ---------
    n_own : torch.Tensor
        How many this process has, without dimensions.

    Returns
    -------
    torch.Tensor
        One's own share of all, times the number of processes.

    Example
    -------
    >>> share_of(torch.tensor(7)).item()
    1.0
    """
    (counts,) = distributed.gather_rows(n_own.reshape(1).float())
    return len(counts) * n_own / counts.sum().clamp(min=1)
