"""Paraformer: all words of a clip recognised at once.

"Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive
End-to-End Speech Recognition" (Gao et al., 2022,
https://arxiv.org/abs/2206.08317). Modules carry the names of FunASR's, so
that the keys of a ``state_dict`` are those of its checkpoints; what is
computed differs where it says so.

Authors
 * The esr_lobes contributors
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from esr_lobes.clsr.cif import CifPredictor
from esr_lobes.clsr.decoder import SANMDecoder
from esr_lobes.clsr.encoder import SANMEncoder
from esr_lobes.clsr.frontend import Frontend, LfrMask
from esr_lobes.clsr.paraformer_config import ParaformerConfig
from esr_lobes.clsr.sampler import count_errors, glance
from esr_lobes.clsr.sanm import real_steps


@dataclasses.dataclass
class ParaformerOutput:
    """What a Paraformer says of a batch.

    Arguments
    ---------
    logits : torch.Tensor
        Of the last pass, of shape [batch, token, vocab].
    counts : torch.Tensor
        Number of real tokens, long of shape [batch]: the true one if targets
        were given, an end of sentence included where there is one.
    n_hat : torch.Tensor
        The number that the predictor comes to, of shape [batch].
    alphas : torch.Tensor
        Weights of the steps, of shape [batch, step].
    targets : torch.Tensor, optional
        What the logits should say, long of shape [batch, token], 0 where
        padded. None if no targets were given.
    errors : torch.Tensor, optional
        How many tokens of each row the first pass had wrong, [batch].
    """

    logits: torch.Tensor
    counts: torch.Tensor
    n_hat: torch.Tensor
    alphas: torch.Tensor
    targets: torch.Tensor | None = None
    errors: torch.Tensor | None = None


class Paraformer(nn.Module):
    """Recognises the tokens of clips, each as if it were alone.

    Arguments
    ---------
    frontend : Frontend
        Waveforms to stacked frames.
    encoder : SANMEncoder
        Stacked frames to steps.
    predictor : CifPredictor
        Steps to one vector a token.
    decoder : SANMDecoder
        Vectors to logits.
    augment : LfrMask, optional
        Makes holes in stacked frames in training.
    sampling_ratio : float
        Share of the first pass's errors that training shows to the second,
        see :func:`esr_lobes.clsr.sampler.glance`. 0 leaves one pass.
    predictor_bias : int
        1 if an end of sentence is a token behind the others, as in FunASR's
        models; it is added to targets here. 0 if there is none.
    blank_id, sos_id, eos_id : int, optional
        Tokens that :meth:`recognise` leaves out; None where there is none.
    masked_ids : sequence of int
        Tokens that are never said where no targets are given: their logits
        are minus infinity. Without an end of sentence, so are those of
        ``blank_id``, ``sos_id`` and ``eos_id``.
    tokens : list of str, optional
        What each id stands for; kept for :meth:`save`.

    Example
    -------
    >>> config = ParaformerConfig(vocab=20, n_mels=8, width=8, encoder_ffn=16,
    ...     encoder_layers=2, decoder_ffn=16, decoder_layers=1)
    >>> paraformer = Paraformer.from_config(config).train()
    >>> wavs, wav_lens = torch.rand(2, 8000), torch.tensor([1.0, 0.5])
    >>> targets = torch.tensor([[7, 8, 9], [5, 0, 0]])
    >>> output = paraformer(wavs, wav_lens, targets, torch.tensor([3, 1]))
    >>> output.logits.shape, output.targets.tolist()
    (torch.Size([2, 4, 20]), [[7, 8, 9, 2], [5, 2, 0, 0]])
    >>> len(paraformer.eval().recognise(wavs, wav_lens))
    2
    """

    def __init__(
        self,
        frontend,
        encoder,
        predictor,
        decoder,
        augment=None,
        sampling_ratio=0.75,
        predictor_bias=1,
        blank_id=0,
        sos_id=1,
        eos_id=2,
        masked_ids=(),
        tokens=None,
    ):
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.predictor = predictor
        self.decoder = decoder
        self.augment = augment
        self.sampling_ratio = sampling_ratio
        self.predictor_bias = predictor_bias
        self.eos_id = eos_id
        self.dropped_ids = {blank_id, sos_id, eos_id} - {None}
        self.tokens = tokens
        self.config = None
        masked = set(masked_ids)
        if not predictor_bias:
            masked |= self.dropped_ids
        is_masked = torch.zeros(decoder.vocab, dtype=torch.bool)
        is_masked[sorted(masked)] = True
        self.register_buffer("is_masked", is_masked, persistent=False)

    @classmethod
    def from_config(cls, config, cmvn=None, tokens=None, device=None):
        """Returns a Paraformer of some sizes, with random weights.

        Arguments
        ---------
        config : ParaformerConfig or dict
            The sizes.
        cmvn : (torch.Tensor, torch.Tensor), optional
            See :class:`esr_lobes.clsr.frontend.Frontend`.
        tokens : list of str, optional
            What each id stands for.
        device : torch.device, optional
            Where the weights are made; on ``meta`` none are drawn.

        Returns
        -------
        Paraformer
            The model.
        """
        if isinstance(config, dict):
            config = ParaformerConfig(**config)
        c = config
        with torch.device(device or torch.get_default_device()):
            encoder = SANMEncoder(
                c.input_size,
                c.width,
                c.encoder_heads,
                c.encoder_ffn,
                c.encoder_layers,
                c.encoder_kernel,
                c.encoder_dropout,
            )
            predictor = CifPredictor(c.width, c.tail)
            decoder = SANMDecoder(
                c.vocab,
                c.width,
                c.decoder_heads,
                c.decoder_ffn,
                c.decoder_layers,
                c.decoder_kernel,
                c.share_embedding,
                c.decoder_dropout,
            )
        model = cls(
            Frontend(c.n_mels, c.lfr_width, c.lfr_step, cmvn, c.dither),
            encoder,
            predictor,
            decoder,
            LfrMask(c.n_mels, c.max_masked_bands, c.max_masked_steps),
            c.sampling_ratio,
            c.predictor_bias,
            c.blank_id,
            c.sos_id,
            c.eos_id,
            c.masked_ids,
            tokens,
        )
        model.config = config
        return model

    def encode(self, wavs, wav_lens):
        """Returns what the encoder hears.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        memory : torch.Tensor
            Of shape [batch, step, width], 0 where padded.
        lengths : torch.Tensor
            Number of real steps, long of shape [batch].
        """
        feats, lengths = self.frontend(wavs, wav_lens)
        if self.augment is not None:
            feats = self.augment(feats, lengths)
        return self.encoder(feats, lengths), lengths

    def forward(self, wavs, wav_lens, targets=None, target_lengths=None):
        """Returns logits of each token, and how many tokens there are.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].
        targets : torch.Tensor, optional
            True tokens without an end of sentence, long of shape [batch,
            token]; anything behind the end.
        target_lengths : torch.Tensor, optional
            Number of true tokens, long of shape [batch].

        Returns
        -------
        ParaformerOutput
            With targets, of as many tokens as these; in training the second
            pass has seen some of them. Without, of as many as are heard.

        Raises
        ------
        ValueError
            If there are fewer targets than their lengths say.
        """
        memory, lengths = self.encode(wavs, wav_lens)
        if targets is None:
            acoustic, counts, alphas, n_hat = self.predictor(memory, lengths)
            logits = self.decoder(acoustic, counts, memory, lengths)
            logits = logits.masked_fill(self.is_masked, -torch.inf)
            return ParaformerOutput(logits, counts, n_hat, alphas)
        targets, counts = self._with_end(targets, target_lengths)
        acoustic, _, alphas, n_hat = self.predictor(memory, lengths, counts)
        targets = F.pad(targets, (0, acoustic.shape[1] - targets.shape[1]))
        # The first pass only shows which tokens are hard.
        is_twice = self.training and self.sampling_ratio > 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_twice):
            logits = self.decoder(acoustic, counts, memory, lengths)
        errors = count_errors(logits.argmax(dim=2), targets, counts)
        if is_twice:
            truth = self.decoder.embed_tokens(targets)
            acoustic = glance(
                acoustic, truth, errors, counts, self.sampling_ratio
            )
            logits = self.decoder(acoustic, counts, memory, lengths)
        return ParaformerOutput(logits, counts, n_hat, alphas, targets, errors)

    def _with_end(self, targets, lengths):
        """Returns targets with an end of sentence, 0 behind; their numbers."""
        longest = int(lengths.max())
        if longest > targets.shape[1]:
            raise ValueError(
                f"target_lengths has {longest}, but targets have only "
                f"{targets.shape[1]} tokens"
            )
        targets = targets[:, : max(1, longest)]
        targets = F.pad(targets, (0, self.predictor_bias))
        is_real = real_steps(lengths, targets.shape[1])
        targets = targets.masked_fill(~is_real, 0)
        if self.predictor_bias:
            targets = targets.scatter(1, lengths.unsqueeze(1), self.eos_id)
        return targets, lengths + self.predictor_bias

    @torch.no_grad()
    def recognise(self, wavs, wav_lens):
        """Returns the most likely tokens of each clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        list of list of int
            Ids without blanks, begins and ends of sentences; an empty list
            where nothing is heard.
        """
        output = self(wavs, wav_lens)
        rows = output.logits.argmax(dim=2).tolist()
        return [
            [token for token in row[:count] if token not in self.dropped_ids]
            for row, count in zip(rows, output.counts.tolist(), strict=True)
        ]

    def save(self, folder):
        """Writes sizes, weights and tokens, to be opened again.

        See :func:`esr_lobes.clsr.paraformer_files.open_paraformer`.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.

        Raises
        ------
        MendableError
            If it was built from parts, so that its sizes are not known.
        """
        from esr_lobes.clsr.paraformer_files import write_folder

        write_folder(folder, self)
