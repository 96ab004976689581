"""Backbones behind one interface each: clips in, or sentences in.

Authors
 * The esr_lobes contributors
"""
