"""The connection to a Milvus, whose errors say what to do.

A token for the server is taken from the environment, where other users do not
see it.

Authors
 * The esr_lobes contributors
"""

import logging
import os
import threading
from collections import Counter

from esr_lobes.index.milvus_address import MilvusError

TOKEN = "MILVUS_TOKEN"
# Seconds until a server that does not answer is given up.
PATIENCE = 20

# Folders of Milvus Lite that are open here, and how often. Its server lives
# in this process and keeps the folder locked until it is told to stop.
_opened = Counter()
_lock = threading.Lock()


class Connection:
    """A client of Milvus whose errors say what to do.

    Arguments
    ---------
    address : Address
        Where to.
    create : bool
        Whether a Milvus Lite that is not there yet is made.

    Raises
    ------
    ImportError
        If a package is missing.
    MilvusError
        If it cannot be reached.
    """

    def __init__(self, address, create=False):
        try:
            import pymilvus
            from pymilvus import MilvusClient

            if address.is_lite:
                import milvus_lite.server_manager  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "Milvus needs its client: pip install 'esr_lobes[scale]'"
            ) from error
        self.address = address
        self._error = pymilvus.MilvusException
        # What they log, with a trace, is what is raised here.
        for name in "pymilvus", "milvus_lite":
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if address.is_lite:
            self._check_folder(create)
        try:
            with _lock:
                self._client = MilvusClient(
                    address.uri,
                    token=os.environ.get(TOKEN, ""),
                    timeout=PATIENCE,
                )
                _opened[address.uri] += 1
        except self._error as error:
            raise MilvusError(self._what_failed(error)) from error

    def _check_folder(self, create):
        """Says before the client does that there is nothing to open."""
        path = self.address.uri
        folder = os.path.dirname(path)
        if not create and not os.path.isdir(path):
            raise MilvusError(
                f"{path}: there is no such Milvus Lite; publish an index to "
                f"it with: esr publish INDEX --to {self.address.text}"
            )
        if os.path.lexists(path) and not os.path.isdir(path):
            raise MilvusError(
                f"{path} is a file, but a Milvus Lite is a folder (from "
                "version 3 on): give another name"
            )
        if not os.path.isdir(folder):
            raise MilvusError(f"{folder}: no such folder; make it first")

    def _what_failed(self, error):
        """Says why there is no connection."""
        if self.address.is_lite:
            return (
                f"{self.address.uri} cannot be opened: if another process has "
                "it open, end that one, or let both use a server (milvus-lite "
                f"server --data-dir {self.address.uri} --host 127.0.0.1)"
            )
        return (
            f"no Milvus answers at {self.address.uri} ({_words(error)}): "
            f"start it, correct the address, or set {TOKEN}"
        )

    def ask(self, method, *args, **kwargs):
        """Returns what the client answers.

        Arguments
        ---------
        method : str
            Of ``pymilvus.MilvusClient``.
        *args : tuple
            For the method.
        **kwargs : dict
            For the method.

        Returns
        -------
        object
            Whatever the method returns.

        Raises
        ------
        MilvusError
            If the server refuses.
        """
        try:
            return getattr(self._client, method)(*args, **kwargs)
        except self._error as error:
            raise MilvusError(
                f"{self.address.text}: Milvus cannot {method} "
                f"({_words(error)}); if an index was published there anew "
                "meanwhile, open it again"
            ) from error

    def rows(self, collection, fields, condition="", at_a_time=4096):
        """Yields rows of a collection, a few thousand at a time.

        Arguments
        ---------
        collection : str
            Its name.
        fields : list of str
            What to fetch.
        condition : str
            Which rows; all if empty.
        at_a_time : int
            How many at most in one list.

        Yields
        ------
        list of dict
            Field to value.
        """
        iterator = self.ask(
            "query_iterator",
            collection,
            filter=condition,
            output_fields=fields,
            batch_size=at_a_time,
        )
        try:
            while rows := self._next(iterator):
                yield rows
        finally:
            iterator.close()

    def _next(self, iterator):
        try:
            return list(iterator.next())
        except self._error as error:
            raise MilvusError(
                f"{self.address.text}: Milvus cannot read on ({_words(error)})"
            ) from error

    def resolve(self, name):
        """Returns the collection that a name stands for.

        Arguments
        ---------
        name : str
            Of a collection or an alias.

        Returns
        -------
        str
            The collection behind an alias, or the name itself, whether there
            is such a collection or not.
        """
        if name in self.ask("list_aliases")["aliases"]:
            return self.ask("describe_alias", name)["collection_name"]
        return name

    def close(self):
        """Ends the connection; a Milvus Lite is free for others again."""
        if self._client is None:
            return
        self._client.close()
        self._client = None
        with _lock:
            _opened[self.address.uri] -= 1
            if self.address.is_lite and not _opened[self.address.uri]:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(self.address.uri)


def _words(error):
    """Returns what a server says, on one line."""
    text = str(getattr(error, "message", "") or error)
    return " ".join(text.split())
