"""Questions to long recordings: the passages that answer, and answers.

:mod:`.passages` finds them, :mod:`.handing_on` gives them to people, programs
and models, :mod:`.qwen_audio` is such a model, :mod:`.scoring` says how good
its answers are.

An *answerer* is anything that is called as ``answerer(question, clips)`` and
returns a text: the question is a text, the clips are waveforms at 16 kHz,
best passage first (``list of torch.Tensor``, float32 of shape [time]).

Authors
 * The esr_lobes contributors
"""

from esr_lobes.answering.passages import PassageFinder, find_passages

__all__ = ["PassageFinder", "find_passages"]
