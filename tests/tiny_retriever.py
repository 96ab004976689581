"""A retriever's folder as the export writes it, with random weights.

Authors
 * The esr_lobes contributors
"""

import shutil

import torch
from safetensors.torch import save_file

from esr_lobes.encoders.compact import CompactEncoder
from esr_lobes.heads import Projection

PAGE = """\
folder: .
sample_rate: 16000
embedding_size: 16
max_seconds: 2.0
hop_seconds: 1.0
min_seconds: 0.2
speech_encoder: !new:esr_lobes.encoders.compact.CompactEncoder
speech_projection: !new:esr_lobes.heads.Projection
    in_features: {width}
    out_features: !ref <embedding_size>
text_encoder: !new:esr_lobes.encoders.text.TextEncoder
    source: !ref <folder>/text_backbone
    local_files_only: True
text_projection: !new:esr_lobes.heads.Projection
    in_features: 32
    out_features: !ref <embedding_size>
modules:
    speech_encoder: !ref <speech_encoder>
    speech_projection: !ref <speech_projection>
    text_encoder: !ref <text_encoder>
    text_projection: !ref <text_projection>
"""


def make_tiny_retriever(folder, text_backbone, seed=0):
    """Writes a retriever of width 16; another seed is another model.

    Arguments
    ---------
    folder : Path
        Where to.
    text_backbone : Path
        Folder of a text model of width 32.
    seed : int
        Of the random weights.

    Returns
    -------
    Path
        The folder.
    """
    shutil.copytree(text_backbone, folder / "text_backbone")
    torch.manual_seed(seed)
    encoder = CompactEncoder()
    modules = {
        "speech_encoder": encoder,
        "speech_projection": Projection(encoder.width, 16),
        "text_projection": Projection(32, 16),
    }
    page = PAGE.replace("{width}", str(encoder.width))
    (folder / "hyperparams.yaml").write_text(page)
    weights = {
        f"{name}.{key}": value.contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    save_file(weights, folder / "weights.safetensors")
    return folder
