"""Vectors of segments, and those nearest to a query; no models, no audio.

Authors
 * The esr_lobes contributors
"""

from esr_lobes.index.memory import MemoryIndex
from esr_lobes.index.segments import Hit, Segment

__all__ = ["Hit", "MemoryIndex", "Segment"]
