"""What every store of an index has, wherever its vectors lie.

Authors
 * The esr_lobes contributors
"""

from esr_lobes.pages import did_you_mean


class Store:
    """Vectors and segments, and those nearest to a query.

    A subclass has ``info``, ``spaces``, ``columns``, ``nearest``,
    ``scores``, ``take``, ``sample``, ``segments``, ``find``, ``close`` and
    ``_values(column, most)``.
    """

    def background(self, space, count=4096):
        """Returns vectors that stand for all, the same every time.

        Arguments
        ---------
        space : str
            Which vectors.
        count : int
            At most so many.

        Returns
        -------
        array
            Float32 of shape [at most count, dimension], those of
            ``sample(count)``.
        """
        return self.take(space, self.sample(count))

    def values(self, column, most=200):
        """Returns what stands in a column.

        Arguments
        ---------
        column : str
            One of ``columns``.
        most : int
            At most so many.

        Returns
        -------
        list
            Distinct values, sorted; the first ones if there are more.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        columns = list(self.columns)
        if column not in columns:
            raise ValueError(
                f"there is no column {column!r}, "
                f"{did_you_mean(column, columns)}"
            )
        return self._values(column, most)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
