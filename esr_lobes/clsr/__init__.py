"""Content retrieval: what was said, found end to end from speech.

Authors
 * The esr_lobes contributors
"""
