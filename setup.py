"""Packaging of mirror-flickr: one module, one command."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent

# Read, not imported: what flickr.py imports need not be installed yet.
VERSION = re.search(
    r'^__version__ = "([^"]+)"$', (HERE / "flickr.py").read_text(encoding="utf-8"), re.MULTILINE
).group(1)

setup(
    name="mirror-flickr",
    version=VERSION,
    description="Mirror a Flickr user's photostream into a local folder, and keep it up to date",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The mirror-flickr authors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["flickr", "photos", "mirror", "backup", "archive", "digital preservation"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Console",
        "Intended Audience :: End Users/Desktop",
        "Intended Audience :: Information Technology",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: Multimedia :: Graphics",
        "Topic :: System :: Archiving :: Mirroring",
    ],
    python_requires=">=3.10",
    py_modules=["flickr"],
    entry_points={"console_scripts": ["mirror_flickr = flickr:main"]},
    install_requires=[
        # HTTP: kept-alive connections, the environment's proxy and certificates.
        "requests>=2.31",
        # HTTPResponse.read1, new in 2.2: a body that only trickles is noticed.
        "urllib3>=2.2",
        # Tells in which language a title, a description or a comment is written.
        "langdetect>=1.0.9,<2",
        # The codes of the world's languages and countries.
        "pycountry>=23.12.7",
        # Makes a username into a folder's name that every system takes.
        "pathvalidate>=3.2",
        # One run at a time in a folder; the lock dies with its process.
        "filelock>=3.12",
        # Decodes images, for --verify-image.
        "Pillow>=10.3",
        # The progress bar on a terminal.
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            # Runs the tests.
            "pytest>=8",
            # Plays random histories of a photostream in them.
            "hypothesis>=6.100",
        ],
    },
)
