"""Speech searched by how it is spoken and by what it says.

Authors
 * The esr_lobes contributors
"""

__version__ = "0.1.0"
__all__ = ["EncoderRetriever", "__version__"]


def __getattr__(name):
    """Imports the retriever when it is first asked for."""
    if name == "EncoderRetriever":
        from esr_lobes.inference import EncoderRetriever

        return EncoderRetriever
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
