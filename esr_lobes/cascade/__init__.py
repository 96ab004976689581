"""Cascades: a recogniser writes down the words, a text encoder reads them.

Authors
 * The esr_lobes contributors
"""
