"""The paper's training step, written plainly: what ours is measured against.

"Expressive Speech Retrieval using Natural Language Descriptions of Speaking
Style" (Kang and Roy, 2025, https://arxiv.org/abs/2508.11187): clips in the
order in which they arrive, padded to the longest of the batch; the text
backbone run on each batch's prompts; attention as its formula, with a bias for
each row of the batch and each block; one autocast around it all. The loss is
the library's (``tests/unittests/test_benchmarks.py``), but that no mask keeps
padding out of the speech backbone. That, and a frozen text backbone without
dropout, make this loop faster than the paper's, not slower.

Authors
 * The esr_lobes contributors
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from esr_lobes.encoders.emotion2vec import WAV_EPS, Emotion2vec
from esr_lobes.encoders.emotion2vec_layers import alibi_slopes
from esr_lobes.pooling import masked_mean


class PlainEmotion2vec(nn.Module):
    """emotion2vec as its paper and its published code spell it out.

    Arguments
    ---------
    encoder : Emotion2vec
        Whose weights it starts from, and whose sizes it has.
    """

    def __init__(self, encoder):
        super().__init__()
        self.config = encoder.config
        self.modality_encoders = copy.deepcopy(encoder.modality_encoders)
        self.blocks = copy.deepcopy(encoder.blocks)
        self.dropout = nn.Dropout(encoder.dropout)

    @property
    def audio(self):
        """All before the main blocks."""
        return self.modality_encoders["AUDIO"]

    def bias(self, n_frames, n_rows):
        """Returns what attention adds, float32 [batch, head, token, token]."""
        slopes = torch.tensor(alibi_slopes(self.config.num_heads))
        place = torch.arange(n_frames)
        distance = (place.unsqueeze(1) - place).abs()
        bias = -distance * slopes[:, None, None]
        n_extra = self.config.num_extra_tokens
        bias = F.pad(bias, (n_extra, 0, n_extra, 0))
        return bias.repeat(n_rows, 1, 1, 1).to(self.audio.alibi_scale.device)

    def attention(self, attn, x, bias):
        """Returns [batch, token, channel]."""
        q, k, v = (
            part.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)
            for part in attn.qkv(x).chunk(3, dim=-1)
        )
        logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        weights = (logits.float() + bias).softmax(dim=-1).to(v.dtype)
        x = self.dropout(weights) @ v
        return self.dropout(attn.proj(x.transpose(1, 2).flatten(2)))

    def forward(self, wavs, n_samples):
        """Returns [batch, frame, channel] of [batch, time]."""
        rows = [
            (wav[:n] - wav[:n].mean())
            / (wav[:n].var(unbiased=False) + WAV_EPS).sqrt()
            for wav, n in zip(wavs, n_samples.tolist(), strict=True)
        ]
        x = nn.utils.rnn.pad_sequence(rows, batch_first=True).unsqueeze(1)
        for conv, _, (_, norm) in self.audio.local_encoder.conv_layers:
            x = norm(conv(x).transpose(1, 2)).transpose(1, 2)
            x = F.gelu(x)
        x = self.audio.project_features(x.transpose(1, 2))
        y = x.transpose(1, 2)
        for (conv,) in self.audio.relative_positional_encoder[1:]:
            y = conv(y).transpose(1, 2)
            y = F.gelu(F.layer_norm(y, y.shape[-1:])).transpose(1, 2)
        bias = self.bias(x.shape[1], len(x))
        tokens = self.audio.extra_tokens.expand(len(x), -1, -1)
        x = torch.cat([tokens, x + y.transpose(1, 2)], dim=1)
        x = self.dropout(self.audio.context_encoder["norm"](x))
        scale = self.audio.alibi_scale.clamp(min=0)[0]
        for block in (*self.audio.context_encoder["blocks"], *self.blocks):
            x = block.norm1(x + self.attention(block.attn, x, bias * scale))
            y = block.mlp["fc2"](F.gelu(block.mlp["fc1"](x)))
            x = block.norm2(x + self.dropout(y))
        return x[:, tokens.shape[1] :]

    def n_frames(self, n_samples):
        """Returns how many frames are real."""
        counts = [self.config.n_frames(n) for n in n_samples.tolist()]
        return torch.tensor(counts, device=n_samples.device)


class PlainHuggingFace(nn.Module):
    """A speech model of transformers as it comes.

    Arguments
    ---------
    encoder : HuggingFaceSpeech
        Whose weights it starts from.
    """

    def __init__(self, encoder):
        super().__init__()
        self.model = type(encoder.model)(encoder.model.config)
        self.model.load_state_dict(encoder.model.state_dict())

    def forward(self, wavs, n_samples):
        """Returns [batch, frame, channel] of [batch, time]."""
        return self.model(wavs).last_hidden_state

    def n_frames(self, n_samples):
        """Returns how many frames are real."""
        return self.model._get_feat_extract_output_lengths(n_samples)


class PaperLoop:
    """The step, on copies of the modules of a page.

    Arguments
    ---------
    modules : torch.nn.ModuleDict
        As of a :class:`esr_lobes.brain.StyleRetrievalBrain`.
    hparams : dict
        The page.
    device, precision : str
        Of the training; bf16 is the paper's.
    """

    def __init__(self, modules, hparams, device="cpu", precision="fp32"):
        encoder = modules["speech_encoder"]
        plain = (
            PlainEmotion2vec
            if isinstance(encoder, Emotion2vec)
            else PlainHuggingFace
        )
        self.speech = plain(encoder).train()
        self.heads = nn.ModuleDict(
            {
                name: copy.deepcopy(modules[name])
                for name in (
                    "speech_projection",
                    "text_projection",
                    "classifier",
                    "discriminator",
                    "logit_scale",
                )
            }
        )
        self.text = modules["text_encoder"]
        self.weights = hparams["loss_weights"]
        self.device = torch.device(device)
        self.is_autocast = precision == "bf16"
        self.speech.to(device)
        self.heads.to(device)
        slow = self.heads["discriminator"].parameters()
        fast = [
            *self.speech.parameters(),
            *(
                p
                for name, head in self.heads.items()
                if name != "discriminator"
                for p in head.parameters()
            ),
        ]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": fast},
                {"params": slow, "lr": hparams["discriminator_lr"]},
            ],
            lr=hparams["lr"],
            weight_decay=hparams["weight_decay"],
        )

    def autocast(self):
        """Returns the context of a forward pass."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.is_autocast
        )

    def embed_speech(self, clips):
        """Returns pooled backbone outputs of clips in the order given."""
        n_samples = torch.tensor([len(clip) for clip in clips])
        n_samples = n_samples.to(self.device)
        wavs = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        x = self.speech(wavs.to(self.device), n_samples)
        return masked_mean(x, self.speech.n_frames(n_samples) / x.shape[1])

    def embed_text(self, prompts):
        """Returns what the backbone makes of the first token."""
        tokens = self.text.tokenizer(
            prompts, padding=True, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            return self.text.backbone(**tokens).last_hidden_state[:, 0]

    def loss(self, pooled, prompts, styles):
        """Returns the loss with all its terms.

        Arguments
        ---------
        pooled : torch.Tensor
            From :meth:`embed_speech`, of shape [batch, channel].
        prompts : list of str
            One a clip.
        styles : list of int
            One a clip.

        Returns
        -------
        torch.Tensor
            Without dimensions.
        """
        heads, pairs = self.heads, torch.arange(len(pooled), device=self.device)
        speech = heads["speech_projection"](pooled)
        text = heads["text_projection"](self.embed_text(prompts))
        styles = torch.tensor(styles, device=self.device)
        classification = F.cross_entropy(heads["classifier"](speech), styles)
        speech, text = F.normalize(speech, dim=-1), F.normalize(text, dim=-1)
        logits = heads["logit_scale"](speech @ text.t())
        contrastive = F.cross_entropy(logits, pairs)
        contrastive = (contrastive + F.cross_entropy(logits.t(), pairs)) / 2
        rows = torch.cat([speech, text])
        rows = 2 * rows.detach() - rows  # the same, its gradient reversed
        is_speech = (torch.arange(len(rows)) < len(pooled)).float()
        adversarial = F.binary_cross_entropy_with_logits(
            heads["discriminator"](rows).float(), is_speech.to(self.device)
        )
        return (
            self.weights["classification"] * classification
            + self.weights["contrastive"] * contrastive
            + self.weights["adversarial"] * adversarial
        )

    def step(self, clips, prompts, styles):
        """Learns from one batch and returns its loss; see :meth:`loss`."""
        with self.autocast():
            loss = self.loss(self.embed_speech(clips), prompts, styles)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()
