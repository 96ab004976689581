"""What tells the content of one file from that of others.

Authors
 * The esr_lobes contributors
"""

import hashlib

BLOCK_BYTES = 1 << 20


def digest_of(path):
    """Returns what tells a file's content from others.

    Arguments
    ---------
    path : str
        The file.

    Returns
    -------
    digest : str
        Thirty-two hexadecimal digits.
    size : int
        Bytes that were read.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> path.write_bytes(b"1234")
    4
    >>> digest, size = digest_of(path)
    >>> len(digest), size
    (32, 4)
    """
    digest, size = hashlib.blake2b(digest_size=16), 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
