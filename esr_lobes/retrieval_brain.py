"""The mechanics of every training: epochs, averages, checkpoints.

What is learnt is said by the Brains of :mod:`esr_lobes.brain`,
:mod:`esr_lobes.dual_content_brain` and :mod:`esr_lobes.content_brain`.

Authors
 * The esr_lobes contributors
"""

import inspect
from collections import defaultdict

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, ddp_broadcast
from speechbrain.utils.logger import get_logger
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from esr_lobes import distributed
from esr_lobes.errors import MendableError
from esr_lobes.pages import PageError

logger = get_logger(__name__)


class CheckpointError(MendableError):
    """A checkpoint that does not belong to the page that is run."""


class RetrievalBrain(sb.Brain):
    """Trains modules on clips; its children say on which terms.

    An epoch's randomness depends on seed and epoch alone, the learning rate
    on the step alone, so that a run that was killed goes on to the same
    numbers. The checkpoint that is best in validation is kept. On several
    processes, as ``torchrun`` starts them, the loss is that of all their
    clips together, so that ``n`` processes learn from ``n * batch_size``
    clips a step.

    The page gives: ``schedule``, ``ema_decay`` (0: none), ``weight_decay``,
    ``seed``, ``epoch_counter``, ``train_loggers``.
    """

    MODULES_NEEDED = ()
    TERMS = ()
    # Figures of validation by which checkpoints are kept, more is better. The
    # last is that of the end.
    MERITS = ()
    # What --compile means of itself.
    COMPILED = ("speech_encoder",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        missing = [m for m in self.MODULES_NEEDED if m not in self.modules]
        if missing:
            raise ValueError(f"modules lack {', '.join(missing)}")
        self._check_page()
        self.average = self._make_average()

    def _check_page(self):
        """Raises a PageError on values that could only fail later."""
        page = self.hparams
        if page.weight_decay < 0:
            raise PageError("weight_decay is not below 0")
        if not 0 <= page.ema_decay < 1:
            raise PageError(f"ema_decay is from 0 to 1, not {page.ema_decay}")

    def _check_terms(self, n_epochs):
        """Raises a PageError if an epoch would have nothing to learn from."""
        epochs = range(1, n_epochs + 1)
        idle = [e for e in epochs if not self.active_terms(e)]
        if idle:
            raise PageError(
                f"In epochs {idle[0]} to {idle[-1]} no term of the loss is "
                "active: change loss_weights or start_epochs"
            )

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

        What is judged is bare: one process may use it alone.

        Arguments
        ---------
        name : str
            A key of ``modules``.

        Returns
        -------
        torch.nn.Module
            The module.
        """
        if self.modules.training:
            return self.modules[name]
        if self.average is not None and name in self.average.module:
            return self.average.module[name]
        return distributed.bare(self.modules[name])

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
        return dict.fromkeys(self.TERMS, 1.0)

    def compute_terms(self, *rows):
        """Returns the terms of the loss by name, not yet weighted.

        Arguments
        ---------
        *rows : torch.Tensor or None
            What :meth:`weighted_loss` was given, of all processes.

        Returns
        -------
        dict
            A tensor without dimensions a term.
        """
        raise NotImplementedError

    def weighted_loss(self, *rows):
        """Returns the sum of the terms over the clips of all processes.

        Arguments
        ---------
        *rows : torch.Tensor or None
            Of this process, all with as many rows; None stays None.

        Returns
        -------
        torch.Tensor
            The loss, without dimensions, the same on all processes.
        """
        with self.full_precision():
            terms = self.compute_terms(*distributed.gather_rows(*rows))
        return self.add_up(terms)

    def add_up(self, terms):
        """Returns the weighted sum of a batch's terms, and notes each.

        Arguments
        ---------
        terms : dict
            A tensor without dimensions for each term of this epoch.

        Returns
        -------
        torch.Tensor
            Without dimensions.
        """
        total = torch.zeros((), device=self.device)
        for name, weight in self.terms.items():
            total = total + weight * terms[name]
            self.sums[name] += terms[name].detach()
        self.n_batches += 1
        return total

    def full_precision(self):
        """Returns a context for what is small and must not be rounded."""
        return torch.autocast(torch.device(self.device).type, enabled=False)

    def parameter_groups(self):
        """Returns what the optimiser learns, as groups with rates."""
        return [{"params": self.learning()}]

    def learning(self, *excluded):
        """Returns the parameters that learn, but those of some modules.

        Arguments
        ---------
        *excluded : str
            Keys of ``modules``.

        Returns
        -------
        list of torch.nn.Parameter
            In the order of ``modules``.
        """
        return [
            p
            for name, module in self.modules.items()
            if name not in excluded
            for p in module.parameters()
            if p.requires_grad
        ]

    def init_optimizers(self):
        """Makes one optimiser; on a GPU its step is a single kernel."""
        options = {}
        known = inspect.signature(self.opt_class).parameters
        if self.device_type == "cuda" and "fused" in known:
            options["fused"] = True
        self.optimizer = self.opt_class(self.parameter_groups(), **options)
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
            Gives what the Brain reads, ``sig`` above all.
        valid_set : Dataset or DataLoader
            The same; None keeps the last checkpoint instead of the best.
        **kwargs : dict
            Further arguments of ``Brain.fit``. A ``batch_sampler`` knows of
            the other processes, as :class:`esr_lobes.batching.ClipBatches`.

        Raises
        ------
        PageError
            If an epoch would have nothing to learn from.
        """
        self._check_terms(epoch_counter.limit)
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

    def _train_loader_specifics(self, dataset, loader_kwargs):
        """Leaves a batch sampler as it is: ours shares batches out itself."""
        sampler = loader_kwargs.get("batch_sampler")
        if sampler is None:
            return super()._train_loader_specifics(dataset, loader_kwargs)
        self.train_sampler = sampler
        return loader_kwargs

    def _compile(self):
        """Compiles what was asked for; of itself what hears only.

        The text encoder reads strings and the heads are tiny. Clips are of
        any length, so the compiler must not make a program for each.
        """
        if self.compile_module_keys is not None:
            self.compile = True
        elif self.compile:
            self.compile_module_keys = list(self.COMPILED)
        self.compile_using_dynamic_shape_tracing = True
        super()._compile()

    def _wrap_distributed(self):
        """Lets gradients be averaged over processes, if there are others."""
        if not self.distributed_launch:
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                may_skip = name.endswith("_encoder")  # drops layers
                self.modules[name] = distributed.parallel(
                    module,
                    self.device,
                    may_skip or self.find_unused_parameters,
                )

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
                torch.nn.ModuleDict(
                    {n: distributed.bare(self.modules[n]) for n in names}
                )
            )

    def on_stage_start(self, stage, epoch=None):
        """Makes an epoch depend on seed and number only, so it can resume."""
        if stage == sb.Stage.TRAIN:
            # Each process draws for itself; the first as if it were alone.
            seed = self.hparams.seed * 100003 + epoch
            seed += distributed.rank() * 1000000007
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # transformers masks frames with it
            self.terms = self.active_terms(epoch)
            self.sums = defaultdict(lambda: torch.zeros((), device=self.device))
            self.n_batches = 0
        else:
            self.seen = []

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Logs the averages, judges what was seen in validation, saves."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": stage_loss} | {
                name: (total / self.n_batches).item()
                for name, total in self.sums.items()
            }
            if not self.is_validated:
                self.step, self.avg_train_loss = 0, 0.0
                self._log(epoch, None)
                self._save({"epoch": epoch})
        elif stage == sb.Stage.VALID:
            stats = self.judge(epoch, stage_loss)
            # Every process has judged all clips; what the main one found
            # holds for all, lest they stop at different epochs.
            stats = ddp_broadcast(stats)
            self._log(epoch, stats)
            merit = self.merit(stats, epoch)
            self._save({"epoch": epoch} | merit, max_keys=list(self.MERITS))
            if hasattr(self.hparams.epoch_counter, "update_metric"):
                self.hparams.epoch_counter.update_metric(*merit.values())

    def judge(self, epoch, loss):
        """Returns figures of what validation has seen.

        Arguments
        ---------
        epoch : int
            Which one is at its end.
        loss : float
            Mean of what :meth:`compute_objectives` gave.

        Returns
        -------
        dict
            Numbers by name.
        """
        raise NotImplementedError

    def merit(self, stats, epoch):
        """Returns the figure by which this epoch's checkpoint is kept.

        Arguments
        ---------
        stats : dict
            From :meth:`judge`.
        epoch : int
            Which one is at its end.

        Returns
        -------
        dict
            One number under one of the names in ``MERITS``.
        """
        (name,) = self.MERITS
        return {name: stats[name]}

    def _save(self, meta, **keys):
        """Saves the last checkpoint and keeps the best one.

        It comes to its place once it is whole: a run killed while it was
        written goes on from the one before.
        """
        saver, folder = self.checkpointer, self.checkpointer.checkpoints_dir
        saver.checkpoints_dir = folder / "unfinished"
        try:
            name = f"epoch_{meta['epoch']}"
            checkpoint = saver.save_checkpoint(meta, name=name)
        finally:
            saver.checkpoints_dir = folder
        if checkpoint is not None:  # of the main process
            checkpoint.path.rename(folder / checkpoint.path.name)
        ddp_barrier()
        saver.delete_checkpoints(**keys)

    def _log(self, epoch, valid_stats):
        rate = self.optimizer.param_groups[0]["lr"]
        for train_logger in self.hparams.train_loggers:
            train_logger.log_stats(
                {"epoch": epoch, "lr": rate},
                train_stats=self.train_stats,
                valid_stats=valid_stats,
            )

    def recover_best(self):
        """Loads the checkpoint that was judged best, or the last one."""
        self.checkpointer.recover_if_possible(
            max_key=self.MERITS[-1] if self.is_validated else None
        )
        self.modules.eval()
