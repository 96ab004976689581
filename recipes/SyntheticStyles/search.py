"""Asks a retriever in free words for clips of a folder.

Run it from the repository root::

    python recipes/SyntheticStyles/search.py RETRIEVER AUDIO [QUERY ...]

Authors
 * The esr_lobes contributors
"""

import argparse

from esr_lobes import EncoderRetriever
from esr_lobes.errors import one_line_errors

QUERIES = [
    "somebody whispering a secret",
    "an exhausted, drowsy voice",
    "talking at breakneck speed",
    "shouting across a hall",
]


@one_line_errors
def main():
    """Embeds the clips and prints the best of each query."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="folder of a retriever")
    parser.add_argument("audio", help="folder of clips, or one clip")
    parser.add_argument("queries", nargs="*", default=QUERIES)
    parser.add_argument("-k", type=int, default=5, help="answers a query")
    options = parser.parse_args()
    retriever = EncoderRetriever.from_hparams(source=options.source)
    retriever.encode_files(options.audio)
    for query in options.queries:
        print(f'\n"{query}"')
        for hit in retriever.search(query, k=options.k):
            print(f"{hit.rank + 1:4d}  {hit.score:6.3f}  {hit.segment.path}")


if __name__ == "__main__":
    main()
