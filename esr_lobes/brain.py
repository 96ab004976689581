"""Training of the two towers, in stages, by a SpeechBrain Brain.

Authors
 * The esr_lobes contributors
"""

import random
from collections import defaultdict
from numbers import Real
from typing import NamedTuple

import speechbrain as sb
import torch
import torch.nn.functional as F
from speechbrain.utils.logger import get_logger
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from esr_lobes import losses
from esr_lobes.errors import MendableError
from esr_lobes.metrics import mean_average_precision
from esr_lobes.pages import PageError

logger = get_logger(__name__)

POSITIVES = {
    "same_style": losses.same_style_positives,
    "pair": losses.pairwise_positives,
}


class CheckpointError(MendableError):
    """A checkpoint that does not belong to the page that is run."""


class Embedded(NamedTuple):
    """What a batch becomes; text is None while no term asks for it."""

    speech: torch.Tensor
    text: torch.Tensor | None


class StyleRetrievalBrain(sb.Brain):
    """Teaches a speech and a text tower to meet, in stages.

    The objective of "Expressive Speech Retrieval using Natural Language
    Descriptions of Speaking Style" (Kang and Roy, 2025,
    https://arxiv.org/abs/2508.11187): style classification from the
    beginning, contrastive and adversarial terms from later epochs on.
    Which terms a stage has is decided by :meth:`active_terms` alone.

    Validation embeds whole clips, ranks them for the averaged prompts of
    each style, and keeps the checkpoint of the best mean average precision.

    The page gives: ``loss_weights`` and ``start_epochs`` by term,
    ``positives`` ("same_style" or "pair"), ``train_prompts`` and
    ``valid_prompts`` (banks), ``prompt_mix`` and ``wave_augment`` (or null),
    ``label_smoothing``, ``schedule``, ``ema_decay`` (0: none),
    ``discriminator_lr``, ``seed``.
    """

    MODULES_NEEDED = (
        "speech_encoder",
        "speech_projection",
        "text_encoder",
        "text_projection",
        "classifier",
        "discriminator",
        "logit_scale",
    )
    TERMS = ("classification", "contrastive", "adversarial")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        missing = [m for m in self.MODULES_NEEDED if m not in self.modules]
        if missing:
            raise ValueError(f"modules lack {', '.join(missing)}")
        self.styles = self.hparams.train_prompts.styles
        self._check_page()
        self.average = self._make_average()
        text_encoder = self.modules.text_encoder
        if text_encoder.is_frozen:
            text_encoder.warm(self.hparams.train_prompts.all_prompts())
            text_encoder.warm(self.hparams.valid_prompts.all_prompts())
        elif self.checkpointer is not None:
            self.checkpointer.add_recoverable("text_encoder", text_encoder)

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        page = self.hparams
        n_outputs = self.modules.classifier[-1].out_features
        if n_outputs != len(self.styles):
            raise PageError(
                f"The classifier has {n_outputs} outputs, the prompt bank "
                f"{page.train_prompts.name} has {len(self.styles)} styles: "
                f'add --recipe="{{n_styles: {len(self.styles)}}}"'
            )
        if page.positives not in POSITIVES:
            raise PageError(
                f"positives is {' or '.join(POSITIVES)}, not {page.positives!r}"
            )
        for name in ("loss_weights", "start_epochs"):
            for term in self.TERMS:
                if not isinstance(getattr(page, name).get(term), Real):
                    raise PageError(f"{name}: {term} must be a number")
        for name in ("lr", "discriminator_lr", "weight_decay"):
            if getattr(page, name) < 0:
                raise PageError(f"{name} is not below 0")
        if not 0 <= page.ema_decay < 1:
            raise PageError(f"ema_decay is from 0 to 1, not {page.ema_decay}")

    def _make_average(self):
        """Returns a running average of the weights, or None."""
        if not self.hparams.ema_decay:
            return None
        average = AveragedModel(
            torch.nn.ModuleDict(
                {
                    name: module
                    for name, module in self.modules.items()
                    if any(p.requires_grad for p in module.parameters())
                }
            ),
            multi_avg_fn=get_ema_multi_avg_fn(self.hparams.ema_decay),
            use_buffers=True,
        ).to(self.device)
        average.eval()
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("average", average)
        return average

    def tower(self, name):
        """Returns a module as it trains, or its average when it is judged.

        Arguments
        ---------
        name : str
            A key of ``modules``.

        Returns
        -------
        torch.nn.Module
            The module.
        """
        if self.average is not None and not self.modules.training:
            if name in self.average.module:
                return self.average.module[name]
        return self.modules[name]

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

    def init_optimizers(self):
        """Makes one optimiser; the discriminator has a rate of its own."""
        discriminator = list(self.modules.discriminator.parameters())
        others = [
            p
            for name, module in self.modules.items()
            if name != "discriminator"
            for p in module.parameters()
            if p.requires_grad
        ]
        self.optimizer = self.opt_class(
            [
                {"params": others},
                {
                    "params": discriminator,
                    "lr": self.hparams.discriminator_lr,
                },
            ]
        )
        self.base_rates = [g["lr"] for g in self.optimizer.param_groups]
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def fit(self, epoch_counter, train_set, valid_set=None, **kwargs):
        """Trains, see ``speechbrain.Brain.fit``.

        Arguments
        ---------
        epoch_counter : EpochCounter
            Counts from 1, stops at its limit or early.
        train_set : Dataset or DataLoader
            Gives ``sig``, ``style`` and ``style_index``.
        valid_set : Dataset or DataLoader
            The same; None keeps the last checkpoint instead of the best.
        **kwargs : dict
            Further arguments of ``Brain.fit``.
        """
        self.is_validated = valid_set is not None
        self.epoch_limit = epoch_counter.limit
        super().fit(epoch_counter, train_set, valid_set, **kwargs)

    def make_dataloader(self, dataset, stage, *args, **kwargs):
        """Returns a loader; that of training tells the number of steps."""
        loader = super().make_dataloader(dataset, stage, *args, **kwargs)
        if stage == sb.Stage.TRAIN:
            steps = len(loader) // self.grad_accumulation_factor
            self.steps_in_epoch = max(1, steps)
        return loader

    def on_fit_start(self):
        """Makes the optimiser and goes on from the last checkpoint, if any.

        Raises
        ------
        CheckpointError
            If the last checkpoint has other shapes than this page.
        """
        try:
            super().on_fit_start()
        except (RuntimeError, ValueError, KeyError) as error:
            if (
                not self.checkpointer
                or not self.checkpointer.list_checkpoints()
            ):
                raise
            raise CheckpointError(
                f"The checkpoint in {self.checkpointer.checkpoints_dir} is "
                "damaged or of another shape than this page: give another "
                f"output_folder, or remove it. ({error})"
            ) from error

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
        wavs, wav_lens = batch.sig
        is_training = stage == sb.Stage.TRAIN
        if is_training and self.hparams.wave_augment is not None:
            wavs, wav_lens = self.hparams.wave_augment(wavs, wav_lens)
        pooled = self.tower("speech_encoder")(wavs, wav_lens).float()
        with self.full_precision():
            speech = self.tower("speech_projection")(pooled)
        text = None
        if is_training and {"contrastive", "adversarial"} & set(self.terms):
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

    def full_precision(self):
        """Returns a context for what is small and must not be rounded."""
        return torch.autocast(torch.device(self.device).type, enabled=False)

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
        with self.full_precision():
            terms = self.compute_terms(speech, predictions.text, styles)
        total = speech.new_zeros(())
        for name, weight in self.terms.items():
            total = total + weight * terms[name]
            self.sums[name] += terms[name].detach()
        self.sums["logit_scale"] += self.modules.logit_scale.value.detach()
        self.n_batches += 1
        return total

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
        terms = {}
        if "classification" in self.terms:
            terms["classification"] = F.cross_entropy(
                self.modules.classifier(speech),
                styles,
                label_smoothing=self.hparams.label_smoothing,
            )
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

    def on_fit_batch_start(self, batch, should_step):
        """Sets the learning rate of this step."""
        n_steps = self.steps_in_epoch * self.epoch_limit
        factor = self.hparams.schedule(min(1.0, self.optimizer_step / n_steps))
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Moves the average of the weights after each step."""
        if should_step and self.average is not None:
            names = self.average.module.keys()
            self.average.update_parameters(
                torch.nn.ModuleDict({n: self.modules[n] for n in names})
            )

    def on_stage_start(self, stage, epoch=None):
        """Makes an epoch depend on seed and number only, so it can resume."""
        if stage == sb.Stage.TRAIN:
            torch.manual_seed(self.hparams.seed * 100003 + epoch)
            self.prompt_rng = random.Random(f"{self.hparams.seed} {epoch}")
            self.terms = self.active_terms(epoch)
            self.sums = defaultdict(lambda: torch.zeros((), device=self.device))
            self.n_batches = 0
        else:
            self.seen = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs the averages, ranks the validation clips, saves."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": stage_loss} | {
                name: (total / self.n_batches).item()
                for name, total in self.sums.items()
            }
            if not self.is_validated:
                self.step, self.avg_train_loss = 0, 0.0
                self._log(epoch, None)
                self.checkpointer.save_and_keep_only({"epoch": epoch})
        elif stage == sb.Stage.VALID:
            stats = {"loss": stage_loss, "mAP": self.rank()}
            self._log(epoch, stats)
            self.checkpointer.save_and_keep_only(
                {"epoch": epoch, "mAP": stats["mAP"]}, max_keys=["mAP"]
            )
            if hasattr(self.hparams.epoch_counter, "update_metric"):
                self.hparams.epoch_counter.update_metric(stats["mAP"])

    def rank(self):
        """Returns the mean average precision over the clips just seen."""
        embeddings = torch.cat([rows for rows, _ in self.seen]).numpy()
        styles = [style for _, names in self.seen for style in names]
        bank = self.hparams.valid_prompts
        queries = {}
        with torch.no_grad():
            for style in sorted(set(styles)):
                rows = self.embed_text(bank.prompts(style))
                rows = F.normalize(rows, dim=-1)
                queries[style] = rows.mean(dim=0).cpu().numpy()
        return mean_average_precision(embeddings, styles, queries)

    def _log(self, epoch, valid_stats):
        rate = self.optimizer.param_groups[0]["lr"]
        for train_logger in self.hparams.train_loggers:
            train_logger.log_stats(
                {"epoch": epoch, "lr": rate},
                train_stats=self.train_stats,
                valid_stats=valid_stats,
            )

    def recover_best(self):
        """Loads the checkpoint that ranked best, or the last one."""
        self.checkpointer.recover_if_possible(
            max_key="mAP" if self.is_validated else None
        )
        self.modules.eval()
