"""Any recogniser of transformers: Whisper, wav2vec 2.0 with CTC, ...

Authors
 * The esr_lobes contributors
"""

import torch
from torch.nn.functional import pad

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.cascade.recogniser import Recogniser, cut_quietly
from esr_lobes.encoders.checkpoints import load_whole, naming_damage
from esr_lobes.weights import WeightsError

# Shorter clips have silence behind them: no model hears a frame in less.
SHORTEST = SAMPLE_RATE // 10
MOST_SECONDS = 60.0  # a Whisper fills up with silence to what it hears at once


class HuggingFaceRecogniser(Recogniser):
    """Writes down speech with a model of transformers.

    What the checkpoint is, its config says: a model with a decoder (Whisper,
    Speech2Text, ...) writes the words one by one, the likeliest each time;
    one without has CTC (wav2vec 2.0, HuBERT, ...), of which the likeliest
    path is taken.

    A clip gives the same words in any batch. Whisper hears 30 s at a time,
    with silence behind what is shorter, so that clips go side by side; longer
    ones are cut at a quiet place and the words joined. Other models look at
    the padding in one way or another (a group norm over time, a mean of the
    samples): they hear one clip after the other.

    No code that comes with a checkpoint is run.

    Arguments
    ---------
    source : str
        A folder, or a hub id like ``openai/whisper-small``.
    language : str, optional
        What is spoken, such as ``en``, for a Whisper of many languages;
        without it, each clip is asked which it is.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Raises
    ------
    FileNotFoundError
        If the source is no folder, and a hub does not give it.
    WeightsError
        If it is damaged, not complete, no recogniser, or not for 16 kHz.

    Example
    -------
    ::

        recogniser = HuggingFaceRecogniser("openai/whisper-small", "en")
        recogniser.transcribe(wavs, wav_lens)
    """

    def __init__(self, source, language=None, local_files_only=False):
        from transformers import (
            AutoConfig,
            AutoFeatureExtractor,
            AutoModelForCTC,
            AutoModelForSpeechSeq2Seq,
            AutoTokenizer,
            WhisperFeatureExtractor,
        )

        super().__init__({"language": language})
        source = str(source)
        options = {"local_files_only": local_files_only}
        safe = options | {"trust_remote_code": False}
        with naming_damage("speech", source):
            config = AutoConfig.from_pretrained(source, **safe)
            self.extractor = AutoFeatureExtractor.from_pretrained(
                source, **safe
            )
            self.tokenizer = AutoTokenizer.from_pretrained(source, **safe)
        if self.extractor.sampling_rate != SAMPLE_RATE:
            raise WeightsError(
                f"{source} hears {self.extractor.sampling_rate} Hz, not "
                f"{SAMPLE_RATE}"
            )
        self.has_decoder = bool(config.is_encoder_decoder)
        # Part of SpecAugment, which only training uses.
        mask = f"{config.model_type.replace('-', '_')}.masked_spec_embed"
        self.model = load_whole(
            AutoModelForSpeechSeq2Seq if self.has_decoder else AutoModelForCTC,
            "speech",
            source,
            unused=(mask,),
            config=config,
            **options,
        ).eval()
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                if name == mask:
                    weight.zero_()  # drawn at random where it is missing
        self.model.requires_grad_(False)
        self.language = language
        self._is_whisper = isinstance(self.extractor, WhisperFeatureExtractor)
        if self._is_whisper:
            self.longest_seconds = float(self.extractor.chunk_length)
            if not 1 <= self.longest_seconds <= MOST_SECONDS:
                raise WeightsError(
                    f"{source} hears {self.longest_seconds} s at a time, not "
                    f"1 to {MOST_SECONDS} s as a Whisper does"
                )

    def arguments(self, source):
        """Returns the arguments that open what :meth:`save` wrote."""
        return {
            "source": source,
            "language": self.language,
            "local_files_only": True,
        }

    def save(self, folder):
        """Writes the model and what belongs to it, to be a ``source``."""
        for part in self.model, self.extractor, self.tokenizer:
            part.save_pretrained(folder)

    def transcribe_clips(self, clips):
        """Returns the words of clips, as the model writes them."""
        if not self._is_whisper:
            return [self._recognise([clip])[0] for clip in clips]
        longest = int(self.longest_seconds * SAMPLE_RATE)
        clips = [cut_quietly(clip, longest) for clip in clips]
        texts = iter(self._recognise([p for pieces in clips for p in pieces]))
        return [
            " ".join(next(texts).strip() for _ in pieces) for pieces in clips
        ]

    def _recognise(self, waves):
        """Returns the words of waveforms; Whisper alone takes several."""
        inputs = [self._inputs(wave) for wave in waves]
        inputs = {
            name: torch.cat([each[name] for each in inputs]).to(
                self.model.device
            )
            for name in inputs[0]
        }
        if self.has_decoder:
            options = {}
            if self.language is not None:
                options = {"language": self.language, "task": "transcribe"}
            ids = self.model.generate(
                **inputs, do_sample=False, num_beams=1, **options
            )
        else:
            ids = self.model(**inputs).logits.argmax(dim=-1)
        return [
            self.tokenizer.decode(row, skip_special_tokens=True)
            for row in ids.cpu()
        ]

    def _inputs(self, wave):
        """Returns what the model takes, of one waveform by itself."""
        wave = pad(wave.cpu(), (0, max(0, SHORTEST - len(wave))))
        # Whisper needs no mask, but would say at every call that it has none.
        options = {"return_attention_mask": True} if self._is_whisper else {}
        # It turns tensors into arrays, for which there is no bfloat16.
        with torch.autocast("cpu", enabled=False):
            return self.extractor(
                wave.numpy(),
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
                **options,
            )
