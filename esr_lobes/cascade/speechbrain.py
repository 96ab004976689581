"""Any recogniser of SpeechBrain that transcribes clips.

Authors
 * The esr_lobes contributors
"""

import os

import torch

from esr_lobes.cascade.recogniser import Recogniser
from esr_lobes.errors import MendableError

INTERFACES = ("EncoderASR", "EncoderDecoderASR")


class SpeechBrainRecogniser(Recogniser):
    """Writes down speech with a recogniser of SpeechBrain.

    SpeechBrain's pages can run any code, and its checkpoints may be pickles:
    take only what comes from authors whose programs you would run. For the
    same reason a retriever with such a recogniser opens with
    ``trust_source=True`` only, and has the recogniser's place on its page
    instead of bringing it along.

    Clips are heard one after the other, since recognisers differ in what
    they make of padding.

    Arguments
    ---------
    source : str
        A folder, or a hub id like ``speechbrain/asr-crdnn-rnnlm-librispeech``.
    interface : str
        The class of ``speechbrain.inference.ASR`` that the source is for:
        ``EncoderASR`` (CTC) or ``EncoderDecoderASR``.

    Raises
    ------
    MendableError
        If there is no such interface here.

    Example
    -------
    >>> SpeechBrainRecogniser("anywhere", "WhisperASR")
    Traceback (most recent call last):
    esr_lobes.errors.MendableError: interface is EncoderASR or \
EncoderDecoderASR, not 'WhisperASR'
    """

    def __init__(self, source, interface="EncoderDecoderASR"):
        if interface not in INTERFACES:
            raise MendableError(
                f"interface is {' or '.join(INTERFACES)}, not {interface!r}"
            )
        from speechbrain.inference import ASR

        super().__init__({"interface": interface})
        self.source, self.interface = str(source), interface
        if os.path.isdir(self.source):
            self.source = os.path.abspath(self.source)
        self.model = getattr(ASR, interface).from_hparams(source=self.source)

    def arguments(self, source):
        """Returns the arguments that open it where it is."""
        return {"source": self.source, "interface": self.interface}

    def transcribe_clips(self, clips):
        """Returns the words of clips, as the model writes them."""
        whole = torch.ones(1)
        words = []
        for clip in clips:
            # It moves clips to where it was opened, not to where it is.
            self.model.device = str(clip.device)
            texts, _ = self.model.transcribe_batch(clip[None], whole)
            words.append(str(texts[0]))
        return words
