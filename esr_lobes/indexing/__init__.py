"""From files of audio to segments and their embeddings.

Files are decoded as a stream (:mod:`.chapters`), searched for voices
(:mod:`.voice_activity`), cut (:mod:`.cutting`) and embedded
(:mod:`.worker`).

Authors
 * The esr_lobes contributors
"""
