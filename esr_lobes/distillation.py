"""What a dual encoder learns from a cascade, in place of transcripts.

Authors
 * The esr_lobes contributors
"""

import torch.nn.functional as F
from speechbrain.utils.logger import get_logger

from esr_lobes import distributed
from esr_lobes.dual_content_brain import TEXT_STAGES, DualContentBrain, Heard
from esr_lobes.pages import PageError
from esr_lobes.teacher import open_teacher, write_down

logger = get_logger(__name__)


def distillation_loss(student, teacher):
    """Returns how far the student's rankings are from the teacher's.

    The Kullback-Leibler divergence of the student's softmax from the
    teacher's, over clips for each question and over questions for each clip.

    Arguments
    ---------
    student, teacher : torch.Tensor
        Scores, divided by their temperature, of shape [question, clip].

    Returns
    -------
    torch.Tensor
        Mean over rows and columns, without dimensions; 0 where both rank
        alike.

    Example
    -------
    >>> import torch
    >>> teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * 100
    >>> distillation_loss(teacher + 7, teacher).item()
    0.0
    >>> loss = distillation_loss(torch.zeros(2, 2), teacher)
    >>> round(loss.item(), 4)  # ln 2
    0.6931
    """
    pairs = (student, teacher), (student.t(), teacher.t())
    by_row, by_column = (
        F.kl_div(
            ours.log_softmax(dim=1),
            theirs.log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
        for ours, theirs in pairs
    )
    return (by_row + by_column) / 2


class DistillationBrain(DualContentBrain):
    """Teaches a dual encoder what a cascade knows, without transcripts.

    In the spirit of "SpeechDPR: End-to-End Spoken Passage Retrieval for
    Open-Domain Spoken Question Answering" (Lin et al., 2024,
    https://arxiv.org/abs/2401.13463): a recogniser writes the clips down, the
    frozen text encoder reads its words and the questions, and the speech side
    learns to do as they. What the teacher hears is written down once, before
    training, in ``teacher/`` of the output folder
    (:func:`esr_lobes.teacher.write_down`); the manifest's transcripts of the
    training clips are not looked at. The terms:

    - ``contrastive``, with the questions of the training set, as in the base;
    - ``distillation``: the student ranks clips for questions, and questions
      for clips, as the teacher does (:func:`distillation_loss`), over all
      clips of the batch, also those that nobody asks about;
    - ``imitation``: 1 less the cosine of the student's vector of a clip with
      the teacher's.

    In the paper all questions are spoken, the teacher's recogniser was
    trained without transcripts, the student hears through a frozen HuBERT,
    and both of its sides learn; here questions are text, which the teacher's
    own text encoder reads for both, any recogniser will do, and the forms of
    the two terms above are ours.

    The page gives, beside what :class:`DualContentBrain` needs: ``teacher``
    (see :func:`esr_lobes.teacher.open_teacher`), ``contrastive_weight``,
    ``distillation_weight``, ``imitation_weight``, and
    ``distillation_temperature`` (of both softmaxes).
    """

    TERMS = ("contrastive", "distillation", "imitation")
    ASKING = ("contrastive", "distillation")

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        super()._check_page()
        page = self.hparams
        for stage in TEXT_STAGES:
            if page.stages[stage]:
                raise PageError(
                    f"In the stage {stage!r} the text encoder would learn, "
                    "which is the teacher's here: add --stages="
                    f"'{{{stage}: 0}}'"
                )
        projection = self.modules.text_projection
        if not self.modules.text_encoder.is_frozen or any(
            True for _ in projection.parameters()
        ):
            raise PageError(
                "The teacher's text encoder reads the questions for both: it "
                "is frozen, and text_projection is Unprojected"
            )
        for term in self.TERMS:
            if getattr(page, f"{term}_weight") < 0:
                raise PageError(f"{term}_weight is not below 0")
        if page.distillation_temperature <= 0:
            raise PageError("distillation_temperature is above 0")

    def active_terms(self, epoch):
        """Same as in the base: those terms that have a weight, any epoch."""
        weights = {t: getattr(self.hparams, f"{t}_weight") for t in self.TERMS}
        return {term: weight for term, weight in weights.items() if weight}

    def choose_clips(self, clips, reader, folder):
        """Has the teacher write clips down; returns those it heard words in.

        Arguments
        ---------
        clips : list of dict
            Rows of a manifest.
        reader : ClipReader
            Reads them.
        folder : Path
            Of the training; the words are kept in its ``teacher/``.

        Returns
        -------
        list of dict
            Some of them. Nothing is learnt from the others.
        """
        self.words = write_down(
            open_teacher(self.hparams.teacher),
            clips,
            reader,
            folder / "teacher",
            self.device,
            not self.noprogressbar,
        )
        self.modules.text_encoder.warm(list(self.words.values()))
        heard = [clip for clip in clips if self.words[clip["ID"]]]
        if len(heard) < len(clips):
            logger.warning(
                f"the teacher heard no word in {len(clips) - len(heard)} of "
                f"{len(clips)} clips, from which nothing is learnt"
            )
        return heard

    def hear_to_learn(self, batch, places):
        """Same as in the base, with the vectors of all clips of the batch.

        Those at the places are asked about.
        """
        rows = self.embed_speech(*batch.sig)
        return Heard(rows[places], clips=rows)

    def terms_of(self, heard, batch):
        """Same as in the base, with those that the teacher has a part in.

        Arguments
        ---------
        heard : Heard
            From :meth:`compute_forward`.
        batch : PaddedBatch
            With ``id``, ``context_index`` and ``context_id``.

        Returns
        -------
        dict
            A tensor without dimensions a term.
        """
        terms = super().terms_of(heard, batch)
        words = [self.words[clip] for clip in batch.id]
        ours, theirs = distributed.gather_rows(
            F.normalize(heard.clips, dim=-1),
            F.normalize(self.modules.text_encoder(words), dim=-1),
        )
        if "imitation" in self.terms:
            terms["imitation"] = (1 - (ours * theirs).sum(dim=-1)).mean()
        if "distillation" in self.terms:
            (asked,) = distributed.gather_rows(
                heard.questions[self.is_asked(heard, batch)]
            )
            asked = F.normalize(asked, dim=-1)
            asked = asked / self.hparams.distillation_temperature
            terms["distillation"] = (
                distillation_loss(asked @ ours.t(), asked @ theirs.t())
                if len(asked)
                else ours.sum() * 0.0
            )
        return terms
