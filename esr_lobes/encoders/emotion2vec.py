"""emotion2vec: speech heard for its emotion, as a lobe of its own.

"emotion2vec: Self-Supervised Pre-Training for Speech Emotion Representation"
(Ma et al., 2023, https://arxiv.org/abs/2312.15185). Modules carry the names
of FunASR's, so that the keys of a ``state_dict`` are the keys of the published
checkpoints; what is computed differs where it says so.

Authors
 * The esr_lobes contributors
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from esr_lobes.encoders.emotion2vec_config import (
    Emotion2vecConfig,
    read_config,
)
from esr_lobes.encoders.emotion2vec_files import (
    find_files,
    find_folder,
    read_weights,
    write_folder,
)
from esr_lobes.encoders.emotion2vec_layers import (
    AudioEncoder,
    Block,
    dropout,
    init_linear,
)
from esr_lobes.pooling import masked_mean
from esr_lobes.weights import WeightsError, misfit

WAV_EPS = 1e-5


class Emotion2vec(nn.Module):
    """Turns clips into frames, or one vector each, with emotion2vec.

    A clip gives the same whatever it shares a batch with. Norms and the sums
    between blocks stay float32 under autocast. Sizes are those that the
    checkpoint's ``config.yaml`` states, else those of the base model.

    Arguments
    ---------
    source : str
        A folder, or a hub id such as ``emotion2vec/emotion2vec_base``. The
        folder may be as :meth:`save` writes it, as FunASR downloads it, or
        hold a checkpoint of fairseq. None draws weights at random, in the
        size of the base model.
    is_frozen : bool
        Whether it keeps its weights, and stays in evaluation mode.
    normalize_wav : bool
        Whether each clip is brought to mean 0 and variance 1, as in
        pretraining. The code of Kang & Roy (2025) leaves it out, so that
        what they released needs False. A ``normalize`` in the checkpoint's
        ``config.yaml`` is not asked.
    gradient_checkpointing : bool
        Whether training computes twice rather than keep all in memory.
    dropout : float
        Share of values that training blanks: of attention, its projection,
        the linear layers, and the tokens before the first block.
    layerdrop : float
        How often training leaves a block out. Processes of a distributed
        training draw each for themselves: set ``find_unused_parameters``.
    local_files_only : bool
        Whether asking a hub is forbidden.
    trust_pickle : bool
        Whether a checkpoint may run the code that it holds.

    Raises
    ------
    FileNotFoundError
        If the source is no folder, and a hub does not give it.
    WeightsError
        If the checkpoint is damaged, or not exactly of its sizes.

    Example
    -------
    >>> config = Emotion2vecConfig(embed_dim=24, depth=1, prenet_depth=1,
    ...     conv_layers=((8, 10, 5), (8, 3, 2)), conv_pos_groups=4)
    >>> encoder = Emotion2vec.from_config(config).eval()
    >>> wavs, wav_lens = torch.rand(2, 160), torch.tensor([1.0, 0.5])
    >>> x, lengths = encoder.frames(wavs, wav_lens)
    >>> x.shape, (lengths * x.shape[1]).tolist()
    (torch.Size([2, 15, 24]), [15.0, 7.0])
    >>> encoder(wavs, wav_lens).shape
    torch.Size([2, 24])
    """

    def __init__(
        self,
        source=None,
        is_frozen=False,
        normalize_wav=True,
        gradient_checkpointing=False,
        dropout=0.1,
        layerdrop=0.05,
        local_files_only=False,
        trust_pickle=False,
    ):
        super().__init__()
        is_random = source is None or isinstance(source, Emotion2vecConfig)
        # Who opens a retriever asks where its weights are from.
        self.source = None if is_random else str(source)
        if is_random:
            self.config = source or Emotion2vecConfig()
            self._build(dropout)
            self.apply(init_linear)
        else:
            folder = find_folder(source, local_files_only)
            config, path = find_files(folder)
            self.config = read_config(config)
            with torch.device("meta"):  # no memory, and nothing is drawn
                self._build(dropout)
            weights = read_weights(path, trust_pickle)
            if faults := misfit(weights, self.state_dict()):
                raise WeightsError(
                    f"{path} does not fill an emotion2vec encoder of the "
                    "sizes that its config.yaml states, or of the base "
                    f"model: {faults}"
                )
            self.load_state_dict(weights, assign=True)
        self.width = self.config.embed_dim
        self.is_frozen = is_frozen
        self.normalize_wav = normalize_wav
        self.gradient_checkpointing = gradient_checkpointing
        self.dropout = dropout
        self.layerdrop = layerdrop
        if is_frozen:
            self.requires_grad_(False)
            self.eval()

    @classmethod
    def from_config(cls, config, **options):
        """Returns an encoder of other sizes, with random weights.

        Arguments
        ---------
        config : Emotion2vecConfig
            The sizes.
        **options
            As of the class.

        Returns
        -------
        Emotion2vec
            The encoder.
        """
        return cls(config, **options)

    def _build(self, share):
        self.modality_encoders = nn.ModuleDict(
            {"AUDIO": AudioEncoder(self.config, share)}
        )
        self.blocks = nn.ModuleList(
            Block(self.config, share) for _ in range(self.config.depth)
        )

    def train(self, mode=True):
        """Sets the mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.is_frozen)

    def _grad(self):
        """Returns a context in which a frozen encoder records nothing."""
        return torch.set_grad_enabled(
            torch.is_grad_enabled() and not self.is_frozen
        )

    def _run(self, function, *args):
        """Calls a function, keeping nothing inside it if so asked."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def _prepare(self, wavs, wav_lens):
        """Returns clips as they are heard, and how many frames each has.

        A clip shorter than a frame is heard with silence behind it.
        """
        shortest = self.config.min_samples
        n_samples = (wav_lens * wavs.shape[1]).round().long().clamp(min=1)
        wavs = self._wavs(wavs.float(), n_samples.unsqueeze(1))
        wavs = F.pad(wavs, (0, max(0, shortest - wavs.shape[1])))
        n_frames = [
            self.config.n_frames(max(n, shortest)) for n in n_samples.tolist()
        ]
        return wavs, n_frames

    def _wavs(self, wavs, n_samples):
        """Returns clips, each as it would be alone, 0 behind its end."""
        place = torch.arange(wavs.shape[1], device=wavs.device)
        is_padded = place >= n_samples
        wavs = wavs.masked_fill(is_padded, 0.0)
        if not self.normalize_wav:
            return wavs
        wavs = wavs - wavs.sum(dim=1, keepdim=True) / n_samples
        wavs = wavs.masked_fill(is_padded, 0.0)
        variance = (wavs * wavs).sum(dim=1, keepdim=True) / n_samples
        return wavs * (variance + WAV_EPS).rsqrt()

    def _encode(self, wavs, wav_lens):
        """Returns tokens, what the main blocks' linear layers said, frames.

        The tokens are the extra ones and all frames; the last result says
        how many of these are real, a list.
        """
        audio = self.modality_encoders["AUDIO"]
        wavs, n_frames = self._prepare(wavs, wav_lens)
        total = self.config.n_frames(wavs.shape[1])
        is_padded = None  # one bias will do for all rows
        if min(n_frames) < total:
            is_padded = ~self._mask(n_frames, total, wavs.device)
        x = audio.local_encoder(wavs, self._run)
        x = audio.project_features(x[:, :total])
        bias = audio.bias(x, is_padded)
        x = x + audio.positions(x, is_padded)
        tokens = audio.extra_tokens.expand(len(x), -1, -1)
        x = audio.context_encoder["norm"](torch.cat([tokens, x.float()], dim=1))
        x = dropout(x, self.dropout, self.training)
        said = []
        prenet = audio.context_encoder["blocks"]
        for i, block in enumerate((*prenet, *self.blocks)):
            if self.training and torch.rand(()) < self.layerdrop:
                continue
            x, y = self._run(block, x, bias)
            if i >= len(prenet):
                said.append(y)
        return x, said, n_frames

    @staticmethod
    def _mask(n_frames, total, device):
        """Returns True where a frame is real, [batch, frames]."""
        n_frames = torch.tensor(n_frames, device=device)
        return torch.arange(total, device=device) < n_frames.unsqueeze(1)

    def _frames_of(self, tokens, n_frames):
        """Returns tokens without the extra ones, 0 where padded."""
        x = tokens[:, self.config.num_extra_tokens :].float()
        if min(n_frames) == x.shape[1]:
            return x
        mask = self._mask(n_frames, x.shape[1], x.device)
        return x.masked_fill(~mask.unsqueeze(-1), 0.0)

    def frames(self, wavs, wav_lens):
        """Returns a vector for every 20 ms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        x : torch.Tensor
            Of shape [batch, frames, width], 0 where padded.
        lengths : torch.Tensor
            Relative lengths of shape [batch].
        """
        with self._grad():
            x, _, n_frames = self._encode(wavs, wav_lens)
            x = self._frames_of(x, n_frames)
        return x, torch.tensor(n_frames, device=x.device) / x.shape[1]

    def layers(self, wavs, wav_lens):
        """Returns what each main block adds: the output of its linear layers.

        As FunASR's ``layer_results``: before the sum and the norm that follow.
        Call it in evaluation mode: training leaves blocks out.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        layers : list of torch.Tensor
            One of shape [batch, frames, width] a block, 0 where padded.
        lengths : torch.Tensor
            Relative lengths of shape [batch].
        """
        with self._grad():
            x, said, n_frames = self._encode(wavs, wav_lens)
            said = [self._frames_of(y, n_frames) for y in said]
        total = x.shape[1] - self.config.num_extra_tokens
        return said, torch.tensor(n_frames, device=x.device) / total

    def forward(self, wavs, wav_lens):
        """Returns one vector a clip, the mean of its frames.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        torch.Tensor
            Of shape [batch, width].
        """
        return masked_mean(*self.frames(wavs, wav_lens))

    def save(self, folder):
        """Writes sizes and weights, to be a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        write_folder(folder, self.config, self.state_dict())
