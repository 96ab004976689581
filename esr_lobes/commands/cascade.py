"""``esr cascade``: a retriever of what is said, from parts that are there.

Authors
 * The esr_lobes contributors
"""

import argparse

DESCRIPTION = """\
Makes a retriever's folder of a recogniser, which writes down the words of a
clip, and a text encoder, which reads them and the questions. Nothing is
trained. esr index, search, app and the others take it as they take any.

  esr cascade --recogniser pocketsphinx --text minilm --out cascade
                                  English, with no download
  esr cascade --recogniser openai/whisper-small --language en \\
      --text BAAI/bge-base-en-v1.5 --pooling first --out cascade
                                  any recogniser and text encoder of the hub,
                                  or folders of such
  esr cascade --recogniser EncoderASR:speechbrain/asr-wav2vec2-librispeech \\
      --text minilm --out cascade
                                  any of SpeechBrain, by its interface; from
                                  Python with trust_source=True, since its
                                  page can run code

  esr index lectures --source cascade --out index
  esr search index "why do tides come twice a day?"
  esr index talks --source style=RETRIEVER content=cascade --out index
  esr search index --style angrily --content "the door"
"""


def add(commands):
    """Adds the command's parser.

    Arguments
    ---------
    commands : argparse action
        From ``add_subparsers``.
    """
    parser = commands.add_parser(
        "cascade",
        help="make a retriever of what is said: a recogniser, a text encoder",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--recogniser",
        default="pocketsphinx",
        help="pocketsphinx, a folder or hub id of transformers, or "
        "INTERFACE:SOURCE of SpeechBrain (pocketsphinx)",
    )
    parser.add_argument(
        "--language", help="spoken, for a Whisper of many languages, as in en"
    )
    parser.add_argument(
        "--text",
        default="minilm",
        help="minilm, or a folder or hub id of a text encoder (minilm)",
    )
    parser.add_argument(
        "--pooling",
        choices=("auto", "mean", "first"),
        default="auto",
        help="how its tokens become one vector; of a hub id say it outright "
        "(auto)",
    )
    parser.add_argument(
        "--max_seconds",
        type=float,
        help="longest passage (40, or what the recogniser hears in one go)",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="folder of the retriever; one that is there is replaced",
    )
    parser.set_defaults(run=run)


def run(options):
    """Writes the retriever.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.cascading import MAX_TOKENS, open_recogniser, write_cascade
    from esr_lobes.encoders.text import TextEncoder
    from esr_lobes.export import check_folder

    check_folder(options.out)  # before anything is downloaded
    recogniser = open_recogniser(options.recogniser, options.language)
    text = TextEncoder(options.text, options.pooling, max_tokens=MAX_TOKENS)
    write_cascade(options.out, recogniser, text, options.max_seconds)
    print(f"Retriever: {options.out}")
