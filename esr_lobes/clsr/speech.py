"""The speech sides of CLSR and of ParaBGE: built by a page, saved, opened.

Authors
 * The esr_lobes contributors
"""

import torch
from torch import nn

from esr_lobes.clsr.clsr import ClsrEncoder
from esr_lobes.clsr.paraformer import Paraformer
from esr_lobes.clsr.paraformer_config import ParaformerConfig
from esr_lobes.clsr.paraformer_files import open_paraformer
from esr_lobes.clsr.spelling import spelled_rows
from esr_lobes.clsr.text_bridge import TextBridge
from esr_lobes.clsr.vocabulary import Vocabulary
from esr_lobes.clsr.vq import VQAdaptor
from esr_lobes.pooling import masked_mean

# A feature that is the same everywhere is not blown up.
LEAST_DEVIATION = 1e-3


def make_recogniser(
    text_encoder, sizes, source=None, sampling_ratio=0.75, spelling_scale=0.0
):
    """Returns a Paraformer that speaks the words of a text encoder.

    It has no end of sentence: the number of words is that of its predictor.

    Arguments
    ---------
    text_encoder : TextEncoder
        Of BERT's kind; its word pieces are the tokens.
    sizes : dict
        Fields of :class:`~esr_lobes.clsr.paraformer_config.ParaformerConfig`
        for a new one, which has random weights. Of an opened one they are
        what they are.
    source : str, optional
        Folder of one to begin with, see
        :func:`esr_lobes.clsr.paraformer_files.open_paraformer`. If it speaks
        other words, what has a row a word is made anew.
    sampling_ratio : float
        Share of the first pass's errors that training shows to the second;
        0: no sampler.
    spelling_scale : float
        Norm of the first weights of a new output layer, which are alike for
        words that are spelled alike, see
        :func:`esr_lobes.clsr.spelling.spelled_rows`; 0: drawn at random.

    Returns
    -------
    Paraformer
        Ready to be trained.
    """
    table = text_encoder.backbone.get_input_embeddings().weight
    vocabulary = Vocabulary(text_encoder.tokenizer, len(table))
    tokens = list_tokens(vocabulary)
    fixed = {
        "share_embedding": True,
        "sampling_ratio": float(sampling_ratio),
        "masked_ids": vocabulary.banned_ids,
    }
    if source is not None:
        return open_paraformer(source, tokens, **fixed)
    without_end = dict.fromkeys(("blank_id", "sos_id", "eos_id"))
    without_end["predictor_bias"] = 0
    config = ParaformerConfig(
        **{**sizes, "vocab": len(vocabulary), **fixed, **without_end}
    )
    paraformer = Paraformer.from_config(config, tokens=tokens)
    if spelling_scale:
        rows = spelled_rows(tokens, config.width, spelling_scale)
        with torch.no_grad():
            paraformer.decoder.output_layer.weight.copy_(rows)
    return paraformer


def list_tokens(vocabulary):
    """Returns the word pieces by id, also where a row has none.

    Arguments
    ---------
    vocabulary : Vocabulary
        Of a text encoder.

    Returns
    -------
    list of str
        All different.
    """
    known = vocabulary.tokenizer.get_vocab()
    names = {i: word for word, i in known.items()}
    return [names.get(i, f"[row {i}]") for i in range(len(vocabulary))]


@torch.no_grad()
def measure_cmvn(frontend, waves):
    """Sets what makes the features of some clips have mean 0 and spread 1.

    Arguments
    ---------
    frontend : Frontend
        Changed: its ``shift`` and ``scale``.
    waves : iterable of torch.Tensor
        Clips at 16 kHz, each of shape [time].
    """
    frontend.shift.zero_()
    frontend.scale.fill_(1.0)
    total = torch.zeros(3, frontend.width, dtype=torch.float64)
    for wave in waves:
        wave = wave.to(frontend.shift.device).unsqueeze(0)
        feats, _ = frontend(wave, torch.ones(1, device=wave.device))
        feats = feats[0].double().cpu()
        total += torch.stack(
            [torch.ones_like(feats[0]) * len(feats)]
            + [feats.sum(dim=0), feats.square().sum(dim=0)]
        )
    count, first, second = total
    mean = first / count
    deviation = (second / count - mean.square()).clamp(min=0).sqrt()
    frontend.shift.copy_(-mean)
    frontend.scale.copy_(1 / deviation.clamp(min=LEAST_DEVIATION))


class ClsrSpeech(ClsrEncoder):
    """CLSR's speech side, as a retriever's page opens it.

    Both towers end in the same text encoder: the page gives it to both, and
    it is saved once, apart.

    Arguments
    ---------
    source : str or Paraformer
        The folder of the recogniser, or the recogniser itself.
    text_encoder : TextEncoder
        That of the text tower.
    is_hard : bool
        Whether the text encoder reads words; else mixtures of them, which is
        CLSR without its VQ.
    vq_temperature, vq_takes
        Of those mixtures, see :class:`~esr_lobes.clsr.vq.VQAdaptor`.
    vq : VQAdaptor, optional
        In place of a new one that has these values.
    """

    def __init__(
        self,
        source,
        text_encoder,
        is_hard=True,
        vq_temperature=0.1,
        vq_takes="logits",
        vq=None,
    ):
        if vq is None:
            vq = VQAdaptor(vq_temperature, vq_takes, is_hard=is_hard)
        super().__init__(_opened(source), vq, TextBridge(text_encoder))
        self.source = _folder(source)

    def save(self, folder):
        """Writes the recogniser, to be a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        self.paraformer.save(folder)


class PooledParaformer(nn.Module):
    """Paraformer's encoder, of which the mean over time is a clip's vector.

    The speech side of ParaBGE: the parts of CLSR as a plain dual encoder,
    which knows no words.

    Arguments
    ---------
    source : str or Paraformer
        A folder, or the recogniser itself. Only its encoder is used.

    Attributes
    ----------
    width : int
        Channels of a vector.
    """

    def __init__(self, source):
        super().__init__()
        self.paraformer = _opened(source)
        self.source = _folder(source)
        self.width = self.paraformer.config.width

    def forward(self, wavs, wav_lens):
        """Returns one vector a clip.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [batch, time].
        wav_lens : torch.Tensor
            Relative lengths of shape [batch].

        Returns
        -------
        torch.Tensor
            Of shape [batch, width], not of unit length.
        """
        memory, lengths = self.paraformer.encode(wavs, wav_lens)
        return masked_mean(memory.float(), lengths / memory.shape[1])

    def save(self, folder):
        """Writes the recogniser, to be a ``source``.

        Arguments
        ---------
        folder : str
            Where to; made if it is not there.
        """
        self.paraformer.save(folder)


def _opened(source):
    """Returns a Paraformer, of a folder or as given."""
    return source if isinstance(source, Paraformer) else open_paraformer(source)


def _folder(source):
    """Returns the folder that a page names, if it does."""
    return None if isinstance(source, Paraformer) else str(source)
