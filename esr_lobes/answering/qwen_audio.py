"""Answers from Qwen2-Audio, a language model that hears.

Chu et al. (2024), https://arxiv.org/abs/2407.10759. It comes with
transformers, which this project needs anyway; of 7 billion parameters, it
asks for a GPU of 24 GB or more.

Authors
 * The esr_lobes contributors
"""

import torch
from speechbrain.utils.logger import get_logger
from torch.nn.functional import pad

from esr_lobes.audio import SAMPLE_RATE
from esr_lobes.cascade.recogniser import cut_quietly
from esr_lobes.devices import check_device
from esr_lobes.encoders.checkpoints import (
    SAFE,
    broken,
    load_whole,
    naming_damage,
)
from esr_lobes.errors import MendableError
from esr_lobes.weights import WeightsError

logger = get_logger(__name__)

MODEL = "Qwen/Qwen2-Audio-7B-Instruct"
INSTRUCTION = "Answer with a few words of the recording and nothing else."
PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
SHORTEST = SAMPLE_RATE // 10  # less would be no token
WHAT = "answering"


class QwenAudioAnswerer:
    """Answers a question from what it hears; an answerer, see
    :mod:`esr_lobes.answering`.

    The prompt is the chat template that comes with the checkpoint, filled
    with one message of the user: the clips, then the question, a line break,
    and the instruction. Qwen2-Audio hears at most 30 s at a time: longer
    clips go to it in pieces, cut at quiet places, one audio each. What is
    more than its context holds (8,192 tokens, 25 a second of speech, about
    five minutes) is left out at the end, with a warning.

    The likeliest word is taken each time, whatever way of sampling the
    checkpoint proposes. No code that comes with it is run.

    Arguments
    ---------
    source : str
        A folder or a hub id.
    device : str
        Such as cpu, cuda or cuda:1.
    precision : str
        Of the weights: bf16, as they are published, fp32 or fp16.
    instruction : str
        What stands behind each question.
    max_new_tokens : int
        Longest answer.
    local_files_only : bool
        Whether asking a hub is forbidden.

    Attributes
    ----------
    heard_seconds : float
        Of the clips of the last question, what the context held.

    Raises
    ------
    FileNotFoundError
        If the source is no folder, and a hub does not give it.
    WeightsError
        If it is damaged, not complete, or no Qwen2-Audio.
    MendableError
        If device or precision are not to be had here.

    Example
    -------
    ::

        answerer = QwenAudioAnswerer(device="cuda")
        answerer("who built the mill?", [read("talk.flac", 760.0, 800.0)])
    """

    def __init__(
        self,
        source=MODEL,
        device="cpu",
        precision="bf16",
        instruction=INSTRUCTION,
        max_new_tokens=64,
        local_files_only=False,
    ):
        if precision not in PRECISIONS:
            raise MendableError(
                f"precision is {', '.join(PRECISIONS)}, not {precision!r}"
            )
        if max_new_tokens < 1:
            raise MendableError(
                f"max_new_tokens is {max_new_tokens}, but must be at least 1"
            )
        self.device = check_device(device, precision)
        self.source = str(source)
        self.instruction = instruction
        self.max_new_tokens = max_new_tokens
        self.heard_seconds = 0.0
        options = SAFE | {"local_files_only": local_files_only}
        self.processor = self._open_processor(options)
        self.model = self._open_model(PRECISIONS[precision], options)
        self._check_parts()
        self._decode_greedily()
        self.model.to(self.device)

    def _open_processor(self, options):
        """Returns what makes inputs of clips and text."""
        from transformers import AutoConfig, AutoProcessor

        options = {k: v for k, v in options.items() if k != "weights_only"}
        with naming_damage(WHAT, self.source):
            kind = AutoConfig.from_pretrained(self.source, **options).model_type
        if kind != "qwen2_audio":
            raise WeightsError(
                f"{self.source} is a model of the kind {kind}, not one that "
                f"hears and answers: give a Qwen2-Audio, such as {MODEL}"
            )
        with naming_damage(WHAT, self.source):
            return AutoProcessor.from_pretrained(self.source, **options)

    def _open_model(self, dtype, options):
        """Returns the model, with all its weights from the checkpoint."""
        from transformers import Qwen2AudioForConditionalGeneration

        model = load_whole(
            Qwen2AudioForConditionalGeneration,
            WHAT,
            self.source,
            dtype=dtype,
            **options,
        )
        return model.requires_grad_(False)

    def _check_parts(self):
        """Refuses files that do not belong together."""
        config, extractor = self.model.config, self.processor.feature_extractor
        n_frames = 2 * config.audio_config.max_source_positions
        table = self.model.get_input_embeddings().weight
        reason = None
        if extractor.sampling_rate != SAMPLE_RATE:
            reason = f"it hears {extractor.sampling_rate} Hz"
        elif extractor.feature_size != config.audio_config.num_mel_bins or (
            extractor.nb_max_frames != n_frames
        ):
            reason = "its preprocessor_config.json is of another model"
        elif self.processor.audio_token_id != config.audio_token_id:
            reason = "its tokenizer has another token for audio"
        elif len(self.processor.tokenizer) > len(table):
            reason = "its tokenizer has more tokens than the model"
        if reason is not None:
            raise broken(WHAT, self.source, reason)

    def _decode_greedily(self):
        """Keeps of the checkpoint's settings only when an answer ends."""
        from transformers import GenerationConfig

        given, tokenizer = (
            self.model.generation_config,
            self.processor.tokenizer,
        )
        end, fill = given.eos_token_id, given.pad_token_id
        self.model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id if end is None else end,
            pad_token_id=tokenizer.pad_token_id if fill is None else fill,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )

    @torch.no_grad()
    def __call__(self, question, clips):
        """Returns the answer to a question.

        Arguments
        ---------
        question : str
            In words.
        clips : list of torch.Tensor
            Waveforms at 16 kHz in [-1, 1], of shape [time], in the order in
            which they are heard.

        Returns
        -------
        str
            As the model writes it, without blanks around it.

        Raises
        ------
        MendableError
            If there is no question or no clip, or the question alone is more
            than the context holds.
        """
        longest = self.processor.feature_extractor.n_samples
        pieces = [
            pad(piece, (0, max(0, SHORTEST - len(piece))))
            for clip in clips
            for piece in cut_quietly(clip.float().cpu(), longest)
        ]
        if not question.strip() or not pieces:
            raise MendableError("give a question, and a clip that answers it")
        pieces, prompt = self._fitting(question, pieces)
        inputs = self.processor(
            text=[prompt],
            audio=[piece.numpy() for piece in pieces],
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
        ).to(self.device)
        ids = self.model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.decode(
            ids, skip_special_tokens=True
        ).strip()

    def _fitting(self, question, pieces):
        """Returns the pieces that the context holds, and the prompt."""
        n_all = sum(map(len, pieces)) / SAMPLE_RATE
        room = self.model.config.text_config.max_position_embeddings
        room -= self.max_new_tokens
        pieces = list(pieces)
        while pieces:
            prompt = self.prompt(question, len(pieces))
            if self.count_tokens(prompt, pieces) <= room:
                break
            pieces.pop()
        else:
            raise MendableError(
                f"the question is too long for {self.source}: it takes {room} "
                "tokens, and one piece of speech has to find room as well"
            )
        self.heard_seconds = sum(map(len, pieces)) / SAMPLE_RATE
        if self.heard_seconds < n_all:
            logger.warning(
                f"{self.source} heard the first {self.heard_seconds:.0f} of "
                f"{n_all:.0f} s: its context holds no more"
            )
        return pieces, prompt

    def prompt(self, question, n_audios):
        """Returns what the model is asked, as text.

        Arguments
        ---------
        question : str
            In words; what means something else to the model, such as
            ``<|im_end|>``, is left out.
        n_audios : int
            Pieces of speech.

        Returns
        -------
        str
            With one mark for each piece.
        """
        for token in self.processor.tokenizer.all_special_tokens:
            question = question.replace(token, " ")
        text = f"{question.strip()}\n{self.instruction}"
        audios = [{"type": "audio"}] * n_audios
        content = [*audios, {"type": "text", "text": text}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=False,
        )

    def count_tokens(self, prompt, pieces):
        """Returns how many tokens a prompt and its pieces of speech are.

        Arguments
        ---------
        prompt : str
            With one mark for each piece.
        pieces : list of torch.Tensor
            Waveforms of shape [time].

        Returns
        -------
        int
            Before an answer.
        """
        n_tokens = len(self.processor.tokenizer(prompt)["input_ids"])
        hop = self.processor.feature_extractor.hop_length
        for piece in pieces:
            n_frames = -(-len(piece) // hop)
            # Of two frames one, of two of these one; a mark stood for them.
            n_tokens += ((n_frames - 1) // 2 - 1) // 2 + 1 - 1
        return n_tokens
