"""``esr import-checkpoint``: a retriever of a checkpoint the paper released.

Authors
 * The esr_lobes contributors
"""

import argparse

DESCRIPTION = """\
Makes a retriever's folder of a .pt as the code of Kang and Roy (2025) saves
it. All weights are taken from it; the settings and the tokenizer of its
backbones, which it does not hold, come from the sources: folders, or ids on
the hub (of which no weights are fetched).

  esr import-checkpoint best.pt --pair roberta_e2v --out retriever
  esr import-checkpoint best.pt --pair t5_wavlm --out retriever \\
      --text_source models/t5-base --speech_source models/wavlm-base-plus
"""


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "import-checkpoint",
        help="make a retriever of a checkpoint that the paper released",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="the .pt")
    parser.add_argument(
        "--pair",
        required=True,
        help="text and speech backbone: {bert,roberta,t5,flan_t5}_{e2v,wavlm}",
    )
    parser.add_argument(
        "--out",
        required=True,
        help="folder of the retriever; one that is there is replaced",
    )
    parser.add_argument(
        "--text_source",
        help="folder or hub id with config and tokenizer of the text backbone "
        "(default: that of the pair's on the hub)",
    )
    parser.add_argument(
        "--speech_source",
        help="folder or hub id with the config of WavLM (default: "
        "microsoft/wavlm-base-plus); folder with a config.yaml of emotion2vec "
        "(default: the sizes of the base model)",
    )
    parser.add_argument(
        "--normalize_wav",
        action="store_true",
        help="bring each clip to mean 0 and variance 1 first, as emotion2vec "
        "was pretrained; the paper's checkpoints were trained on raw waveforms",
    )
    parser.add_argument(
        "--trust_pickle",
        action="store_true",
        help="open a file that holds more than tensors, which may run any "
        "code: only for authors whose programs you would run",
    )
    parser.set_defaults(run=run)


def run(options):
    """Writes the retriever.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.importing import import_checkpoint

    import_checkpoint(
        options.checkpoint,
        options.pair,
        options.out,
        text_source=options.text_source,
        speech_source=options.speech_source,
        normalize_wav=options.normalize_wav,
        trust_pickle=options.trust_pickle,
    )
    print(f"Retriever: {options.out}")
