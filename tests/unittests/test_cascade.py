"""Cascades: words of tiny random recognisers, and of a real one.

Authors
 * The esr_lobes contributors
"""

import json
import shutil
import sys
import threading

import pytest
import soundfile
import torch
from tiny_recognisers import (
    make_tiny_ctc,
    make_tiny_speechbrain,
    make_tiny_whisper,
)

from esr_lobes import EncoderRetriever, cli
from esr_lobes.audio import SAMPLE_RATE, read
from esr_lobes.batches import as_batch
from esr_lobes.cascade.encoder import CascadeEncoder
from esr_lobes.cascade.huggingface import HuggingFaceRecogniser
from esr_lobes.cascade.pocketsphinx import PocketSphinx
from esr_lobes.cascade.recogniser import PAUSE, Recogniser, cut_quietly
from esr_lobes.cascade.speechbrain import SpeechBrainRecogniser
from esr_lobes.cascading import make_cascade, open_recogniser, write_cascade
from esr_lobes.encoders.text import TextEncoder
from esr_lobes.errors import MendableError
from esr_lobes.safety import UnsafePageError
from esr_lobes.searching import open_index
from esr_lobes.weights import WeightsError

MAKERS = {
    "whisper": make_tiny_whisper,
    "ctc": make_tiny_ctc,
    "speechbrain": make_tiny_speechbrain,
}
DOGS = "ravdess/Actor_01/03-01-02-02-02-01-01.flac"
KIDS = "ravdess/Actor_01/03-01-02-01-01-02-01.flac"


class Counting(Recogniser):
    """Says how long it was heard; of less than 100 samples nothing."""

    def transcribe_clips(self, clips):
        counts = [sum(clip.shape) for clip in clips]
        return [f" A  VOICE SAD{n} " if n > 99 else " " for n in counts]

    def arguments(self, source):
        return {}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A function from a kind to the folder of a tiny recogniser."""
    root = tmp_path_factory.mktemp("recognisers")

    def folder_of(kind):
        folder = root / kind
        return folder if folder.exists() else MAKERS[kind](folder)

    return folder_of


@pytest.fixture(scope="module")
def text_encoder(tiny_text_backbone):
    return TextEncoder(tiny_text_backbone, local_files_only=True)


def babble(seconds, seed=0):
    """Returns tones that change every tenth of a second."""
    generator = torch.Generator().manual_seed(seed)
    n_samples = max(1, round(seconds * SAMPLE_RATE))
    n_tones = -(-n_samples // 1600)
    hertz = 200 + 3000 * torch.rand(n_tones, 1, generator=generator)
    level = torch.rand(n_tones, 1, generator=generator)
    time = torch.arange(1600) / SAMPLE_RATE
    tones = level * torch.sin(2 * torch.pi * hertz * time)
    return tones.flatten()[:n_samples]


def clips():
    """Returns clips from one second to one sample."""
    seconds = (1.0, 0.55, 0.25, 0.1, 0.0)
    return [babble(s, seed) for seed, s in enumerate(seconds)]


def hear(recogniser, waves):
    """Returns the words of waves that go through a batch."""
    return recogniser.transcribe(*as_batch(waves))


# What all have in common


def test_only_what_is_no_padding_is_heard():
    heard = hear(
        Counting({}), [torch.ones(100), torch.ones(8), torch.ones(999)]
    )
    assert heard == ["a voice sad100", "", "a voice sad999"]


def test_pieces_are_the_clip_and_cut_where_it_is_quiet():
    torch.manual_seed(0)
    wave = torch.randn(100_000)
    quiet = [21_000, 50_000, 70_000]
    for start in quiet:
        wave[start : start + 2 * PAUSE] *= 0.01
    pieces = cut_quietly(wave, 32_000)
    assert torch.equal(torch.cat(pieces), wave)
    assert max(map(len, pieces)) <= 32_000
    cuts = torch.tensor([len(p) for p in pieces]).cumsum(0)[:-1]
    for cut in cuts.tolist():
        assert any(0 <= cut - start <= 2 * PAUSE for start in quiet)
    assert cut_quietly(wave[:32_000], 32_000)[0].shape == (32_000,)


def test_a_cascade_reads_what_it_hears(text_encoder):
    cascade = CascadeEncoder(Counting({}), text_encoder)
    wavs, wav_lens = as_batch([torch.ones(100), torch.ones(8)])
    rows = cascade(wavs, wav_lens)
    assert rows.shape == (2, cascade.width) == (2, 32)
    assert torch.equal(rows, text_encoder(["a voice sad100", ""]))
    assert rows[1].norm() > 0  # nothing was said, but it has a place
    assert torch.equal(cascade(wavs[:1]), text_encoder(["a voice sad100"]))


def test_training_leaves_the_recogniser_as_it_is(text_encoder, tiny):
    recogniser = HuggingFaceRecogniser(tiny("ctc"))
    CascadeEncoder(recogniser, text_encoder).train()
    assert not any(module.training for module in recogniser.modules())


def test_parts_of_another_kind_are_refused(text_encoder):
    with pytest.raises(TypeError, match="TextEncoder, not of Identity"):
        CascadeEncoder(Counting({}), torch.nn.Identity())
    with pytest.raises(TypeError, match="not of str"):
        CascadeEncoder("pocketsphinx", text_encoder)


# Recognisers of transformers and SpeechBrain


@pytest.mark.parametrize("kind", MAKERS)
def test_a_clip_alone_has_the_words_it_has_in_a_batch(kind, tiny):
    name = {"speechbrain": "EncoderASR:"}.get(kind, "") + str(tiny(kind))
    recogniser = open_recogniser(name)
    together = hear(recogniser, clips())
    assert together == [hear(recogniser, [clip])[0] for clip in clips()]
    assert len(set(together)) > 2, together
    assert hear(recogniser, clips()[::-1]) == together[::-1]


def test_the_words_are_those_of_transformers(tiny):
    from transformers import (
        AutoFeatureExtractor,
        AutoModelForCTC,
        AutoModelForSpeechSeq2Seq,
        AutoTokenizer,
    )

    for kind, auto in (
        ("whisper", AutoModelForSpeechSeq2Seq),
        ("ctc", AutoModelForCTC),
    ):
        folder = tiny(kind)
        model = auto.from_pretrained(folder).eval()
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        recogniser = HuggingFaceRecogniser(folder)
        for clip in clips()[:3]:
            inputs = extractor(
                clip.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt"
            )
            with torch.no_grad():
                if kind == "ctc":
                    ids = model(**inputs).logits.argmax(-1)
                else:
                    ids = model.generate(**inputs)
            wanted = tokenizer.batch_decode(ids, skip_special_tokens=True)
            assert recogniser.transcribe_clips([clip]) == wanted


def test_a_padded_batch_would_change_the_words_of_ctc(tiny):
    """Why clips are heard one by one: the group norm hears the padding."""
    recogniser = HuggingFaceRecogniser(tiny("ctc"))
    wavs, wav_lens = as_batch(clips()[:3])
    inputs = recogniser.extractor(
        wavs.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt"
    )
    ids = recogniser.model(**inputs).logits.argmax(-1)
    n_frames = (wav_lens * ids.shape[1]).round().long()
    padded = [
        recogniser.tokenizer.decode(row[:n])
        for row, n in zip(ids, n_frames, strict=True)
    ]
    assert padded[1:] != recogniser.transcribe_clips(clips()[1:3])


def test_whisper_hears_all_of_a_long_clip(tiny):
    recogniser = HuggingFaceRecogniser(tiny("whisper"))
    assert recogniser.longest_seconds == 30.0
    wave = babble(40.0)
    wave[25 * SAMPLE_RATE : 26 * SAMPLE_RATE] = 0.0
    (text,) = recogniser.transcribe_clips([wave])
    pieces = cut_quietly(wave, 30 * SAMPLE_RATE)
    assert len(pieces) == 2 and 25 < len(pieces[0]) / SAMPLE_RATE < 26
    assert text == " ".join(recogniser.transcribe_clips(pieces))
    assert len(text.split()) > 7  # more than one piece says


def test_what_is_saved_is_the_same_recogniser(tiny, tmp_path):
    for kind in "whisper", "ctc":
        first = HuggingFaceRecogniser(tiny(kind))
        first.save(tmp_path / kind)
        again = HuggingFaceRecogniser(**first.arguments(str(tmp_path / kind)))
        assert hear(again, clips()) == hear(first, clips())


def test_a_model_that_writes_nothing_is_refused(tiny_backbone, tmp_path, tiny):
    folder = tmp_path / "model"
    shutil.copytree(tiny("ctc"), folder)
    shutil.copy(tiny_backbone("wav2vec2") / "model.safetensors", folder)
    with pytest.raises(WeightsError, match="weights are missing"):
        HuggingFaceRecogniser(folder)
    with pytest.raises(FileNotFoundError, match="nobody/nothing"):
        HuggingFaceRecogniser("nobody/nothing", local_files_only=True)
    shutil.copytree(tiny("ctc"), folder, dirs_exist_ok=True)
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("16000", "8000"))
    with pytest.raises(WeightsError, match="hears 8000 Hz"):
        HuggingFaceRecogniser(folder)


@pytest.mark.parametrize("seconds", [0, 100_000])
def test_a_whisper_of_odd_length_is_refused(seconds, tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny("whisper"), folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"chunk_length": seconds}
    path.write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="at a time"):
        HuggingFaceRecogniser(folder)


def test_a_mask_that_a_checkpoint_lacks_is_not_drawn_at_random(tiny, tmp_path):
    """It is part of the fingerprint, though no clip is masked."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny("ctc"), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["wav2vec2.masked_spec_embed"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    first, second = (
        HuggingFaceRecogniser(folder).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


# A retriever's folder


@pytest.mark.parametrize("kind", ["whisper", "ctc"])
def test_a_written_cascade_opens_as_data(kind, tiny, text_encoder, tmp_path):
    recogniser = HuggingFaceRecogniser(tiny(kind))
    cascade = make_cascade(recogniser, text_encoder)
    write_cascade(tmp_path / "cascade", recogniser, text_encoder)
    moved = (tmp_path / "cascade").rename(tmp_path / "moved")
    opened = EncoderRetriever.from_hparams(source=str(moved))
    assert opened.mods.speech_encoder.text_encoder is opened.mods.text_encoder
    assert opened.fingerprint() == cascade.fingerprint()
    rows = opened.encode_batch(clips())
    assert torch.equal(rows, cascade.encode_batch(clips()))
    assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)))
    longest = {"whisper": 30.0, "ctc": 40.0}[kind]
    assert opened.hparams.max_seconds == 2 * opened.hparams.hop_seconds
    assert opened.hparams.max_seconds == longest
    # Written again in its own place, and from what was opened.
    parts = opened.mods.speech_encoder
    write_cascade(moved, parts.recogniser, parts.text_encoder, max_seconds=5)
    again = EncoderRetriever.from_hparams(source=str(moved))
    assert again.fingerprint() == cascade.fingerprint()
    assert again.hparams.max_seconds == 5.0


def test_a_whisper_hears_in_half_precision(tiny, text_encoder):
    """Its features are made of arrays, which know no bfloat16."""
    recogniser = HuggingFaceRecogniser(tiny("whisper"))
    half = {"precision": "bf16"}
    cascade = make_cascade(recogniser, text_encoder, run_opts=half)
    rows = cascade.encode_batch(clips())
    assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-3)


def test_another_setting_is_another_model(tiny, text_encoder):
    prints = [
        make_cascade(
            HuggingFaceRecogniser(tiny("whisper"), language), text_encoder
        ).fingerprint()
        for language in (None, "de", "de")
    ]
    assert prints[0] != prints[1] == prints[2]


def test_a_recogniser_of_speechbrain_wants_trust(tiny, text_encoder, tmp_path):
    from speechbrain.inference.ASR import EncoderASR

    recogniser = SpeechBrainRecogniser(tiny("speechbrain"), "EncoderASR")
    write_cascade(tmp_path / "cascade", recogniser, text_encoder)
    source = str(tmp_path / "cascade")
    with pytest.raises(UnsafePageError, match="trust_source=True"):
        EncoderRetriever.from_hparams(source=source)
    opened = EncoderRetriever.from_hparams(source=source, trust_source=True)
    wavs, wav_lens = as_batch(clips()[:1])
    plain = EncoderASR.from_hparams(source=str(tiny("speechbrain")))
    wanted = plain.transcribe_batch(wavs, wav_lens)[0]
    heard = opened.mods.speech_encoder.transcribe(wavs, wav_lens)
    assert heard == [wanted[0].lower()] and heard[0]


def test_an_index_of_a_cascade(tiny, text_encoder, tmp_path):
    recogniser = HuggingFaceRecogniser(tiny("ctc"))
    write_cascade(tmp_path / "cascade", recogniser, text_encoder)
    for i, clip in enumerate(clips()[:3]):
        path = tmp_path / "audio" / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, clip.numpy(), SAMPLE_RATE, subtype="FLOAT")
    source = str(tmp_path / "cascade")
    retriever = EncoderRetriever.from_hparams(source=source)
    retriever.build_index(
        str(tmp_path / "audio"),
        tmp_path / "index",
        space="content",
        cutting={"kind": "windows"},
        n_workers=2,
        progress=False,
    )
    (words,) = hear(recogniser, [clips()[1]])
    with open_index(tmp_path / "index") as index:
        hit = index.search(content=words, k=1)[0]
    assert hit.segment.path.endswith("1.wav")
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_the_command(tiny, tiny_text_backbone, tmp_path, capsys):
    def esr(*argv):
        try:
            cli.main(["cascade", *map(str, argv)])
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    out = tmp_path / "cascade"
    parts = ("--recogniser", tiny("ctc"), "--text", tiny_text_backbone)
    assert esr(*parts, "--out", out)[1] == f"Retriever: {out}\n"
    EncoderRetriever.from_hparams(source=str(out)).encode_text("a voice")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    for place in tmp_path / "mine", tmp_path / "mine" / "file":
        status, error = esr(*parts, "--out", place)
        assert status == 2 and "give another --out" in error
    assert (tmp_path / "mine" / "file").is_file()
    status, error = esr("--language", "de", "--out", tmp_path / "other")
    assert status == 2 and "leave out --language" in error
    status, error = esr("--recogniser", "no/such", "--out", tmp_path / "other")
    assert status == 2 and "no/such" in error
    assert not (tmp_path / "other").exists()


# PocketSphinx


def test_without_its_package_pocketsphinx_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ImportError, match=r"esr_lobes\[pocketsphinx\]"):
        PocketSphinx()


@pytest.fixture
def sphinx():
    pytest.importorskip("pocketsphinx", reason="extra [pocketsphinx]")
    return PocketSphinx()


def test_pocketsphinx_understands_a_sentence(sphinx, shared_data):
    dogs = read(shared_data / DOGS)
    (heard,) = hear(sphinx, [dogs])
    assert heard == "dogs are sitting by the door"


def test_pocketsphinx_hears_nothing_in_next_to_nothing(sphinx):
    assert hear(sphinx, [torch.zeros(1), torch.zeros(300)]) == ["", ""]


def test_what_pocketsphinx_heard_before_changes_nothing(sphinx, shared_data):
    """Nor what another thread hears meanwhile."""
    dogs, kids = read(shared_data / DOGS), read(shared_data / KIDS)
    heard = {}

    def listen(name, waves):
        heard[name] = hear(sphinx, waves)

    threads = [
        threading.Thread(target=listen, args=("one", [dogs, kids])),
        threading.Thread(target=listen, args=("two", [kids, dogs])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard["one"] == heard["two"][::-1] == hear(sphinx, [dogs, kids])
    assert len(sphinx._idle) == 2  # a decoder each, both kept
    assert heard["one"][0] != heard["one"][1]


def test_a_cascade_of_pocketsphinx_opens(sphinx, text_encoder, tmp_path):
    write_cascade(tmp_path / "cascade", sphinx, text_encoder)
    assert not (tmp_path / "cascade" / "speech_backbone").exists()
    opened = EncoderRetriever.from_hparams(source=str(tmp_path / "cascade"))
    cascade = make_cascade(sphinx, text_encoder)
    assert opened.fingerprint() == cascade.fingerprint()
    other = make_cascade(Counting({}), text_encoder)
    assert other.fingerprint() != cascade.fingerprint()


def test_a_language_for_pocketsphinx_is_refused():
    with pytest.raises(MendableError, match="one language only"):
        open_recogniser("pocketsphinx", "de")
