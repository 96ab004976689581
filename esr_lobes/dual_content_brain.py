"""What two towers learn about content: that a question finds its context.

Authors
 * The esr_lobes contributors
"""

import random
from typing import NamedTuple

import speechbrain as sb
import torch
import torch.nn.functional as F

from esr_lobes import distributed
from esr_lobes.clsr.losses import content_contrastive_loss
from esr_lobes.clsr.paraformer import ParaformerOutput
from esr_lobes.content_metrics import content_recalls
from esr_lobes.pages import PageError
from esr_lobes.retrieval_brain import RetrievalBrain

STAGES = ("recognition", "text", "joint", "post")
# In these the text encoder learns and what hears does not.
TEXT_STAGES = ("text", "post")
MERIT = "Q-C R@10"


class Heard(NamedTuple):
    """What a batch becomes: vectors of contexts and, in training, of a question
    to each, the places in the batch of the clips that these are of, what the
    recogniser said, and vectors of all clips. None where no term asks for
    it."""

    contexts: torch.Tensor | None
    questions: torch.Tensor | None = None
    places: list | None = None
    output: ParaformerOutput | None = None
    clips: torch.Tensor | None = None


class DualContentBrain(RetrievalBrain):
    """Teaches clips and questions about them to meet, in stages.

    ParaBGE of "End-to-end Contrastive Language-Speech Pretraining Model For
    Long-form Spoken Question Answering" (Hu et al., 2025,
    https://arxiv.org/abs/2511.09282), CLAP, and any other pair of a speech
    and a text encoder. An epoch is in one stage (:meth:`stage_of`): ``text``,
    in which the text encoder learns from transcripts and questions;
    ``joint``, in which the speech side learns and, if the page says
    ``text_learns_jointly``, the text encoder too; ``post``, in which the text
    encoder learns, and the speech side does not.

    An epoch hears each clip once. Of the questions about a clip's context one
    is drawn anew in each epoch; a clip without any is in no contrastive term.

    The page gives, beside what
    :class:`~esr_lobes.retrieval_brain.RetrievalBrain` needs: ``stages``
    (epochs of each), ``learning_rates`` (by stage), ``learns_temperature``,
    ``text_learns_jointly``. Questions are handed over by :meth:`ask` before
    training, and clips by :meth:`choose_clips`.
    """

    MODULES_NEEDED = (
        "speech_encoder",
        "speech_projection",
        "text_encoder",
        "text_projection",
        "logit_scale",
    )
    TERMS = ("contrastive",)
    # Those that compare with questions.
    ASKING = ("contrastive",)
    MERITS = tuple(f"{stage} merit" for stage in STAGES)
    SPEECH = ("speech_encoder", "speech_projection", "text_projection")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        learns = self.hparams.learns_temperature
        self.modules.logit_scale.requires_grad_(learns)
        text_encoder = self.modules.text_encoder
        self.has_fixed_text = text_encoder.is_frozen
        if not self.has_fixed_text and self.checkpointer is not None:
            self.checkpointer.add_recoverable("text_encoder", text_encoder)
        self.train_questions, self.valid_questions = {}, []

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        super()._check_page()
        page = self.hparams
        if page.stages.get("recognition") and "paraformer" not in self.modules:
            raise PageError(
                "No words are recognised on this page: add --stages="
                "'{recognition: 0}', and begin with a recogniser that another "
                "page has trained (--recogniser_source FOLDER)"
            )
        for name in ("stages", "learning_rates"):
            given = getattr(page, name)
            for stage in STAGES:
                if given.get(stage, -1) < 0:
                    raise PageError(f"{name}: {stage} must be a number from 0")
        needs = [s for s in STAGES if page.stages[s] and self.text_learns(s)]
        if needs and self.modules.text_encoder.is_frozen:
            raise PageError(
                f"In the stage {needs[0]!r} the text encoder learns, but it is "
                "frozen: add --text_encoder='{is_frozen: False}', or "
                f"--stages='{{{needs[0]}: 0}}'"
            )

    def ask(self, train_questions, valid_questions=()):
        """Sets the questions about the contexts of the clips.

        Arguments
        ---------
        train_questions, valid_questions : list of dict
            With ``question`` and ``context_id``.
        """
        self.train_questions = {}
        for row in train_questions:
            questions = self.train_questions.setdefault(row["context_id"], [])
            questions.append(row["question"])
        self.valid_questions = list(valid_questions)
        if self.has_fixed_text:
            rows = [*train_questions, *valid_questions]
            self.modules.text_encoder.warm([row["question"] for row in rows])

    def choose_clips(self, clips, reader, folder):
        """Returns those clips of a training that something is learnt from.

        Arguments
        ---------
        clips : list of dict
            Rows of a manifest.
        reader : ClipReader
            Reads them.
        folder : Path
            Where the training may keep what it finds out about them.

        Returns
        -------
        list of dict
            Those that a question is about.
        """
        return [c for c in clips if c["context_id"] in self.train_questions]

    # Stages

    def stage_of(self, epoch):
        """Returns the stage that an epoch belongs to.

        Arguments
        ---------
        epoch : int
            Counted from 1.

        Returns
        -------
        str
            One of ``STAGES``; behind the end the last one that there is.
        """
        stages = {s: n for s, n in self.hparams.stages.items() if n}
        end = 0
        for stage in (s for s in STAGES if s in stages):
            end += stages[stage]
            if epoch <= end:
                break
        return stage

    def text_learns(self, stage):
        """Whether the text encoder learns in a stage.

        Arguments
        ---------
        stage : str
            One of ``STAGES``.
        """
        is_joint = stage == "joint" and self.hparams.text_learns_jointly
        return stage in TEXT_STAGES or is_joint

    def active_terms(self, epoch):
        """Same as in the base; while words are recognised, there are none."""
        if self.stage_of(epoch) == "recognition":
            return {}
        return {"contrastive": 1.0}

    def on_stage_start(self, stage, epoch=None):
        """Sets who learns, and draws from the seed and the epoch alone."""
        super().on_stage_start(stage, epoch)
        self.stage = self.stage_of(epoch) if epoch else self.stage
        if stage != sb.Stage.TRAIN:
            return
        learns = self.text_learns(self.stage)
        text_encoder = distributed.bare(self.modules.text_encoder)
        text_encoder.is_frozen = not learns
        text_encoder.backbone.requires_grad_(learns)
        for name in self.SPEECH:
            hears = self.modules[name]
            hears.requires_grad_(self.stage not in TEXT_STAGES)
        rank = distributed.rank()
        self.question_rng = random.Random(f"{self.hparams.seed} {epoch} {rank}")

    def on_fit_batch_start(self, batch, should_step):
        """Sets the learning rate of this step, by its place in its stage."""
        stages, page = self.hparams.stages, self.hparams
        before = sum(stages[s] for s in STAGES[: STAGES.index(self.stage)])
        done = self.optimizer_step - before * self.steps_in_epoch
        n_steps = stages[self.stage] * self.steps_in_epoch
        factor = page.schedule(min(1.0, max(0.0, done / n_steps)))
        for group in self.optimizer.param_groups:
            group["lr"] = page.learning_rates[self.stage] * factor

    # A batch

    def compute_forward(self, batch, stage):
        """Returns the vectors of a batch.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig``, ``context_id`` and ``transcript``.
        stage : sb.Stage
            TRAIN draws questions.

        Returns
        -------
        Heard
            Vectors of shape [batch, channel].
        """
        batch = batch.to(self.device)
        if stage != sb.Stage.TRAIN:
            return self.hear(batch)
        places = self.asked_places(batch.context_id)
        asked = self.draw_questions([batch.context_id[i] for i in places])
        if self.stage == "text":
            read = [batch.transcript[i] for i in places]
            # One pass, since DDP counts on one.
            contexts, questions = self.embed_text([*read, *asked]).chunk(2)
            return Heard(contexts, questions, places)
        questions = None
        if any(term in self.terms for term in self.ASKING):
            # First: DDP may not touch what contexts went through already.
            questions = self.embed_text(asked)
        heard = self.hear_to_learn(batch, places)
        return heard._replace(questions=questions, places=places)

    def asked_places(self, contexts):
        """Returns the places of the contexts that have a question.

        Arguments
        ---------
        contexts : list of str
            Their ids.

        Returns
        -------
        list of int
            The first place if there is none, lest nothing be left; it is in
            no term.
        """
        questions = self.train_questions
        places = [i for i, c in enumerate(contexts) if c in questions]
        return places or [0]

    def draw_questions(self, contexts):
        """Returns a question about each context, drawn anew.

        Arguments
        ---------
        contexts : list of str
            Their ids.

        Returns
        -------
        list of str
            A dash where there is no question.
        """
        return [
            self.question_rng.choice(self.train_questions.get(context, ["-"]))
            for context in contexts
        ]

    def embed_text(self, texts):
        """Returns texts in the shared space, of shape [text, channel].

        Arguments
        ---------
        texts : list of str
            Questions or transcripts.
        """
        pooled = self.tower("text_encoder")(texts).float()
        with self.full_precision():
            return self.tower("text_projection")(pooled)

    def embed_speech(self, wavs, wav_lens):
        """Returns clips in the shared space, of shape [batch, channel].

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].
        """
        pooled = self.tower("speech_encoder")(wavs, wav_lens).float()
        with self.full_precision():
            return self.tower("speech_projection")(pooled)

    def hear(self, batch):
        """Returns the vectors of clips that are judged, and notes them.

        In the stage ``text`` transcripts stand for the clips.

        Arguments
        ---------
        batch : PaddedBatch
            On the device.

        Returns
        -------
        Heard
            Without questions.
        """
        if self.stage == "text":
            rows = self.embed_text(batch.transcript)
        else:
            rows = self.embed_speech(*batch.sig)
        self.seen.append((F.normalize(rows, dim=-1).cpu(), batch.context_id))
        return Heard(rows)

    def hear_to_learn(self, batch, places):
        """Returns the vectors of clips that something is learnt from.

        Arguments
        ---------
        batch : PaddedBatch
            On the device.
        places : list of int
            Which clips of it are asked about.

        Returns
        -------
        Heard
            Without questions.
        """
        if self.stage == "post":
            for name in self.SPEECH:
                self.modules[name].eval()
        wavs, wav_lens = batch.sig
        return Heard(self.embed_speech(wavs[places], wav_lens[places]))

    def compute_objectives(self, predictions, batch, stage):
        """Returns the weighted sum of the terms that this epoch has.

        Arguments
        ---------
        predictions : Heard
            From :meth:`compute_forward`.
        batch : PaddedBatch
            With ``context_index`` and ``context_id``.
        stage : sb.Stage
            In VALID there is no loss; what was noted is judged at its end.

        Returns
        -------
        torch.Tensor
            The loss, without dimensions.
        """
        if stage != sb.Stage.TRAIN:
            return torch.zeros((), device=self.device)
        with self.full_precision():
            return self.add_up(self.terms_of(predictions, batch))

    def terms_of(self, heard, batch):
        """Returns the terms of a batch by name, not yet weighted.

        Arguments
        ---------
        heard : Heard
            From :meth:`compute_forward`.
        batch : PaddedBatch
            With ``context_index`` and ``context_id``.

        Returns
        -------
        dict
            A tensor without dimensions a term.
        """
        if "contrastive" not in self.terms:
            return {}
        index = torch.as_tensor(batch.context_index, device=self.device)
        kept = self.is_asked(heard, batch)
        contexts, questions, index = distributed.gather_rows(
            heard.contexts[kept],
            heard.questions[kept],
            index[heard.places][kept],
        )
        if len(contexts) == 0:
            return {"contrastive": heard.contexts.sum() * 0.0}
        cosines = (
            F.normalize(contexts, dim=-1) @ F.normalize(questions, dim=-1).t()
        )
        logits = self.modules.logit_scale(cosines)
        return {"contrastive": content_contrastive_loss(logits, index)}

    def is_asked(self, heard, batch):
        """Returns which of the places have a question, booleans of [place].

        Arguments
        ---------
        heard : Heard
            With ``places``.
        batch : PaddedBatch
            With ``context_id``.
        """
        asked = [
            batch.context_id[i] in self.train_questions for i in heard.places
        ]
        return torch.tensor(asked, device=self.device)

    # Judging

    @torch.no_grad()
    def judge(self, epoch, loss):
        """Returns how well questions find the contexts just seen, and back.

        Percentages by name; none if there are no questions. The loss is not
        looked at, nor the epoch.
        """
        if not self.valid_questions:
            return {}
        rows = torch.cat([rows for rows, *_ in self.seen])
        contexts = [c for _, names, *_ in self.seen for c in names]
        texts = [row["question"] for row in self.valid_questions]
        questions = torch.cat(
            [
                self.embed_text(texts[i : i + 64])
                for i in range(0, len(texts), 64)
            ]
        )
        scores = F.normalize(questions, dim=-1).cpu() @ rows.t()
        asked = [row["context_id"] for row in self.valid_questions]
        return content_recalls(scores, asked, contexts)

    def merit(self, stats, epoch):
        """Same as in the base, under the name of the epoch's stage.

        Epochs of different stages, given their stats, are not compared.
        """
        return {f"{self.stage_of(epoch)} merit": stats.get(MERIT, 0.0)}

    def recover_best(self):
        """Loads the best checkpoint of the last stage, or the last one."""
        last = f"{self.stage_of(self.epoch_limit)} merit"
        self.checkpointer.recover_if_possible(
            max_key=last if self.is_validated else None
        )
        self.modules.eval()
