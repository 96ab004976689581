"""What a build did, for people and for programs.

Authors
 * The esr_lobes contributors
"""

from dataclasses import dataclass, field


@dataclass
class BuildReport:
    """What a build did.

    Arguments
    ---------
    folder : str
        The index.
    new, changed, moved, kept, dropped : int
        Files; what was moved or copied was not listened to again, what was
        kept is unchanged or lies below other roots.
    skipped : int
        Files that gave nothing.
    skips : str
        The CSV that lists them.
    resumed : int
        Of the new and changed, those that an earlier run had finished.
    segments : int
        In the whole index.
    hours : float
        In the whole index, the segments' durations.
    seconds : float
        That the build took.
    unmatched : int or None
        Rows of the metadata that name no file; None if none was given.
    unreadable : list of Skip
        Files that cannot be read now, and keep their segments.
    bare : int
        Files that came without metadata to an index that has some.
    is_optimized_away : bool
        Whether an approximate index is gone because it did not know the new
        segments.
    """

    folder: str
    new: int = 0
    changed: int = 0
    moved: int = 0
    kept: int = 0
    dropped: int = 0
    skipped: int = 0
    skips: str = ""
    resumed: int = 0
    segments: int = 0
    hours: float = 0.0
    seconds: float = 0.0
    unmatched: int | None = None
    unreadable: list = field(default_factory=list)
    bare: int = 0
    is_optimized_away: bool = False

    @property
    def files(self):
        """All files that the index knows of."""
        return self.new + self.changed + self.moved + self.kept

    def __str__(self):
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.new, "new"),
                (self.changed, "changed"),
                (self.moved, "moved or copied"),
                (self.kept, "unchanged"),
                (self.dropped, "dropped"),
            )
            if count
        ]
        lines = [f"{self.files:,} files: {', '.join(parts) or 'none'}"]
        if self.resumed:
            lines.append(f"{self.resumed:,} were done by an earlier run")
        if self.skipped:
            lines.append(f"{self.skipped:,} skipped, listed in {self.skips}")
        if self.unmatched:
            lines.append(
                f"{self.unmatched:,} rows of the metadata name no file here"
            )
        if self.bare:
            lines.append(
                f"{self.bare:,} files have no metadata: give --metadata again"
            )
        if self.unreadable:
            first = self.unreadable[0]
            lines.append(
                f"{len(self.unreadable):,} cannot be read now and keep their "
                f"segments, such as {first.path} ({first.detail})"
            )
        lines.append(
            f"{self.segments:,} segments, {_time(self.hours * 3600)} of "
            f"speech, in {_time(self.seconds)}: {self.folder}"
        )
        if self.is_optimized_away:
            lines.append("searches are exact again: run esr optimize once more")
        return "\n".join(lines)


def _time(seconds):
    """Returns a duration in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
