"""CLAP's two encoders, of sound and of text, as the towers of a retriever.

"Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and
Keyword-to-Caption Augmentation" (Wu et al., 2023,
https://arxiv.org/abs/2211.06687), as transformers opens its checkpoints.

Authors
 * The esr_lobes contributors
"""

import contextlib

import torch
from torch import nn

from esr_lobes.encoders.checkpoints import load_whole, naming_damage
from esr_lobes.encoders.clap_features import ClapFeatures, open_extractor
from esr_lobes.encoders.text import TextEncoder, check_vocabulary
from esr_lobes.weights import WeightsError

# What a folder says it is: both towers, or the one that was saved alone.
TYPES = {
    "speech": ("clap", "clap_audio_model"),
    "text": ("clap", "clap_text_model"),
}


def load_tower(what, source, local_files_only=False):
    """Returns one of the towers of a checkpoint, with its projection, whole.

    Arguments
    ---------
    what : str
        ``speech`` or ``text``.
    source : str
        Folder or hub id of a CLAP, or what :meth:`ClapSpeech.save` or
        :meth:`ClapText.save` wrote.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Returns
    -------
    transformers.PreTrainedModel
        In evaluation mode, float32.

    Raises
    ------
    FileNotFoundError
        If a hub id cannot be had.
    WeightsError
        If it is damaged or not complete, or no such tower of a CLAP.
    """
    from transformers import (
        ClapAudioModelWithProjection,
        ClapConfig,
        ClapTextModelWithProjection,
    )

    options = {"local_files_only": local_files_only}
    with naming_damage(what, source):
        config, _ = ClapConfig.get_config_dict(source, **options)
    kind = config.get("model_type")
    if kind not in TYPES[what]:
        raise WeightsError(
            f"{source} is a model of type {kind!r}; the {what} tower of a "
            f"CLAP is in one of type {' or '.join(TYPES[what])}"
        )
    tower = (
        ClapTextModelWithProjection
        if what == "text"
        else ClapAudioModelWithProjection
    )
    with _quiet():
        return load_whole(tower, what, source, **options).eval()


@contextlib.contextmanager
def _quiet():
    """Lets a tower load without a list of all that is of the other one."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class ClapSpeech(nn.Module):
    """Turns clips into vectors as CLAP's audio tower does.

    Clips are brought to the rate of the checkpoint (48 kHz) and to its log-mel
    spectra. It hears ten seconds at a time: a shorter clip is repeated, as the
    checkpoint says, a longer one heard in windows, of which the mean by
    length is taken. A clip gives the same vector in any batch; to that end
    the batch norm keeps the checkpoint's statistics in training, too.

    Checkpoints that fuse several views of a long clip are not for it.

    Arguments
    ---------
    source : str
        Folder or hub id of a CLAP, such as ``laion/clap-htsat-unfused``, or
        what :meth:`save` wrote.
    is_frozen : bool
        Whether the model keeps its weights, and stays in evaluation mode
        whatever its owner does.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Raises
    ------
    FileNotFoundError
        If a hub id cannot be had.
    WeightsError
        If it is damaged or not complete, no CLAP, or one with fusion.

    Attributes
    ----------
    width : int
        Channels of a vector.

    Example
    -------
    ::

        encoder = ClapSpeech("laion/clap-htsat-unfused")
        vectors = encoder(wavs, wav_lens)  # [batch, 512]
    """

    def __init__(self, source, is_frozen=False, local_files_only=False):
        super().__init__()
        source = str(source)
        self.model = load_tower("speech", source, local_files_only)
        config = self.model.config
        if config.enable_fusion:
            raise WeightsError(
                f"{source} fuses several views of a clip: take one that does "
                "not, such as laion/clap-htsat-unfused"
            )
        with naming_damage("speech", source):
            self.extractor = open_extractor(source, local_files_only)
            self.features = ClapFeatures(self.extractor)
            self._check_fit(config)
        self.width = config.projection_dim
        self.is_frozen = is_frozen
        if is_frozen:
            self.model.requires_grad_(False)

    def _check_fit(self, config):
        """Refuses features that are not those of the model."""
        n_mels = self.features.filters.shape[1]
        n_frames = self.features.size // self.features.hop + 1
        longest = config.spec_size * (config.spec_size // config.num_mel_bins)
        if n_mels != config.num_mel_bins or n_frames > longest:
            raise ValueError(
                f"its windows have {n_frames} frames of {n_mels} bands, but "
                f"the model takes {longest} of {config.num_mel_bins}"
            )

    def train(self, mode=True):
        """Sets the mode; statistics, and a frozen model, stay as they are."""
        super().train(mode)
        if self.is_frozen:
            self.model.eval()
        self.model.audio_model.audio_encoder.batch_norm.eval()
        return self

    def forward(self, wavs, wav_lens=None):
        """Returns one vector a clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz of shape [batch, time].
        wav_lens : torch.Tensor, optional
            Relative lengths of shape [batch]; all full if not given.

        Returns
        -------
        torch.Tensor
            Float32 of shape [batch, width], not of unit length.
        """
        if wav_lens is None:
            wav_lens = wavs.new_ones(len(wavs))
        features, owners, shares = self.features(wavs, wav_lens)
        is_learning = torch.is_grad_enabled() and not self.is_frozen
        with torch.set_grad_enabled(is_learning):
            rows = self.model(input_features=features).audio_embeds.float()
            rows = rows * shares.unsqueeze(1)
            total = rows.new_zeros(len(wavs), self.width)
            return total.index_add(0, owners, rows)

    def save(self, folder):
        """Writes the tower and how its input is made, to be a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)


class ClapText(TextEncoder):
    """Turns sentences into vectors as CLAP's text tower does.

    Its projection is part of it, so that its vectors are in one space with
    those of :class:`ClapSpeech`.

    Arguments
    ---------
    source : str
        Folder or hub id of a CLAP, or what :meth:`save` wrote.
    is_frozen : bool
        Whether the model keeps its weights.
    max_tokens : int
        Longer sentences are cut.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Raises
    ------
    FileNotFoundError
        If a hub id cannot be had.
    WeightsError
        If it is damaged or not complete, or no CLAP.

    Example
    -------
    ::

        encoder = ClapText("laion/clap-htsat-unfused")
        vectors = encoder(["When was the mill built?"])  # [1, 512]
    """

    def __init__(
        self, source, is_frozen=False, max_tokens=128, local_files_only=False
    ):
        super().__init__(
            source, "first", is_frozen, max_tokens, local_files_only
        )
        self.width = self.backbone.config.projection_dim

    def _open(self, source, local_files_only):
        from transformers import AutoTokenizer

        with naming_damage("text", source):
            tokenizer = AutoTokenizer.from_pretrained(
                source,
                local_files_only=local_files_only,
                trust_remote_code=False,
            )
        tower = load_tower("text", source, local_files_only)
        check_vocabulary(tokenizer, tower, source)
        return tokenizer, tower

    def pool(self, hidden, lengths):
        """Returns the projected vectors of sentences, [batch, width].

        Arguments
        ---------
        hidden : torch.Tensor
            Last states of shape [batch, token, channel].
        lengths : torch.Tensor
            Not used: the first token stands for all.
        """
        pooled = self.backbone.text_model.pooler(hidden)
        return self.backbone.text_projection(pooled).float()
