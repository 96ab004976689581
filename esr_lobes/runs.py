"""The folder of a training: what lies where, for who trains and who judges.

::

    results/Expresso/roberta_e2v/1986/
        hyperparams.yaml    the flat page of the run
        corpora.json        which corpora it reads, and where they lie
        manifests/          train.csv, valid.csv, test.csv; of several
                            corpora a folder each
        checkpoints/
        retriever/          what EncoderRetriever.from_hparams opens
        evaluation/<set>/   report.json, report.md, plots

Authors
 * The esr_lobes contributors
"""

import json
from pathlib import Path

from esr_lobes.errors import MendableError
from esr_lobes.files import write_text
from esr_lobes.manifests import read_manifest

HELD_OUT = "_held_out_styles"
"""Ends the name of a report on styles that were kept out of the training."""


class RunFolder:
    """Finds manifests, retriever and reports of a training.

    Arguments
    ---------
    path : str or Path
        The ``output_folder`` of the training.

    Example
    -------
    >>> run = RunFolder("results/ESD/bert_e2v/1986")
    >>> run.manifests("").as_posix()
    'results/ESD/bert_e2v/1986/manifests'
    >>> run.evaluation("test").as_posix()
    'results/ESD/bert_e2v/1986/evaluation/test'
    """

    def __init__(self, path):
        self.path = Path(path)
        self.page = self.path / "hyperparams.yaml"
        self.retriever = self.path / "retriever"

    def manifests(self, corpus):
        """Returns the folder of a corpus's manifests.

        Arguments
        ---------
        corpus : str
            Its name; empty if it is the only one.

        Returns
        -------
        Path
            A folder.
        """
        return self.path / "manifests" / corpus

    def evaluation(self, test_set):
        """Returns the folder of the report on a test set.

        Arguments
        ---------
        test_set : str
            A key of :meth:`test_sets`.

        Returns
        -------
        Path
            A folder.
        """
        return self.path / "evaluation" / test_set

    def is_training(self):
        """Whether a training has begun here, come to its end or not."""
        return (self.path / "corpora.json").is_file()

    @property
    def corpora(self):
        """Where each corpus lies, by name, as last noted."""
        path = self.path / "corpora.json"
        if not self.is_training():
            raise MendableError(
                f"{self.path} is no folder of a training (it has no "
                "corpora.json): give the output_folder of a train.py"
            )
        return json.loads(path.read_text(encoding="utf-8"))

    def note_corpora(self, folders):
        """Writes down where the corpora lie.

        Arguments
        ---------
        folders : dict
            Data folders by name of the corpus.
        """
        text = json.dumps(folders, indent=2) + "\n"
        write_text(self.path / "corpora.json", text)

    def rows(self, split, styles=None):
        """Returns the rows of one split, of all corpora.

        Arguments
        ---------
        split : str
            ``train``, ``valid``, or a test set of the manifests.
        styles : list of str
            All that a row may have; None allows any.

        Returns
        -------
        list of dict
            Where there are several corpora, IDs begin with theirs. A corpus
            without such a split adds none.

        Raises
        ------
        ManifestError
            If a manifest is broken or a file of it is missing.
        """
        return [
            row
            for corpus in self.corpora
            for row in self._rows(corpus, split, styles)
        ]

    def _rows(self, corpus, split, styles, data_root=None):
        path = self.manifests(corpus) / f"{split}.csv"
        if corpus and not path.exists():
            return []
        rows = read_manifest(
            path, data_root=data_root or self.corpora[corpus], styles=styles
        )
        if corpus:
            rows = [row | {"ID": f"{corpus}/{row['ID']}"} for row in rows]
        return rows

    def parts(self, held_out, styles=None, data_root=None):
        """Yields what is judged: each test set, styles never heard apart.

        Arguments
        ---------
        held_out : list of str
            Styles that were kept out of the training.
        styles, data_root
            As for :meth:`test_sets`.

        Yields
        ------
        name : str
            That of the report's folder: the test set's, with
            ``_held_out_styles`` behind it for the styles never heard.
        rows : list of dict
            All clips of the test set.
        styles : list of str
            Those to be searched for.
        """
        for name, rows in self.test_sets(styles, data_root).items():
            present = {row["style"] for row in rows}
            heard = sorted(present - set(held_out))
            if heard:
                yield name, rows, heard
            never_heard = sorted(present & set(held_out))
            if never_heard:
                yield f"{name}{HELD_OUT}", rows, never_heard

    def test_sets(self, styles=None, data_root=None):
        """Returns the rows of each test set that has any.

        Arguments
        ---------
        styles : list of str
            All that a row may have; None allows any.
        data_root : str
            Where the one corpus lies now, if it has been moved.

        Returns
        -------
        dict
            Rows by name: the manifest's, such as ``test``, behind that of
            its corpus where there are several: ``Expresso_test``.
        """
        if data_root and len(self.corpora) > 1:
            raise MendableError(
                f"{self.path} has the corpora {', '.join(self.corpora)}: one "
                "data_root cannot be for all; correct corpora.json there"
            )
        sets = {}
        for corpus in self.corpora:
            for path in sorted(self.manifests(corpus).glob("*.csv")):
                if not path.stem.startswith("test"):
                    continue
                name = f"{corpus}_{path.stem}" if corpus else path.stem
                rows = self._rows(corpus, path.stem, styles, data_root)
                if rows:
                    sets[name] = rows
        return sets
