#!/usr/bin/env python3
"""Mirror a Flickr user's photostream into a local folder, and keep it up to date.

Every public photo at its highest resolution, with its title, description and comments,
each with the language it is written in. Used as the command ``mirror_flickr``, as
``python -m flickr``, or by importing :class:`FlickrApi` and
:class:`FlickrUserPhotostreamMirroringAgent`.

The module reads from top to bottom, each part using only what stands above it:
languages, Flickr's things, Flickr's API, the cache on disk, what has been mirrored
already, the agent, the command line.
"""

from __future__ import annotations

import argparse
import array
import bisect
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import email.utils
import enum
import functools
import getpass
import hashlib
import itertools
import json
import logging
import os
import pathlib
import queue
import random
import re
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

if TYPE_CHECKING:
    import requests


__version__ = "1.0.0"

LOGGER = logging.getLogger("flickr")


# ---------------------------------------------------------------------------------------
# 1. Languages
#
# pycountry and langdetect are imported where they are first needed: together they take
# longer to load than everything else that `mirror_flickr --help` does.
# ---------------------------------------------------------------------------------------


class Locale:
    """A language, optionally as it is used in one country: ``vie``, ``fra-CA``.

    :param language_code: ISO 639-3 alpha-3 code, ISO 639-2/B code (``fre``) or ISO 639-1
        alpha-2 code, in any case.
    :param country_code: ISO 3166-1 alpha-2 code, in any case.
    :raise ValueError: If the language or the country is unknown.
    """

    __slots__ = ("_country_code", "_language_code")

    def __init__(self, language_code: str, country_code: str | None = None) -> None:
        self._language_code = _alpha3_language_code(language_code)
        self._country_code = None if country_code is None else _alpha2_country_code(country_code)

    @staticmethod
    def from_string(locale: str) -> Locale:
        """Return the locale written as ``fra``, ``fr``, ``fra-CA`` or ``fr-CA``.

        :raise ValueError: If it is written otherwise, or names nothing known.
        """
        if not isinstance(locale, str):
            raise ValueError(f"not a locale: {locale!r}")
        language_code, dash, country_code = locale.partition("-")
        return Locale(language_code, country_code if dash else None)

    @property
    def language_code(self) -> str:
        """ISO 639-3 alpha-3 code, in small letters."""
        return self._language_code

    @property
    def country_code(self) -> str | None:
        """ISO 3166-1 alpha-2 code, in capitals, or None."""
        return self._country_code

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Locale):
            return NotImplemented
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if self._country_code is None:
            return self._language_code
        return f"{self._language_code}-{self._country_code}"

    __repr__ = __str__


@functools.lru_cache(maxsize=1024)
def _alpha3_language_code(code: str) -> str:
    if isinstance(code, str) and re.fullmatch("[A-Za-z]{2,3}", code):
        import pycountry

        if len(code) == 2:
            language = pycountry.languages.get(alpha_2=code.lower())
        else:
            language = pycountry.languages.get(alpha_3=code.lower()) or pycountry.languages.get(
                bibliographic=code.lower()
            )
        if language is not None:
            return language.alpha_3
    raise ValueError(f"unknown language: {code!r}")


@functools.lru_cache(maxsize=1024)
def _alpha2_country_code(code: str) -> str:
    if isinstance(code, str) and re.fullmatch("[A-Za-z]{2}", code):
        import pycountry

        country = pycountry.countries.get(alpha_2=code.upper())
        if country is not None:
            return country.alpha_2
    raise ValueError(f"unknown country: {code!r}")


class Label:
    """A text for humans, with the locale it is written in.

    :param locale: English if left out.
    """

    __slots__ = ("_content", "_locale")

    _locale: Locale | None

    def __init__(self, content: str, locale: Locale | None = None) -> None:
        self._content = content
        self._locale = Locale("eng") if locale is None else locale

    @classmethod
    def detecting(cls, content: str) -> Label:
        """Return a label whose locale is detected when it is first asked for."""
        label = cls.__new__(cls)
        label._content = content
        label._locale = None
        return label

    @property
    def content(self) -> str:
        """The text, to the letter as it was given."""
        return self._content

    @property
    def locale(self) -> Locale:
        """The language of the text."""
        if self._locale is None:
            self._locale = detect_locale(self._content)
        return self._locale

    def __repr__(self) -> str:
        return f"<Label object at {id(self):#x}>"


# Flickr's descriptions and comments are HTML fragments, full of addresses of other photos.
# Every alternative stops at the next "<" or white space, so that no text, however long or
# odd, takes more than one pass.
_NOT_PROSE = re.compile(
    r"""
      </?[a-z!][^<>]*>                              # <b>, </a>, <a href="...">
    | &(?:\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});   # &quot; &#39;
    | (?:https?://|ftp://|www\.|flic\.kr/)[^\s<>\[\]]*
    """,
    re.IGNORECASE | re.VERBOSE,
)

# langdetect looks at no more than 10,000 characters; markup may come on top of them.
_LONGEST_LOOK = 40_000


def prose_of(text: str) -> str:
    """Return what a reader would read of a text: no HTML tags, entities, web addresses."""
    return _NOT_PROSE.sub(" ", text[:_LONGEST_LOOK]).strip()


def detect_locale(text: str) -> Locale:
    """Return the locale of a text; the same one every time for the same text.

    English where there is nothing to tell by: no letters outside markup and addresses.
    """
    return Locale.from_string(detect_language_tag(letters_of(text)))


def letters_of(text: str) -> str:
    """Return what langdetect tells a language by: the letters of a text's prose.

    It takes digits and punctuation for spaces; taken so beforehand, titles that differ in a
    date or a number are the same text, and are looked at once.
    """
    return _NO_LETTERS.sub(" ", prose_of(text))


_NO_LETTERS = re.compile(r"[\x00-@{-\x7f]+")


@functools.lru_cache(maxsize=4096)
def detect_language_tag(letters: str) -> str:
    """Return langdetect's tag for a text (``vi``, ``zh-cn``), ``en`` if it has none."""
    if not any(character.isalpha() for character in letters):
        return "en"
    from langdetect.lang_detect_exception import LangDetectException

    detector = _detector_factory().create()
    detector.append(letters)
    try:
        tag = detector.detect()
    except LangDetectException:
        return "en"
    return "en" if tag == detector.UNKNOWN_LANG else tag


_detector_lock = threading.Lock()


def _detector_factory() -> Any:
    """Return a factory of this module's own.

    langdetect draws at random unless it is seeded, and its only seed is global: another
    user of langdetect in the same process shall neither disturb this one nor be disturbed.
    """
    with _detector_lock:
        return _loaded_detector_factory()


@functools.cache
def _loaded_detector_factory() -> Any:
    from langdetect.detector import Detector
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    from langdetect.lang_detect_exception import ErrorCode, LangDetectException
    from langdetect.utils.lang_profile import LangProfile
    from langdetect.utils.ngram import NGram

    class Factory(DetectorFactory):
        """langdetect's profiles, as they were read.

        Sorting all their n-grams beforehand takes longer than a thousand titles do; few n-grams
        ever come up.
        """

        def __init__(self) -> None:
            super().__init__()
            self._profiles: list[LangProfile] = []
            self.likelihoods = functools.lru_cache(maxsize=1 << 14)(self._likelihoods)

        def add_profile(self, profile: LangProfile, index: int, langsize: int) -> None:
            self.langlist.append(profile.name)
            self._profiles.append(profile)

        def _likelihoods(self, ngram: str) -> list[float] | None:
            """Return how likely an n-gram is in each language, None if it tells nothing."""
            place = len(ngram) - 1
            likelihoods = [
                each.freq[ngram] / each.n_words[place] if ngram in each.freq else 0.0
                for each in self._profiles
            ]
            return likelihoods if ngram != " " and any(likelihoods) else None

        def _create_detector(self) -> Detector:
            return QuickDetector(self)

    class QuickNGram(NGram):
        normalize = staticmethod(functools.lru_cache(maxsize=1 << 14)(NGram.normalize))

    class QuickDetector(Detector):
        """langdetect's own sampling, at a fraction of its arithmetic.

        It makes seven trials, each of which draws n-grams until one language has all but
        nothing of what there is, and takes the language that has most after all. Here trials
        end when no further one can change that; the languages that have none of a text's
        n-grams, whose shares are always equal, are one; and the draws between two looks are
        one step.
        """

        def __init__(self, factory: Factory) -> None:
            super().__init__(factory)
            self._likelihoods = factory.likelihoods

        def _extract_ngrams(self) -> list[str]:
            ngrams = []
            ngram = QuickNGram()
            for character in self.text:
                ngram.add_char(character)
                if not ngram.capitalword:
                    grams = ngram.grams
                    ngrams += (grams[-1], grams[-2:], grams)[: len(grams)]
            return ngrams

        def _detect_block(self) -> None:
            self.cleaning_text()
            ngrams = self._extract_ngrams()
            rows = {ngram: row for ngram in set(ngrams) if (row := self._likelihoods(ngram))}
            ngrams = [ngram for ngram in ngrams if ngram in rows]
            if not ngrams:
                raise LangDetectException(ErrorCode.CantDetectError, "No features in text.")
            is_likely = [*map(any, zip(*rows.values(), strict=True))]
            languages = len(self.langlist)
            unlikely = languages - sum(is_likely)
            before = [1 / languages] * (languages - unlikely) + [unlikely / languages]
            narrowed = functools.cache(
                lambda ngram: [*itertools.compress(rows[ngram], is_likely), 0.0]
            )

            def drawn() -> list[float]:
                return narrowed(self.random.choice(ngrams))

            sums = [0.0] * len(before)
            self.random.seed(self.seed)
            for trial in range(1, self.n_trial + 1):
                alpha = self.alpha + self.random.gauss(0.0, 1.0) * self.ALPHA_WIDTH
                shares = self._shares(before, drawn, alpha / self.BASE_FREQ)
                sums = [sum_ + share for sum_, share in zip(sums, shares, strict=True)]
                # None of the unlikely ones ever has more than a likely one.
                second, first = sorted([0.0, *sums[:-1]])[-2:]
                if first - second > self.n_trial - trial:
                    break
            likely = iter(sums)
            self.langprob = [next(likely) / self.n_trial if each else 0.0 for each in is_likely]

        def _shares(
            self, shares: list[float], drawn: Callable[[], list[float]], weight: float
        ) -> list[float]:
            """Draw n-grams until one language has all but nothing of what there is."""
            shares = [share * (weight + q) for share, q in zip(shares, drawn(), strict=True)]
            for draws in itertools.count(0, 5):
                total = sum(shares)
                if max(shares) > self.CONV_THRESHOLD * total or draws >= self.ITERATION_LIMIT:
                    return [share / total for share in shares]
                shares = [
                    share / total * (weight + q1) * (weight + q2) * (weight + q3)
                    * (weight + q4) * (weight + q5)
                    for share, q1, q2, q3, q4, q5 in zip(
                        shares, drawn(), drawn(), drawn(), drawn(), drawn(), strict=True
                    )
                ]  # fmt: skip

    factory = Factory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(0)
    return factory


class _Detecting:
    """A process that detects languages, given texts without waiting for its answers.

    It reads lines of texts and writes lines of tags, in the same order.
    """

    def __init__(self) -> None:
        folder = os.path.dirname(os.path.abspath(__file__))
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path.insert(0, {folder!r})\n"
                "from flickr import _answer_detections; _answer_detections()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # Ctrl-C in a terminal goes to every process of its group.
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._to_ask: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._asked: collections.deque[tuple[list[str], _Tags]] = collections.deque()
        self._ended = False
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._write, self._read)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self._process.kill()
            raise OSError(str(error)) from None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more can be asked."""
        return self._ended

    @property
    def load(self) -> int:
        """How many answers are awaited."""
        return len(self._asked)

    def ask(self, texts: list[str]) -> _Tags:
        """Return the tags of texts, to be.

        BrokenPipeError if the process has ended, CancelledError if it was closed.
        """
        tags: _Tags = concurrent.futures.Future()
        with self._lock:
            if self._ended:
                tags.set_exception(BrokenPipeError())
            else:
                self._asked.append((texts, tags))
                self._to_ask.put(texts)
        return tags

    def close(self) -> None:
        """End the process; what it was asked is cancelled."""
        for _, tags in list(self._asked):
            tags.cancel()
        self._process.kill()
        self._process.wait()
        self._to_ask.put([])
        for thread in self._threads:
            thread.join(1.0)

    def _write(self) -> None:
        # Where the process has ended, the reader says so for all that is asked.
        with contextlib.suppress(OSError), self._process.stdin as pipe:
            while texts := self._to_ask.get():
                pipe.write(json.dumps(texts) + "\n")
                pipe.flush()

    def _read(self) -> None:
        # Anything else than an answer ends it as well.
        odd = OSError, ValueError, TypeError, IndexError, concurrent.futures.InvalidStateError
        with contextlib.suppress(*odd), self._process.stdout as pipe:
            for line in pipe:
                texts, answer = self._asked[0]
                answer.set_result(dict(zip(texts, json.loads(line), strict=True)))
                self._asked.popleft()
        with self._lock:
            self._ended = True
        for _, answer in self._asked:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                answer.set_exception(BrokenPipeError())
        self._to_ask.put([])


# The tags of texts, as they will be.
_Tags = concurrent.futures.Future[dict[str, str]]


class LanguageDetector:
    """Detects the languages of many labels, in processes of its own.

    Detection is by far the heaviest computation of a mirror; in the same process it would
    take its time from the downloads. The processes are started when needed, give way to the
    downloads where there are not enough cores for all, and end with this one.

    :param processes: How many at most, of some 60 MB each; with 0 detection happens in the
        calling thread.
    """

    MOST_KNOWN = 10_000
    TEXTS_AT_A_TIME = 20

    def __init__(self, processes: int) -> None:
        self._most_processes = processes
        self._processes: list[_Detecting] = []
        self._lock = threading.Lock()
        self._tags: dict[str, str | _Tags] = {}

    def start(self) -> None:
        """Start a process ahead of the first label: one takes its time to come up."""
        with self._lock:
            if not self._processes:
                self._least_busy()

    def foresee(self, labels: Iterable[Label]) -> None:
        """Begin with labels that :meth:`detect` will be asked for, the first one first."""
        self._ask(letters_of(label.content) for label in labels if not label._locale)

    def detect(self, labels: Iterable[Label]) -> None:
        """See to it that each label has its locale.

        :raise concurrent.futures.CancelledError: If :meth:`close` comes in between.
        """
        waiting = [(label, letters_of(label.content)) for label in labels if not label._locale]
        tags = self._ask(letters for _, letters in waiting)
        for label, letters in waiting:
            label._locale = Locale.from_string(self._tag_of(letters, tags.get(letters)))

    def close(self) -> None:
        """End the processes; more labels would start new ones."""
        with self._lock:
            processes, self._processes = self._processes, []
            self._tags = {text: tag for text, tag in self._tags.items() if isinstance(tag, str)}
        for process in processes:
            process.close()

    def _ask(self, texts: Iterable[str]) -> dict[str, str | _Tags]:
        """Return the tags of texts, those that there are and those to be.

        Texts without letters are left out, and all that there is no process for.
        """
        wanted = dict.fromkeys(text for text in texts if any(map(str.isalpha, text)))
        with self._lock:
            if len(self._tags) > self.MOST_KNOWN:
                self._tags = {}
            unknown = [text for text in wanted if text not in self._tags]
            for start in range(0, len(unknown), self.TEXTS_AT_A_TIME):
                some = unknown[start : start + self.TEXTS_AT_A_TIME]
                process = self._least_busy()
                if process is not None:
                    tags = process.ask(some)
                    self._tags.update(dict.fromkeys(some, tags))
                    tags.add_done_callback(self._take_down)
            return {text: self._tags[text] for text in wanted if text in self._tags}

    def _take_down(self, tags: _Tags) -> None:
        if not tags.cancelled() and tags.exception() is None:
            self._tags.update(tags.result())

    def _tag_of(self, letters: str, tags: str | _Tags | None) -> str:
        if isinstance(tags, concurrent.futures.Future):
            try:
                return tags.result()[letters]
            except OSError:
                # It was killed, or never came up: this process can do it too.
                LOGGER.debug("A process that detects languages ended; going on without it")
                tags = self._tags[letters] = detect_language_tag(letters)
        return tags if isinstance(tags, str) else detect_language_tag(letters)

    def _least_busy(self) -> _Detecting | None:
        alive = (each for each in self._processes if not each.has_ended)
        process = min(alive, key=lambda each: each.load, default=None)
        if len(self._processes) < self._most_processes and (process is None or process.load >= 2):
            try:
                process = _Detecting()
            except OSError as error:
                LOGGER.debug("No process to detect languages: %s", error)
            else:
                self._processes.append(process)
        return process


def _answer_detections() -> None:
    if hasattr(os, "nice"):
        os.nice(5)
    for line in sys.stdin:
        print(json.dumps([detect_language_tag(text) for text in json.loads(line)]), flush=True)


# ---------------------------------------------------------------------------------------
# 2. Flickr's things: user, size, photo
# ---------------------------------------------------------------------------------------


def _text_of(payload: Any) -> str:
    """Return a text as Flickr gives it: ``"text"`` or ``{"_content": "text"}``.

    :raise ValueError: If it is neither.
    """
    if isinstance(payload, dict):
        payload = payload.get("_content")
    if payload is None:
        return ""
    if isinstance(payload, str):
        return payload
    if isinstance(payload, int | float) and not isinstance(payload, bool):
        return str(payload)
    raise ValueError(f"not a text: {_excerpt(payload)}")


def _number_of(payload: Any) -> int | None:
    """Return a number as Flickr gives it (``75``, ``"150"``), None for ``""`` and null."""
    if isinstance(payload, dict):
        payload = payload.get("_content")
    if isinstance(payload, str):
        digits = payload.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
    if isinstance(payload, int) and not isinstance(payload, bool):
        return payload if 0 <= payload < 10**18 else None
    return None


def _excerpt(payload: Any) -> str:
    """Return the start of anything that came from Flickr, for an error message."""
    text = repr(payload)
    return text if len(text) <= 60 else f"{text[:57]}..."


class FlickrUser:
    """A member of Flickr.

    :param user_id: NSID, such as ``13476480@N07``.
    :param username: The name that people know them by, such as ``manhhai``.
    """

    def __init__(self, user_id: str, username: str) -> None:
        self._user_id = user_id
        self._username = username

    @staticmethod
    def from_json(payload: Mapping[str, Any]) -> FlickrUser:
        """Return the user that ``flickr.people.findByUsername`` answered with.

        :raise ValueError: If the payload does not describe a user.
        """
        if not isinstance(payload, Mapping):
            raise ValueError(f"not a Flickr user: {_excerpt(payload)}")
        user_id = payload.get("nsid") or payload.get("id")
        if not isinstance(user_id, str) or not re.fullmatch(r"[0-9A-Za-z@_-]{1,40}", user_id):
            raise ValueError(f"a Flickr user without an NSID: {_excerpt(payload)}")
        return FlickrUser(user_id, _text_of(payload.get("username")))

    @property
    def user_id(self) -> str:
        """The user's NSID."""
        return self._user_id

    @property
    def id(self) -> str:
        """The user's NSID, as :attr:`user_id`."""
        return self._user_id

    @property
    def username(self) -> str:
        """The user's name."""
        return self._username

    def __repr__(self) -> str:
        return f"<FlickrUser object at {id(self):#x}>"


class FlickrPhotoSize:
    """One of the resolutions in which Flickr offers a photo.

    :param label: Flickr's name of it: ``Large 1600``, ``Original``.
    :param width: Pixel columns, or None where Flickr does not say (some videos).
    :param height: Pixel rows, or None.
    :param url: Address of the file.
    :param media: ``photo``, or ``video`` for the playable files of a video.
    """

    def __init__(
        self, label: str, width: int | None, height: int | None, url: str, media: str = "photo"
    ) -> None:
        self._label = label
        self._width = width
        self._height = height
        self._url = url
        self._media = media
        self._pixels = (width or 0) * (height or 0)

    @staticmethod
    def from_json(payload: Mapping[str, Any]) -> FlickrPhotoSize:
        """Return a size as a row of ``flickr.photos.getSizes`` gives it.

        :raise ValueError: If the payload does not describe a size.
        """
        if not isinstance(payload, Mapping) or not isinstance(payload.get("source"), str):
            raise ValueError(f"not a size of a photo: {_excerpt(payload)}")
        return FlickrPhotoSize(
            _text_of(payload.get("label")),
            _number_of(payload.get("width")),
            _number_of(payload.get("height")),
            payload["source"],
            payload.get("media") or "photo",
        )

    @property
    def label(self) -> str:
        """Flickr's name of the size."""
        return self._label

    @property
    def width(self) -> int | None:
        """Pixel columns."""
        return self._width

    @property
    def height(self) -> int | None:
        """Pixel rows."""
        return self._height

    @property
    def url(self) -> str:
        """Address of the file."""
        return self._url

    @property
    def media(self) -> str:
        """``photo`` or ``video``."""
        return self._media

    @property
    def pixels(self) -> int:
        """Number of pixels; 0 where Flickr does not tell both sides."""
        return self._pixels


# Suffixes of the listing's url_X, width_X, height_X fields, in the order of Flickr's labels.
SIZE_LABELS = {
    "sq": "Square",
    "q": "Large Square",
    "t": "Thumbnail",
    "s": "Small",
    "n": "Small 320",
    "w": "Small 400",
    "m": "Medium",
    "z": "Medium 640",
    "c": "Medium 800",
    "l": "Large",
    "h": "Large 1600",
    "k": "Large 2048",
    "3k": "X-Large 3K",
    "4k": "X-Large 4K",
    "f": "X-Large 4K",
    "5k": "X-Large 5K",
    "6k": "X-Large 6K",
    "o": "Original",
}

# Playable files of a video, best first. `Video Player` is a Flash page and not a file;
# `Video Original` is given to its owner only.
VIDEO_LABELS = (
    "orig", "1080p", "720p", "360p", "288p", "700", "300", "100", "appletv", "iphone_wifi",
)  # fmt: skip


# Flickr's names of its licences, by their numbers (flickr.photos.licenses.getInfo).
LICENSE_NAMES = {
    0: "All Rights Reserved",
    1: "Attribution-NonCommercial-ShareAlike License",
    2: "Attribution-NonCommercial License",
    3: "Attribution-NonCommercial-NoDerivs License",
    4: "Attribution License",
    5: "Attribution-ShareAlike License",
    6: "Attribution-NoDerivs License",
    7: "No known copyright restrictions",
    8: "United States Government Work",
    9: "Public Domain Dedication (CC0)",
    10: "Public Domain Mark",
}

# What the listing is asked for at information level 3.
DETAIL_EXTRAS = (
    "license", "date_upload", "date_taken", "last_update", "owner_name", "original_format",
    "o_dims", "geo", "tags", "machine_tags", "views", "media", "path_alias",
)  # fmt: skip


def iso_date_of(seconds: int | None) -> str | None:
    """Return a date in ISO 8601, UTC, from seconds since 1970."""
    if seconds is None or seconds > 253_402_300_799:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()


class FlickrPhoto:
    """A photo, or a video, of a photostream.

    :param photo_id: Flickr's identification of the photo.
    :param title: The title; its language is detected on first use unless it is a label.
    """

    def __init__(self, photo_id: str, title: str | Label) -> None:
        self._id = photo_id
        self._title = title if isinstance(title, Label) else Label.detecting(title)
        self._description: Label | None = None
        self._comments: list[Label] | None = None
        # Most runs look at most photos to see that they are there already.
        self._sizes: list[FlickrPhotoSize] | None = None
        self._comment_count: int | None = None
        self._media = "photo"
        self._row: Mapping[str, Any] = {}

    @staticmethod
    def from_json(payload: Mapping[str, Any]) -> FlickrPhoto:
        """Return the photo of a row of ``flickr.people.getPhotos``, extras included.

        :raise ValueError: If the payload does not describe a photo.
        """
        if not isinstance(payload, Mapping):
            raise ValueError(f"not a photo: {_excerpt(payload)}")
        photo_id = payload.get("id")
        if isinstance(photo_id, int) and not isinstance(photo_id, bool):
            photo_id = str(photo_id)
        if not isinstance(photo_id, str) or not re.fullmatch("[0-9]{1,30}", photo_id, re.ASCII):
            raise ValueError(f"not the id of a photo: {_excerpt(photo_id)}")
        photo = FlickrPhoto(photo_id, _text_of(payload.get("title")))
        if payload.get("description") is not None:
            photo.description = _text_of(payload["description"])
        photo._row = payload
        photo._comment_count = _number_of(payload.get("count_comments"))
        photo._media = "video" if payload.get("media") == "video" else "photo"
        return photo

    @property
    def id(self) -> str:
        """Flickr's identification of the photo."""
        return self._id

    @property
    def title(self) -> Label:
        """The title."""
        return self._title

    @property
    def description(self) -> Label | None:
        """The description, set as text; None while it is not known."""
        return self._description

    @description.setter
    def description(self, description: str) -> None:
        self._description = Label.detecting(description)

    @property
    def comments(self) -> list[Label] | None:
        """The comments, set as texts; None while they are not known."""
        return self._comments

    @comments.setter
    def comments(self, comments: Iterable[str]) -> None:
        self._comments = [Label.detecting(comment) for comment in comments]

    @property
    def comment_count(self) -> int | None:
        """Number of comments, None where the listing does not tell."""
        return self._comment_count

    @property
    def media(self) -> str:
        """``photo`` or ``video``."""
        return self._media

    @property
    def upload_date(self) -> int | None:
        """When the photo was uploaded, in seconds since 1970; None where it is not known."""
        return _number_of(self._row.get("dateupload"))

    @property
    def last_update(self) -> int | None:
        """When anything of the photo changed last, in seconds since 1970, or None."""
        return _number_of(self._row.get("lastupdate"))

    def details(self, user: FlickrUser) -> dict[str, Any]:
        """Return what the listing tells of the photo besides its texts.

        What the listing left out is None. The shape is that of information level 3.

        :param user: The owner.
        """
        row = self._row
        home = row.get("pathalias") if isinstance(row.get("pathalias"), str) else ""
        license_number = _number_of(row.get("license"))
        original = row.get("originalformat")
        details: dict[str, Any] = {
            "id": self._id,
            "url": f"https://www.flickr.com/photos/{home or user.id}/{self._id}/",
            "owner": {"nsid": user.id, "username": user.username},
            "dates": {
                "taken": _taken_date_of(row),
                "taken_granularity": _number_of(row.get("datetakengranularity")),
                "uploaded": iso_date_of(self.upload_date),
                "last_updated": iso_date_of(self.last_update),
            },
            "tags": _words_of(row.get("tags")),
            "machine_tags": _words_of(row.get("machine_tags")),
            "license": {"number": license_number, "name": LICENSE_NAMES.get(license_number)},
        }
        location = _location_of(row)
        if location is not None:
            details["location"] = location
        details["views"] = _number_of(row.get("views"))
        details["media"] = self._media
        details["original"] = {
            "format": original if isinstance(original, str) and original else None,
            "width": _number_of(row.get("o_width")),
            "height": _number_of(row.get("o_height")),
        }
        return details

    @property
    def sizes(self) -> list[FlickrPhotoSize]:
        """The sizes that Flickr offers, in its order; empty while they are not known."""
        if self._sizes is None:
            self.sizes = _sizes_of(self._row)
        return self._sizes

    @sizes.setter
    def sizes(self, sizes: Iterable[FlickrPhotoSize]) -> None:
        sizes = list(sizes)
        if any(size.media == "video" for size in sizes):
            self._media = "video"
        pictures = [each for each in sizes if each.media == "photo" and each.pixels]
        self._best_size = max(pictures, key=lambda size: size.pixels, default=None)
        self._best_original = max(
            pictures, key=lambda size: (size.pixels, size.label == "Original"), default=None
        )
        # Last, as another thread may be looking.
        self._sizes = sizes

    @property
    def best_size(self) -> FlickrPhotoSize | None:
        """The picture with most pixels, of equal ones the first in Flickr's order.

        None while no size with both a width and a height is known. A video's best size is
        its largest poster frame: see :attr:`films` for the rest.
        """
        return self._best_size if self.sizes else None

    @property
    def best_original(self) -> FlickrPhotoSize | None:
        """As :attr:`best_size`; but of equal ones Original, the file as it was uploaded."""
        return self._best_original if self.sizes else None

    @property
    def films(self) -> list[FlickrPhotoSize]:
        """The playable files of a video, best first."""
        films = {size.label: size for size in self.sizes if size.media == "video"}
        return [films[label] for label in VIDEO_LABELS if label in films]

    @functools.cached_property
    def digest(self) -> str:
        """What the photo's files are named after: 32 hexadecimal digits."""
        return hashlib.md5(f"flickr.{self._id}".encode(), usedforsecurity=False).hexdigest()

    @property
    def image_filename(self) -> str:
        """Name of the image file: the digest, and the extension of the best size's address.

        ``.jpg`` while no size is known. The original of a photo may be a PNG or a GIF.
        """
        return self.filename_of(self.best_size)

    def filename_of(self, size: FlickrPhotoSize | None) -> str:
        """Return the name of the image file for a size."""
        extension = size and re.match(
            r"[^?#]*[^/?#]/[^/?#]*\.(jpe?g|png|gif|tiff?|webp|bmp)(?=$|[?#])",
            size.url,
            re.IGNORECASE,
        )
        return f"{self.digest}.{extension.group(1).lower() if extension else 'jpg'}"

    @property
    def video_filename(self) -> str:
        """Name of a video's film."""
        return f"{self.digest}.mp4"

    @property
    def info_filename(self) -> str:
        """Name of the file that holds the photo's texts."""
        return f"{self.digest}.json"


def _sizes_of(row: Mapping[str, Any]) -> list[FlickrPhotoSize]:
    """Return the sizes that a row of the listing tells of."""
    return [
        FlickrPhotoSize(
            label, _number_of(row.get(width_key)), _number_of(row.get(height_key)), row[url_key]
        )
        for label, url_key, width_key, height_key in _SIZE_KEYS
        # Flickr gives "" for some sizes that an old photo lacks.
        if isinstance(row.get(url_key), str) and row[url_key]
    ]


_SIZE_KEYS = [
    (label, f"url_{suffix}", f"width_{suffix}", f"height_{suffix}")
    for suffix, label in SIZE_LABELS.items()
]


def _taken_date_of(row: Mapping[str, Any]) -> str | None:
    """Return when a photo was taken, in ISO 8601 and nobody knows which time zone."""
    taken = row.get("datetaken")
    if not isinstance(taken, str) or str(row.get("datetakenunknown", "0")) != "0":
        return None
    return taken.strip().replace(" ", "T") or None


def _words_of(payload: Any) -> list[str] | None:
    return payload.split() if isinstance(payload, str) else None


def _location_of(row: Mapping[str, Any]) -> dict[str, float | int] | None:
    """Return where a photo was taken; Flickr gives zeros for one that does not tell."""
    try:
        latitude, longitude = float(row["latitude"]), float(row["longitude"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    accuracy = _number_of(row.get("accuracy"))
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or not (
        latitude or longitude or accuracy
    ):
        return None
    return {"latitude": latitude, "longitude": longitude, "accuracy": accuracy}


# ---------------------------------------------------------------------------------------
# 3. Flickr's API: errors, pacing, FlickrApi
# ---------------------------------------------------------------------------------------

FLICKR_API_URL = "https://www.flickr.com/services/rest/"

# Under 3,600 calls an hour for one key: https://www.flickr.com/services/developer/api/
CALLS_PER_HOUR = 3600

LARGEST_PAGE = 500

# Answers that pass with time, says Flickr; every other code is its last word.
PASSING_CODES = frozenset({0, 105, 106, 201})

# "Photo not found" and "Permission denied", of the methods that ask for one photo.
PHOTO_GONE_CODES = frozenset({1, 2})


class FlickrError(Exception):
    """What Flickr refused: ``str(error)`` is Flickr's message.

    :ivar code: Flickr's number of the error, None where there was no answer to take it from.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class FlickrUnavailable(FlickrError):
    """No usable answer, however often it was asked for: Flickr or the line is down."""


class FlickrThrottled(FlickrUnavailable):
    """One of Flickr's services refuses everything, however long the pauses: try much later."""


class Stopped(Exception):
    """The program was asked to stop while this was under way."""


class PassingTrouble(Exception):
    """One attempt failed in a way that another one may not."""


class TooManyRequests(PassingTrouble):
    """Flickr asks for a pause.

    :ivar seconds: How long, None where it does not say.
    """

    def __init__(self, seconds: float | None) -> None:
        super().__init__("Flickr asks for fewer requests (HTTP status 429)")
        self.seconds = seconds


class Clock:
    """Time, and the wish to stop, as the rest of the program sees them.

    A test holds one of its own in its place: nothing else here reads the time or sleeps.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()

    def now(self) -> float:
        """Return seconds of a clock that only ever goes forward."""
        return time.monotonic()

    def date(self) -> float:
        """Return the date, in seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let seconds go by.

        :raise Stopped: If the program was asked to stop, as soon as it is.
        """
        if self._stop.wait(max(0.0, seconds)):
            raise Stopped

    def stop(self) -> None:
        """Wake every sleeper."""
        self._stop.set()

    def go_on(self) -> None:
        """Take back :meth:`stop`."""
        self._stop.clear()

    def check(self) -> None:
        """Return, or raise.

        :raise Stopped: If the program was asked to stop.
        """
        if self._stop.is_set():
            raise Stopped


class CallBudget:
    """Which calls Flickr's limit lets through: so many in any hour, at what pace ever.

    A short run is not held up at all; a long one makes as many calls as the limit permits.

    :param calls_per_hour: The limit, at least 1.
    """

    WINDOW = 3600.0

    def __init__(self, calls_per_hour: int = CALLS_PER_HOUR) -> None:
        self.calls_per_hour = calls_per_hour
        self._calls: collections.deque[float] = collections.deque(maxlen=calls_per_hour)

    def wait(self, now: float) -> float:
        """Return the seconds until the next call may be made, 0 if it may be made now."""
        if len(self._calls) < self.calls_per_hour:
            return 0.0
        return max(0.0, self._calls[0] + self.WINDOW - now)

    def spend(self, now: float) -> None:
        """Take a call made now into account."""
        self._calls.append(now)

    def spent(self, since: float, now: float, date: float) -> dict[int, int]:
        """Return how many calls were made in which minute since 1970, from a moment on.

        :param date: The present, in seconds since 1970.
        """
        return collections.Counter(
            int((call - now + date) // 60) for call in self._calls if call >= since
        )

    def recall(self, spent: Mapping[int, int], now: float, date: float) -> None:
        """Take the calls of earlier runs into account, as made at the end of their minutes.

        :param spent: As :meth:`spent` returned it; what is older than the limit reaches, or
            not to come before the present, is left out.
        :param date: The present, in seconds since 1970.
        """
        this_minute = date // 60
        earlier = [
            now + min(0.0, 60.0 * (minute + 1) - date)
            for minute in spent
            if this_minute - self.WINDOW / 60 <= minute <= this_minute
            for _ in range(min(spent[minute], self.calls_per_hour))
        ]
        calls = sorted([*earlier, *self._calls])
        self._calls = collections.deque(calls, maxlen=self.calls_per_hour)


# Another attempt follows a failed one after about half a second, then 1, 2, 4, 8.
ATTEMPTS = 6
FIRST_DELAY = 0.5

# Without word from Flickr of how long, pauses are of about 5, 10, 20, 40, 80 seconds; a
# request that was held up for this long and is refused once more is given up; and so is the
# service, once it has refused everything for that long.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
PATIENCE = 120.0
LONGEST_REFUSAL = 2700.0


def back_off_delay(failures: int, chance: float) -> float:
    """Return the seconds to wait after so many failed attempts (1 or more).

    :param chance: A random number of 0 to 1: clients that failed together shall not come
        back together.
    """
    return FIRST_DELAY * 2.0 ** (failures - 1) * (0.75 + chance / 2)


def pause_length(asked_for: float | None, pauses: int, chance: float) -> float:
    """Return the seconds to send nothing.

    :param asked_for: What Flickr's Retry-After header said, in seconds, if it said anything.
    :param pauses: How many pauses came before this one without a good answer between.
    :param chance: A random number of 0 to 1.
    """
    if asked_for is not None:
        return max(1.0, asked_for)
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**pauses) * (1.0 + chance / 4)


def retry_after_seconds(header: str | None, date: float) -> float | None:
    """Return what a Retry-After header asks for, None where there is no sense in it.

    :param header: A number of seconds or an HTTP date (RFC 9110, 10.2.3).
    :param date: The present, in seconds since 1970.
    """
    if header is None:
        return None
    if re.fullmatch("[0-9]{1,6}", header.strip(), re.ASCII):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - date)
    except (TypeError, ValueError, OverflowError):
        return None


def span_of(seconds: float) -> str:
    """Return a length of time as people say it: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


Answer = TypeVar("Answer")


class Service:
    """One of Flickr's services, the API or the image servers, as a polite client uses it.

    Every request goes through :meth:`ask`, from any number of threads. It is made within
    the budget, never into a pause, and again for as long as that may help.

    :param name: What messages call it.
    :param budget: The limit on its calls, None for none.
    :param places: Most requests at one time, None for any number. For a while after Flickr
        asked for a pause there are fewer.
    :param chance: Source of random numbers of 0 to 1.
    """

    SUCCESSES_PER_PLACE = 25

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        budget: CallBudget | None = None,
        places: int | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.requests = 0
        self._clock = clock
        self._budget = budget
        self._chance = chance
        self._most_places = places
        self._places = places
        self._in_flight = 0
        self._successes = 0
        self._pauses = 0
        self._pause_end = 0.0
        self._pause_announced = 0.0
        self._refused_since: float | None = None
        self._given_up_at: float | None = None
        self._lock = threading.Lock()
        self._waiting: collections.deque[threading.Event] = collections.deque()

    def ask(self, request: Callable[[], Answer]) -> Answer:
        """Return what a request returns, attempted as often as it takes.

        :param request: Makes one attempt. What it raises is final, except for
            :class:`PassingTrouble`.
        :raise FlickrUnavailable: If the trouble does not pass.
        :raise FlickrThrottled: If that was refused, and others before it, with no good answer
            between.
        :raise Stopped: If the program is asked to stop.
        """
        began = self._clock.now()
        failures = 0
        troubles: set[type[PassingTrouble]] = set()
        held_up = 0.0
        while True:
            started = self._enter()
            try:
                answer = request()
            except TooManyRequests as refusal:
                pause = self._pause(refusal.seconds, started)
                if held_up >= PATIENCE:
                    raise self._give_up(str(refusal), began) from None
                held_up += pause
            except PassingTrouble as trouble:
                failures += 1
                troubles.add(type(trouble))
                if failures == ATTEMPTS:
                    # The cause of all the failures, if they had but one.
                    cause = trouble if len(troubles) == 1 else None
                    raise FlickrUnavailable(f"{trouble}, {failures} times over") from cause
                LOGGER.debug("%s: %s; trying again", self.name, trouble)
                self._leave()
                started = None
                self._clock.sleep(back_off_delay(failures, self._chance()))
            else:
                self._succeeded(started)
                return answer
            finally:
                if started is not None:
                    self._leave()

    def _enter(self) -> float:
        """Wait for a place, the end of a pause and the budget; return when that was.

        Requests are let through in the order in which they asked.
        """
        turn = threading.Event()
        with self._lock:
            self._waiting.append(turn)
        try:
            while True:
                self._clock.check()
                with self._lock:
                    turn.clear()
                    wait = self._wait_for(turn)
                    if wait == 0:
                        self._in_flight += 1
                        self.requests += 1
                        return self._clock.now()
                if wait is None:
                    # Who goes before sets it; now and then there is a look whether to stop.
                    turn.wait(0.25)
                else:
                    self._clock.sleep(wait)
        finally:
            with self._lock:
                self._waiting.remove(turn)
                self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting[0].set()

    def _wait_for(self, turn: threading.Event) -> float | None:
        """Return the seconds until a request may be made, None until others have gone."""
        if self._waiting[0] is not turn:
            return None
        if self._places is not None and self._in_flight >= self._places:
            return None
        now = self._clock.now()
        wait = self._pause_end - now
        if wait <= 0 and self._budget is not None:
            wait = self._budget.wait(now)
            if wait == 0:
                self._budget.spend(now)
            else:
                self._announce_budget(wait, now)
        return max(0.0, wait)

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1
            self._wake_next()

    def _succeeded(self, started: float) -> None:
        with self._lock:
            if started < self._pause_end:
                # What was under way when a pause began says nothing of what comes after it.
                return
            self._pauses = 0
            self._refused_since = self._given_up_at = None
            if self._places is not None and self._places < self._most_places:
                self._successes += 1
                if self._successes >= self.SUCCESSES_PER_PLACE:
                    self._successes = 0
                    self._places += 1

    def _pause(self, asked_for: float | None, started: float) -> float:
        """Send nothing for a while; return the seconds from now until its end.

        Requests that were under way when a pause began are refused too: they belong to it.
        """
        with self._lock:
            now = self._clock.now()
            if self._refused_since is None:
                self._refused_since = now
            if asked_for is not None or started >= self._pause_end:
                seconds = pause_length(asked_for, self._pauses, self._chance())
                if started >= self._pause_end:
                    self._pauses += 1
                    self._successes = 0
                    if self._places is not None:
                        self._places = max(1, self._places // 2)
                if now + seconds > self._pause_end + 1.0:
                    LOGGER.warning(
                        "%s asks for fewer requests: pausing for %s",
                        self.name,
                        span_of(seconds),
                    )
                self._pause_end = max(self._pause_end, now + seconds)
            return max(0.0, self._pause_end - now)

    def _give_up(self, reason: str, began: float) -> FlickrUnavailable:
        """Return what to raise for a request that was refused for too long."""
        with self._lock:
            now = self._clock.now()
            # It may be the photo's trouble, until one that was begun after it fares no better.
            is_second = self._given_up_at is not None and began >= self._given_up_at
            if is_second and now - self._refused_since >= LONGEST_REFUSAL:
                return FlickrThrottled(
                    f"{self.name} has asked for fewer requests, and answered none, for"
                    f" {span_of(now - self._refused_since)}: run the same command again in some"
                    " hours"
                )
            self._given_up_at = now if self._given_up_at is None else self._given_up_at
            return FlickrUnavailable(reason)

    def _announce_budget(self, wait: float, now: float) -> None:
        if wait >= 5.0 and now + wait > self._pause_announced + 5.0:
            self._pause_announced = now + wait
            end = datetime.datetime.fromtimestamp(self._clock.date() + wait)
            LOGGER.warning(
                "%s allows %s calls an hour and they are made: going on in %s, at %s",
                self.name,
                f"{self._budget.calls_per_hour:,}",
                span_of(wait),
                end.strftime("%H:%M"),
            )


def _host_of(url: str) -> str:
    match = re.match(r"\w+://([\w.:-]+)", url)
    return match.group(1) if match else "the server"


def _new_session() -> requests.Session:
    """Return a session for one GET request after another: see :meth:`Session.fetch`.

    requests is imported here and where it is used, as it takes most of the time that this
    module would take to import.
    """
    import http.cookiejar

    import requests

    class Session(requests.Session):
        def __init__(self) -> None:
            super().__init__()
            # Flickr knows no passwords: none is to be looked for in ~/.netrc, nor sent.
            self.auth = _unchanged
            self.hooks["response"].append(_refuse_downgrade)
            self.headers["User-Agent"] = f"mirror-flickr/{__version__}"
            # Nor cookies: whoever looks at public photos need not be told from others.
            self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
            self._blank = self.prepare_request(requests.Request("GET", FLICKR_API_URL))
            self._settings: dict[str, Any] = {}

        def fetch(
            self, url: str, headers: Mapping[str, str], params: Any, timeout: tuple[float, float]
        ) -> requests.Response:
            """Return the answer to a GET request, its body still to be read.

            As :meth:`get` does for a session without cookies, for a fraction of what it takes:
            that works out anew, for each request, what is the same for all, and reads proxies
            and CAs from the environment.
            """
            request = self._blank.copy()
            request.headers.update(headers)
            if params or not _PLAIN_URL.fullmatch(url):
                request.prepare_url(url, params)
            else:
                request.url = url
            server = url.partition("://")[0] + _host_of(url)
            if server not in self._settings:
                self._settings[server] = self.merge_environment_settings(url, {}, True, None, None)
            return self.send(request, timeout=timeout, **self._settings[server])

        def rebuild_auth(self, *_: Any) -> None:
            """Look for no password where a server leads to another one either."""

    return Session()


# An address of which nothing is left to be quoted.
_PLAIN_URL = re.compile(r"https?://[a-z0-9.:-]+(?:/[\w~-][\w~.-]*)+", re.ASCII)


def _refuse_downgrade(response: requests.Response, **_: Any) -> None:
    """Refuse to be led from a connection that nobody overhears to one that everybody may."""
    if (
        response.is_redirect
        and response.url.startswith("https:")
        and response.headers["Location"].lower().startswith("http:")
    ):
        raise FlickrUnavailable("the server leads from https to http")


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Web:
    """Flickr's servers over kept-alive connections, with the environment's proxy and CAs.

    :param connections: Most connections kept to one server.
    :param stall: Seconds without a sign of life after which a body is given up; over the
        same time it must bring at least 1 KiB a second.
    """

    CHUNK = 128 * 1024
    CONNECT_SECONDS = 10.0
    SLOWEST = 1024

    def __init__(
        self, clock: Clock | None = None, *, connections: int = 16, stall: float = 30.0
    ) -> None:
        from requests.adapters import HTTPAdapter

        self.clock = clock or Clock()
        self.stall = stall
        self.session = _new_session()
        adapter = HTTPAdapter(pool_connections=8, pool_maxsize=connections + 4, max_retries=0)
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)
        _hide_keys_from_urllib3()

    @contextlib.contextmanager
    def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, params: Any = None
    ) -> Iterator[requests.Response]:
        """Give the answer to one GET request, its body still to be read.

        Whatever goes wrong up to the end of the block is told in words for people, which
        never hold the address: the API's has the key in it.

        :param headers: Those of this request alone.
        :param params: The address's query, by names.
        :raise TooManyRequests: If the server asks for a pause.
        :raise PassingTrouble: If another attempt may succeed.
        :raise FlickrUnavailable: If it may not.
        """
        import requests.exceptions as requests_exceptions
        from urllib3.exceptions import HTTPError

        if not re.match("https?://", url, re.IGNORECASE):
            raise FlickrUnavailable(f"not a web address: {_excerpt(url)}")
        try:
            with self._open(url, headers or {}, params) as response:
                if response.status_code == 429 or (
                    response.status_code == 503 and "Retry-After" in response.headers
                ):
                    raise TooManyRequests(
                        retry_after_seconds(response.headers.get("Retry-After"), self.clock.date())
                    )
                if response.status_code >= 500:
                    raise PassingTrouble(f"the server answers HTTP {response.status_code}")
                yield response
        except requests_exceptions.SSLError:
            raise FlickrUnavailable(
                f"the certificate of {_host_of(url)} does not verify; behind a proxy of your"
                " own, point REQUESTS_CA_BUNDLE to its certificates"
            ) from None
        except requests_exceptions.ProxyError:
            raise PassingTrouble(f"the proxy does not reach {_host_of(url)}") from None
        except requests_exceptions.TooManyRedirects:
            raise FlickrUnavailable("the server redirects for ever") from None
        except requests_exceptions.Timeout:
            raise PassingTrouble(f"{_host_of(url)} does not answer") from None
        except (
            requests_exceptions.InvalidSchema,
            requests_exceptions.InvalidURL,
            requests_exceptions.MissingSchema,
        ):
            raise FlickrUnavailable("the address leads to no web page") from None
        except (
            requests_exceptions.RequestException,
            HTTPError,
            ConnectionError,
            TimeoutError,
        ):
            raise PassingTrouble(f"the connection to {_host_of(url)} broke") from None

    def _open(self, url: str, headers: Mapping[str, str], params: Any) -> requests.Response:
        import requests.exceptions as requests_exceptions

        timeout = (self.CONNECT_SECONDS, self.stall)
        try:
            return self.session.fetch(url, headers, params, timeout)
        except requests_exceptions.RequestException:
            raise
        except ValueError:
            # What requests does not understand of an address that it is redirected to.
            raise requests_exceptions.InvalidURL from None

    def chunks(self, response: requests.Response, most: int) -> Iterator[bytes]:
        """Give the body piece by piece, each as soon as it is there.

        :param most: Bytes; a longer body is no such thing as asked for.
        :raise PassingTrouble: If the body trickles, or is shorter than announced.
        :raise FlickrUnavailable: If it does not end.
        :raise Stopped: If the program is asked to stop.
        """
        # requests' own iter_content waits for a whole chunk, and so for ever if it trickles;
        # read1 does not, but raises urllib3's errors untranslated.
        received = 0
        mark_time, mark_bytes = self.clock.now(), 0
        while chunk := response.raw.read1(self.CHUNK, decode_content=True):
            received += len(chunk)
            yield chunk
            if received > most:
                raise FlickrUnavailable(f"the answer does not end ({received:,} bytes)")
            self.clock.check()
            now = self.clock.now()
            if now - mark_time >= self.stall:
                if received - mark_bytes < self.SLOWEST * self.stall:
                    raise PassingTrouble("the answer trickles")
                mark_time, mark_bytes = now, received


class _KeyFilter(logging.Filter):
    """urllib3 logs each request's address, at DEBUG; the API's holds the key."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "api_key=" in message:
            record.msg = re.sub(r"api_key=[^&\s\"]*", "api_key=...", message)
            record.args = None
        return True


def _hide_keys_from_urllib3() -> None:
    for name in ("urllib3.connectionpool", "urllib3.connection"):
        logger = logging.getLogger(name)
        if not any(isinstance(each, _KeyFilter) for each in logger.filters):
            logger.addFilter(_KeyFilter())


@dataclasses.dataclass(frozen=True)
class PhotostreamPage:
    """A page of a photostream, as Flickr gave it.

    :ivar rows: A photo each, newest first; in its place, a ValueError for a row that makes
        no sense.
    :ivar page_count: Pages of this length in the photostream.
    :ivar photo_count: Photos in the photostream.
    """

    rows: Sequence[FlickrPhoto | ValueError]
    page_count: int
    photo_count: int


class FlickrApi:
    """Flickr's REST API, as far as it shows public photos.

    Calls are unsigned: the secret is kept for who builds on this class, and never sent.

    :param consumer_key: The API key.
    :param consumer_secret: The API key's secret.
    :param url: Address of the API; Flickr's, or that of the environment variable
        ``FLICKR_API_URL``, if left out.
    :param calls_per_hour: Most calls made in any hour.
    :param web: How the servers are reached.
    :param chance: Source of random numbers of 0 to 1, for the pauses between attempts.
    """

    LONGEST_ANSWER = 100 * 1024 * 1024

    def __init__(
        self,
        consumer_key: str,
        consumer_secret: str,
        *,
        url: str | None = None,
        calls_per_hour: int = CALLS_PER_HOUR,
        web: Web | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.__consumer_key = consumer_key
        self.__consumer_secret = consumer_secret
        self._url = url or os.environ.get("FLICKR_API_URL") or FLICKR_API_URL
        self._web = web or Web()
        self._budget = CallBudget(calls_per_hour)
        self._service = Service("Flickr's API", self._web.clock, budget=self._budget, chance=chance)

    @property
    def calls(self) -> int:
        """Number of calls made so far, repeated ones included."""
        return self._service.requests

    @property
    def budget(self) -> CallBudget:
        """The limit on the calls."""
        return self._budget

    def find_user(self, username: str) -> FlickrUser:
        """Return the user of that name (``flickr.people.findByUsername``).

        :raise FlickrError: If there is none: "User not found", code 1.
        """
        payload = self._call("flickr.people.findByUsername", "user", username=username)
        return _sensible(FlickrUser.from_json, payload)

    def get_photos(
        self, user_id: str, page: int = 1, per_page: int = 100
    ) -> tuple[list[FlickrPhoto], int, int]:
        """Return a page of a user's public photos (``flickr.people.getPhotos``).

        :param user_id: NSID of the user.
        :param page: 1 is the page of the newest photos.
        :param per_page: 1 to 500.
        :return: The photos, newest first; the number of pages; the number of photos.
        :raise ValueError: If page or per_page is out of its range.
        :raise FlickrError: If Flickr refuses.
        """
        answer = self.get_photostream_page(user_id, page, per_page)
        photos = [row for row in answer.rows if isinstance(row, FlickrPhoto)]
        return photos, answer.page_count, answer.photo_count

    def get_photostream_page(
        self, user_id: str, page: int = 1, per_page: int = 100, extras: Iterable[str] = ()
    ) -> PhotostreamPage:
        """Return a page of a user's public photos, with more of each at no further call.

        :param extras: Names of Flickr's, such as ``description`` and ``url_o``.
        :raise ValueError: If page or per_page is out of its range.
        :raise FlickrError: If Flickr refuses.
        """
        if not 1 <= per_page <= LARGEST_PAGE:
            raise ValueError(f"per_page is {per_page}, not of 1 to {LARGEST_PAGE}")
        if page < 1:
            raise ValueError(f"page is {page}, the first one is 1")
        parameters = {"user_id": user_id, "page": page, "per_page": per_page}
        if extras:
            parameters["extras"] = ",".join(extras)
        payload = self._call("flickr.people.getPhotos", "photos", **parameters)
        return _sensible(_photostream_page_of, payload)

    def get_photo_sizes(self, photo_id: str) -> list[FlickrPhotoSize]:
        """Return the sizes of a photo, in Flickr's order (``flickr.photos.getSizes``).

        :raise FlickrError: If Flickr refuses: "Photo not found", code 1.
        """
        payload = self._call("flickr.photos.getSizes", "sizes", photo_id=photo_id)
        return _sensible(lambda sizes: [FlickrPhotoSize.from_json(each) for each in sizes],
                         _rows_of(payload, "size"))  # fmt: skip

    def get_photo_description(self, photo_id: str) -> str:
        """Return the description of a photo, "" if it has none (``flickr.photos.getInfo``).

        :raise FlickrError: If Flickr refuses: "Photo not found", code 1.
        """
        payload = self._call("flickr.photos.getInfo", "photo", photo_id=photo_id)
        return _sensible(lambda photo: _text_of(photo.get("description")), payload)

    def get_photo_comments(self, photo_id: str) -> list[str]:
        """Return the comments on a photo, oldest first (``flickr.photos.comments.getList``).

        All of them come in one answer; where there are none it has no ``comment`` key.

        :raise FlickrError: If Flickr refuses: "Photo not found", code 1.
        """
        payload = self._call("flickr.photos.comments.getList", "comments", photo_id=photo_id)
        return _sensible(lambda comments: [_text_of(each) for each in comments],
                         _rows_of(payload, "comment"))  # fmt: skip

    def get_photo_info(self, photo_id: str) -> tuple[str, list[str]]:
        """Return the description of a photo and the comments on it.

        :raise FlickrError: If Flickr refuses: "Photo not found", code 1.
        """
        return self.get_photo_description(photo_id), self.get_photo_comments(photo_id)

    def _call(self, method: str, key: str, **parameters: Any) -> Mapping[str, Any]:
        """Return what an API method answers with under its key."""
        parameters = {
            "method": method,
            "api_key": self.__consumer_key,
            "format": "json",
            "nojsoncallback": 1,
            **parameters,
        }

        def attempt() -> Mapping[str, Any]:
            with self._web.get(self._url, params=parameters) as response:
                body = b"".join(self._web.chunks(response, self.LONGEST_ANSWER))
                return _payload_of(body, response.status_code, key)

        return self._service.ask(attempt)


def _payload_of(body: bytes, status: int, key: str) -> Mapping[str, Any]:
    """Return an answer's payload under its key.

    :raise FlickrError: If the answer is a refusal.
    :raise PassingTrouble: If it is no answer of the API: at times Flickr gives an HTML page
        or nothing at all, and a good answer when asked again.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        if status >= 400:
            raise FlickrUnavailable(f"Flickr's API answers HTTP {status}") from None
        raise PassingTrouble("Flickr's API answers something else than JSON") from None
    if not isinstance(answer, dict):
        raise PassingTrouble("Flickr's API answers no object")
    if answer.get("stat") == "fail":
        code = answer.get("code")
        code = int(code) if re.fullmatch("-?[0-9]{1,9}", str(code), re.ASCII) else None
        message = str(answer.get("message", "Flickr gives no reason"))
        if code in PASSING_CODES:
            raise PassingTrouble(f"Flickr says: {message} (code {code})")
        raise FlickrError(message, code)
    if not isinstance(answer.get(key), dict):
        raise PassingTrouble(f"Flickr's API answers without {key!r}")
    return answer[key]


def _rows_of(payload: Mapping[str, Any], key: str) -> list[Any]:
    rows = payload.get(key)
    return rows if isinstance(rows, list) else []


def _photostream_page_of(payload: Mapping[str, Any]) -> PhotostreamPage:
    photo_count = _number_of(payload.get("total"))
    if photo_count is None:
        raise ValueError(f"a photostream without a total: {_excerpt(payload.get('total'))}")
    rows: list[FlickrPhoto | ValueError] = []
    for row in _rows_of(payload, "photo"):
        try:
            rows.append(FlickrPhoto.from_json(row))
        except ValueError as error:
            rows.append(error)
    return PhotostreamPage(rows, _number_of(payload.get("pages")) or 0, photo_count)


def _sensible(read: Callable[[Any], Answer], payload: Any) -> Answer:
    """Return what a payload reads as.

    :raise FlickrUnavailable: If it makes no sense, or holds what makes none.
    """
    try:
        return read(payload)
    except ValueError as error:
        raise FlickrUnavailable(f"Flickr's answer makes no sense: {error}") from None


# ---------------------------------------------------------------------------------------
# 4. The cache on disk: names, atomic writes, lock
# ---------------------------------------------------------------------------------------

DEFAULT_CACHE_PATH = "~/.flickr"
KEYS_FILENAME = "flickr_keys"
DEFAULT_CACHE_DEPTH = 4

# A digest has 32 digits, one for each folder.
DEEPEST_CACHE = 32


class MirrorError(Exception):
    """Something that keeps the mirror from its work and that its user can mend.

    :ivar status: Exit status of the program: 1, or 2 for what was asked for wrongly.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def printable(text: str) -> str:
    """Return a text as it may be shown on a terminal, whoever wrote it.

    Control characters, those that turn the direction of writing, and halves of characters
    (lone surrogates) are shown as their codes.
    """
    return re.sub(
        "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda match: f"\\x{ord(match.group()):02x}",
        text,
    )


def folder_name_of(username: str, user_id: str) -> str:
    """Return the name of a user's folder in the cache: the username, wherever that will do.

    Usernames hold anything. One that is no portable name of a folder, or that would be
    hidden or taken for something else in the cache, is cleaned, cut and told apart by the
    user's NSID.
    """
    from pathvalidate import sanitize_filename

    def clean(text: str) -> str:
        name = sanitize_filename(printable(text), replacement_text="_", platform="universal")
        # A name may have 255 bytes; pathvalidate counts characters.
        return str(name).encode("utf-8", "ignore")[:150].decode("utf-8", "ignore").strip(" .")

    name = clean(username)
    if name and name == username and name.casefold() != KEYS_FILENAME:
        return name
    return f"{name} {clean(user_id)}".strip()


IMAGE_EXTENSIONS = (".jpg", ".png", ".gif", ".tif", ".webp")


# What files of each kind start with.
_SIGNATURES = (
    (".jpg", b"\xff\xd8\xff"),
    (".png", b"\x89PNG\r\n\x1a\n"),
    (".gif", b"GIF87a"),
    (".gif", b"GIF89a"),
    (".tif", b"II*\x00"),
    (".tif", b"MM\x00*"),
)


def kind_of(start: bytes) -> str | None:
    """Return the extension for a file that starts so, None if it is no image and no film.

    :param start: At least 12 bytes.
    """
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    if start[4:8] == b"ftyp":
        return ".mp4"
    return next((kind for kind, signature in _SIGNATURES if start.startswith(signature)), None)


def is_of_kind(start: bytes, extension: str) -> bool:
    """Tell whether a file that starts so may bear that extension."""
    kind = kind_of(start)
    extension = {".jpeg": ".jpg", ".tiff": ".tif"}.get(extension, extension)
    return kind is not None and (
        kind == extension or extension not in (".jpg", ".png", ".gif", ".tif", ".webp", ".mp4")
    )


def has_end(start: bytes, tail: bytes) -> bool:
    """Tell whether a JPEG, PNG or GIF file ends as nearly all do, by its first and last bytes.

    :param start: At least 12 bytes.
    :param tail: At least 16 bytes.
    """
    kind = kind_of(start)
    if kind == ".gif":
        return tail.rstrip(b"\0").endswith(b";")
    return (kind == ".jpg" and tail.endswith(b"\xff\xd9")) or (
        kind == ".png" and tail.endswith(_PNG_END)
    )


def is_cut_off(file: BinaryIO) -> bool:
    """Tell whether a JPEG, PNG, GIF or MP4 file lacks its end.

    Its length tells only as much as the server that announced it. What may stand behind the
    end, as the film of a motion photo does, is of no concern.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(16)
    file.seek(max(0, length - 64))
    if has_end(start, file.read(64)):
        return False
    kind = kind_of(start)
    if kind == ".jpg":
        return not _has_jpeg_end(file)
    if kind == ".png":
        return not _is_in(file, _PNG_END, 0)
    if kind == ".mp4":
        return _end_of_boxes(file, length) > length
    return kind == ".gif"


_PNG_END = b"IEND\xaeB`\x82"


def _has_jpeg_end(file: BinaryIO) -> bool:
    """Look for the end of a JPEG behind the start of its pixels.

    Before that, in the Exif data, there may be the end of a thumbnail.
    """
    position = 2
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if head[1] == 0xDA:
            return _is_in(file, b"\xff\xd9", position)
        if head[1] == 0xFF:
            return _is_in(file, b"\xff\xd9", position)
        position += 2 + int.from_bytes(head[2:], "big")


def _is_in(file: BinaryIO, wanted: bytes, position: int) -> bool:
    file.seek(position)
    rest = b""
    while chunk := file.read(1 << 20):
        if wanted in rest + chunk:
            return True
        rest = chunk[-len(wanted) :]
    return False


def _end_of_boxes(file: BinaryIO, length: int) -> int:
    """Return where the last of an MP4 file's boxes ends, which may be behind the file's end."""
    position = 0
    while position < length:
        file.seek(position)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size == 0 or len(head) < 8:
            # It goes on to the end of the file; or there is something else behind the boxes.
            return length
        position += max(8, size)
    return position


def is_whole_file(path: pathlib.Path) -> bool:
    """Tell whether an image can be decoded to its end, and a film begins like one."""
    from PIL import Image

    # The pictures are those that the user asked for, and some have more pixels than Pillow
    # believes anybody has.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with path.open("rb") as file:
            if not is_of_kind(file.read(16), path.suffix) or is_cut_off(file):
                return False
        if path.suffix == ".mp4":
            return True
        with Image.open(path) as image:
            # A JPEG is read to its end at an eighth of its size, and in as little memory.
            image.draft("L", (image.width // 8 or 1, image.height // 8 or 1))
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError):
        return False
    return True


# What each file's name has in it while it is written: never the same for two files.
_OWN_NAMES = map((secrets.token_hex(6) + "{:x}").format, itertools.count())


@contextlib.contextmanager
def written_whole(
    path: str | os.PathLike[str],
    mode: int = 0o666,
    *,
    date: int | None = None,
    partials: set[str] | None = None,
) -> Iterator[BinaryIO]:
    """Give a file to write that takes its name only once it is whole and on the disk.

    Until then it stands beside it under a name of its own, which :func:`remove_leftovers`
    knows. Whatever ends the block early leaves nothing.

    :param mode: Permissions of the file, less the umask, from its first byte on.
    :param date: Its modification time, in seconds since 1970; the present if left out.
    :param partials: Holds the file's own name as long as it has it.
    """
    folder, filename = os.path.split(path)
    name = os.path.join(folder, f".{filename}.{next(_OWN_NAMES)}{PARTIAL_SUFFIX}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(name, flags, mode)
    partials = set() if partials is None else partials
    partials.add(name)
    try:
        # What fits into the buffer is written in one go, once it is whole.
        with os.fdopen(handle, "wb", buffering=1 << 18) as file:
            yield file
            file.flush()
            if date is not None:
                os.utime(name, (date, date))
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    finally:
        partials.discard(name)


PARTIAL_SUFFIX = ".flickr-part"


def remove_leftovers(folder: pathlib.Path) -> int:
    """Remove what a killed run left half written; return the number of files."""
    leftovers = list(folder.rglob(f".*{PARTIAL_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make durable which files a folder holds, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        # Windows opens no folders.
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_bytes(payload: Any) -> bytes:
    """Return JSON that people can read, in UTF-8.

    A lone surrogate, which UTF-8 cannot hold, becomes the JSON escape that stands for it.
    """
    text = json.dumps(payload, ensure_ascii=False, indent=2)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _label_json(label: Label) -> dict[str, str]:
    return {"content": label.content, "locale": str(label.locale)}


def _forgets(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Tell whether new information lacks something lasting of what it replaces."""
    before, after = _lasting(before), _lasting(after)
    return any(before[key] != after.get(key) for key in before)


def info_level_of(info: Any) -> int:
    """Return the level that a JSON file's content is at, -1 if it is at none."""

    def is_label(payload: Any) -> bool:
        return isinstance(payload, dict) and all(
            isinstance(payload.get(key), str) for key in ("content", "locale")
        )

    if not isinstance(info, dict) or not is_label(info.get("title")):
        return -1
    if not is_label(info.get("description")):
        return 0
    comments = info.get("comments")
    if not isinstance(comments, list) or not all(map(is_label, comments)):
        return 1
    return 3 if "id" in info and isinstance(info.get("dates"), dict) else 2


def _lasting(info: dict[str, Any]) -> dict[str, Any]:
    """Return information without what changes at every look: views, and the last change."""
    dates = info.get("dates")
    lasting = {key: each for key, each in info.items() if key not in ("views", "dates")}
    if isinstance(dates, dict):
        lasting["dates"] = {key: each for key, each in dates.items() if key != "last_updated"}
    return lasting


def trouble_of(error: OSError) -> str:
    """Return what the system complains of, and about which file."""
    filename = error.filename2 or error.filename
    return f"{error.strerror or error}{f': {filename}' if filename else ''}"


class UserCache:
    """The folder of one user: images, information files, and the mirror's own two files.

    :param folder: Its path; made when something is first written.
    :param depth: Folders between it and the photos' files, 0 to 32.
    """

    STATE_FILENAME = ".mirror_flickr.state"
    LOCK_FILENAME = ".mirror_flickr.lock"
    SYNC_WORKERS = 4

    def __init__(self, folder: pathlib.Path, depth: int = DEFAULT_CACHE_DEPTH) -> None:
        self.folder = folder
        self.depth = depth
        self._root = os.path.join(folder)
        self._partials: set[str] = set()
        self._made: set[str] = set()
        self._unsynced: set[str] = set()
        self._lock = threading.Lock()

    def path_of(self, filename: str) -> pathlib.Path:
        """Return where a photo's file is, by its name: in ``f/b/2/e/`` at depth 4."""
        return pathlib.Path(self._name_of(filename))

    def _name_of(self, filename: str) -> str:
        # There are two files of each of millions of photos, and paths take ten times as long.
        return os.sep.join((self._root, *filename[: self.depth], filename))

    def has(self, filename: str) -> bool:
        """Tell whether a photo's file is there.

        :raise OSError: If that can't be told.
        """
        try:
            return stat.S_ISREG(os.stat(self._name_of(filename)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    @contextlib.contextmanager
    def writing(self, filename: str, date: int | None = None) -> Iterator[BinaryIO]:
        """Give a photo's file to write: see :func:`written_whole`."""
        name = self._name_of(filename)
        folder = os.path.dirname(name)
        self._make_folder(folder)
        with written_whole(name, date=date, partials=self._partials) as file:
            yield file
        with self._lock:
            self._unsynced.add(folder)

    def _make_folder(self, folder: str) -> None:
        if folder in self._made:
            return
        above = os.path.dirname(folder)
        if folder in (self._root, above):
            os.makedirs(folder, exist_ok=True)
        else:
            self._make_folder(above)
            try:
                os.mkdir(folder)
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise
        with self._lock:
            self._made.add(folder)
            self._unsynced.add(above)

    def keep_version(self, filename: str) -> None:
        """Keep what a file holds under its date too, before it is replaced.

        ``fb2e….json`` of 23 March 2020 becomes ``fb2e….20200323T084328Z.json`` as well.
        """
        path = self.path_of(filename)
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(path.stat().st_mtime))
        version = f"{path.stem}.{date}{path.suffix}"
        with path.open("rb") as old, self.writing(version, int(path.stat().st_mtime)) as copy:
            shutil.copyfileobj(old, copy)

    def date_of(self, filename: str) -> int | None:
        """Return a file's modification time, in seconds since 1970; None if it is not there."""
        try:
            return int(self.path_of(filename).stat().st_mtime)
        except FileNotFoundError:
            return None

    def digests(self) -> Iterator[str]:
        """Give the digest of each photo that has a file, in no particular order."""
        for _, folders, filenames in os.walk(self.folder):
            folders[:] = [name for name in folders if re.fullmatch("[0-9a-f]", name)]
            yield from {name[:32] for name in filenames if re.fullmatch(r"[0-9a-f]{32}\.\w+", name)}

    def drop_partials(self) -> None:
        """Remove what is being written, by threads that no longer answer."""
        for name in list(self._partials):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def read_info(self, filename: str) -> dict[str, Any] | None:
        """Return what an information file holds, None if it is not there or is damaged."""
        try:
            with open(self._name_of(filename), "rb") as file:
                info = json.loads(file.read())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return info if isinstance(info, dict) else None

    def read_state(self) -> Any:
        """Return what :meth:`write_state` wrote, None if it is not there.

        :raise ValueError: If it is damaged.
        """
        try:
            return json.loads((self.folder / self.STATE_FILENAME).read_bytes())
        except FileNotFoundError:
            return None
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def write_state(self, state: Any) -> None:
        """Replace the state file, in one go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.folder / self.STATE_FILENAME) as file:
            file.write(json.dumps(state, separators=(",", ":")).encode())

    def sync(self) -> None:
        """Make durable which files there are: sync each folder that something came into."""
        with self._lock:
            folders, self._unsynced = self._unsynced, set()
        names = iter(folders)

        def sync_some() -> None:
            # Each waits for the disk, not for the processor.
            for name in names:
                sync_folder(name)

        try:
            with concurrent.futures.ThreadPoolExecutor(self.SYNC_WORKERS) as threads:
                for done in [threads.submit(sync_some) for _ in range(self.SYNC_WORKERS)]:
                    done.result()
        except OSError:
            with self._lock:
                self._unsynced |= folders
            raise

    def found_depth(self) -> int | None:
        """Return the depth at which photos' files are found, None if there are none."""
        for path, folders, filenames in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if re.fullmatch("[0-9a-f]", name))
            if any(re.fullmatch(r"[0-9a-f]{32}\.\w+", name) for name in filenames):
                return len(pathlib.PurePath(path).relative_to(self.folder).parts)
        return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run out of the folder for the length of the block.

        The lock dies with its process.

        :raise MirrorError: If another run is at work in it.
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / self.LOCK_FILENAME)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise MirrorError(
                f"another run is mirroring into {self.folder}; wait for its end, or stop it"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _folded(name: str) -> str:
    """Return what two names have in common that some disks take for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _names_for(name: str, user_id: str) -> Iterator[str]:
    """Give the names that a user's folder may have, until one is not another user's."""
    yield name
    yield f"{name} {user_id}"
    yield from (f"{name} {user_id} {number}" for number in range(2, 100))


def open_user_cache(root: pathlib.Path, user: FlickrUser, depth: int) -> UserCache:
    """Return the folder of a user in the cache.

    The state file in it tells whose it is, by NSID: a user who was renamed on Flickr keeps
    the folder, and one who took another's old name gets a folder of their own.

    :raise MirrorError: If the folder was made with another depth.
    """
    name = folder_name_of(user.username, user.id)
    owners = {}
    for state_path in sorted(root.glob(f"*/{UserCache.STATE_FILENAME}")):
        owner = _state_of(UserCache(state_path.parent)).get("nsid")
        if owner == user.id:
            folder = state_path.parent
            if _folded(folder.name) not in {_folded(each) for each in _names_for(name, user.id)}:
                LOGGER.warning(
                    "%s was mirrored under another name: going on in %s", user.username, folder
                )
            break
        owners[_folded(state_path.parent.name)] = owner
    else:
        free = (each for each in _names_for(name, user.id) if not owners.get(_folded(each)))
        folder = root / next(free)
    cache = UserCache(folder, depth)
    made_with = _state_of(cache).get("cache_directory_depth", None)
    if made_with is None:
        made_with = cache.found_depth()
    if made_with not in (None, depth):
        raise MirrorError(
            f"{folder} was made with --cache-directory-depth {made_with}, not {depth}: use"
            f" {made_with}, or another --cache-path",
            status=2,
        )
    return cache


def calls_of(state: Mapping[str, Any]) -> dict[int, int]:
    """Return how many API calls a state file tells of, by the minute since 1970."""
    calls = state.get("calls")
    numbers = {
        _number_of(minute): _number_of(number)
        for minute, number in (calls.items() if isinstance(calls, dict) else ())
    }
    return {minute: number for minute, number in numbers.items() if minute and number}


def calls_in(root: pathlib.Path) -> dict[int, int]:
    """Return how many API calls all the state files of a cache tell of, by the minute."""
    calls: collections.Counter[int] = collections.Counter()
    for state_path in root.glob(f"*/{UserCache.STATE_FILENAME}"):
        # Whoever wants to work in a folder that can't be read is told so then.
        with contextlib.suppress(OSError):
            calls.update(calls_of(_state_of(UserCache(state_path.parent))))
    return calls


def _state_of(cache: UserCache) -> dict[str, Any]:
    try:
        state = cache.read_state()
    except ValueError:
        return {}
    if (
        not isinstance(state, dict)
        or not isinstance(state.get("nsid"), str)
        or state.get("cache_directory_depth") not in range(DEEPEST_CACHE + 1)
    ):
        return {}
    return state


# ---------------------------------------------------------------------------------------
# 5. What has been mirrored already
#
# Flickr numbers pages from the newest photo, so that every upload moves every photo. Here
# photos are numbered from the oldest, which is 1: as long as the user only adds photos,
# each keeps its number for ever, and what has been mirrored is a few ranges of numbers.
#
# Users delete photos too, and then the numbers of all newer ones change. Some photos near
# the newest are therefore remembered by number and id, the anchors: one that still has its
# number proves that nothing at or below it has gone. What lies above the highest anchor
# that fits is looked at again.
#
# Nothing here does any I/O.
# ---------------------------------------------------------------------------------------


class Ranges:
    """A set of whole numbers, kept as ranges: ``Ranges([(1, 500), (801, 900)])``.

    It is never changed: each method returns a new one.

    :param pairs: Lowest and highest number of each range, in any order.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        merged: list[tuple[int, int]] = []
        for low, high in sorted(pairs):
            if low > high:
                continue
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        self._pairs = tuple(merged)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Lowest and highest number of each range, ascending; they neither meet nor overlap."""
        return self._pairs

    def __repr__(self) -> str:
        return f"Ranges({list(self._pairs)})"

    def __eq__(self, other: object) -> bool:
        return self._pairs == other._pairs if isinstance(other, Ranges) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self._pairs)

    def __contains__(self, number: int) -> bool:
        return any(low <= number <= high for low, high in self._pairs)

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges(self._pairs + other._pairs)

    def __and__(self, other: Ranges) -> Ranges:
        return self - (self - other)

    def __sub__(self, other: Ranges) -> Ranges:
        left = []
        holes = collections.deque(other._pairs)
        for low, high in self._pairs:
            while holes and holes[0][1] < low:
                holes.popleft()
            while holes and holes[0][0] <= high:
                left.append((low, holes[0][0] - 1))
                low = holes[0][1] + 1
                if low > high:
                    break
                holes.popleft()
            left.append((low, high))
        return Ranges(left)

    def up_to(self, number: int) -> Ranges:
        """Return those that are not above a number."""
        return Ranges((low, min(high, number)) for low, high in self._pairs)

    @property
    def lowest(self) -> int | None:
        """The lowest number, None if there is none."""
        return self._pairs[0][0] if self._pairs else None

    @property
    def highest(self) -> int | None:
        """The highest number, None if there is none."""
        return self._pairs[-1][1] if self._pairs else None


def span(low: int, high: int) -> Ranges:
    """Return the numbers from low to high."""
    return Ranges([(low, high)])


NO_NUMBERS = Ranges()

HIGHEST_INFO_LEVEL = 3


@dataclasses.dataclass
class Ledger:
    """What of a photostream has been mirrored, by the photos' numbers.

    :ivar images: Photos whose images are on disk, or have been given up for good.
    :ivar infos: The same for information, by the level that it was mirrored at.
    :ivar videos: Videos that were left out because photos alone were wanted.
    :ivar short: Lowest and highest number on a page that came short of the photostream's
        total, and how many rows were missing: the next run looks at these photos once more
        before it takes the page for what it is.
    :ivar anchors: Ids of some photos by their numbers.
    :ivar unavailable_images: Ids of photos whose images Flickr has no more.
    :ivar unavailable_infos: The same for their information.
    :ivar images_behind: Ids of photos whose texts alone have been refreshed.
    """

    images: Ranges = NO_NUMBERS
    infos: dict[int, Ranges] = dataclasses.field(default_factory=dict)
    videos: Ranges = NO_NUMBERS
    short: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    anchors: dict[int, str] = dataclasses.field(default_factory=dict)
    unavailable_images: set[str] = dataclasses.field(default_factory=set)
    unavailable_infos: set[str] = dataclasses.field(default_factory=set)
    images_behind: set[str] = dataclasses.field(default_factory=set)

    def done(self, images: bool, info_level: int | None, videos: bool = True) -> Ranges:
        """Return the photos of which everything that is wanted has been mirrored.

        :param images: Whether images are wanted.
        :param info_level: The level of information wanted, None for none.
        :param videos: Whether videos are wanted.
        """
        done = self._done(images, info_level)
        return done if videos else done | self.videos

    def _done(self, images: bool, info_level: int | None) -> Ranges:
        infos = Ranges()
        if info_level is not None:
            for level, numbers in self.infos.items():
                if level >= info_level:
                    infos |= numbers
        if not images:
            return infos
        return self.images if info_level is None else self.images & infos

    def rows_kept_back(self, numbers: Ranges) -> int:
        """Return how many rows may be missing from these photos, as far as is known."""
        return sum(rows for pair, rows in self.short.items() if span(*pair) & numbers)

    def enter_images(self, numbers: Ranges) -> None:
        """Take down that these photos' images have been mirrored."""
        self.images |= numbers

    def enter_infos(self, numbers: Ranges, info_level: int) -> None:
        """Take down that these photos' information has been mirrored."""
        infos = {**self.infos, info_level: self.infos.get(info_level, Ranges()) | numbers}
        # What is known at a higher level needs no mention at a lower one.
        higher = Ranges()
        for level in sorted(infos, reverse=True):
            infos[level] -= higher
            higher |= infos[level]
        self.infos = {level: numbers for level, numbers in infos.items() if numbers}

    def forget_above(self, number: int) -> None:
        """Forget all photos above a number: nobody knows any more which ones they were."""
        self.images = self.images.up_to(number)
        self.infos = {level: each.up_to(number) for level, each in self.infos.items()}
        self.videos = self.videos.up_to(number)
        self.short = {pair: rows for pair, rows in self.short.items() if pair[1] <= number}
        self.anchors = {each: name for each, name in self.anchors.items() if each <= number}

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads."""
        return {
            "images": self.images.pairs,
            "infos": {str(level): numbers.pairs for level, numbers in self.infos.items()},
            "videos": self.videos.pairs,
            "short": [(low, high, rows) for (low, high), rows in self.short.items()],
            "anchors": {str(number): name for number, name in self.anchors.items()},
            "unavailable_images": sorted(self.unavailable_images),
            "unavailable_infos": sorted(self.unavailable_infos),
            "images_behind": sorted(self.images_behind),
        }

    @staticmethod
    def from_json(payload: Any) -> Ledger:
        """Return the ledger that was written as JSON.

        :raise ValueError: If the payload is no such thing.
        """
        try:
            ledger = Ledger(
                images=_ranges_of(payload["images"]),
                infos={int(level): _ranges_of(each) for level, each in payload["infos"].items()},
                videos=_ranges_of(payload["videos"]),
                short={
                    pair: int(rows)
                    for low, high, rows in payload["short"]
                    for pair in _ranges_of([(low, high)]).pairs
                },
                anchors={int(number): str(name) for number, name in payload["anchors"].items()},
                unavailable_images=set(map(str, payload["unavailable_images"])),
                unavailable_infos=set(map(str, payload["unavailable_infos"])),
                images_behind=set(map(str, payload.get("images_behind", ()))),
            )
            if any(number < 1 for number in ledger.anchors):
                raise ValueError("a photo has a number below 1")
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a record of what has been mirrored: {error}") from None
        # A range above every anchor is one that nothing could disprove.
        ledger.forget_above(max(ledger.anchors, default=0))
        return ledger


def _ranges_of(pairs: Any) -> Ranges:
    for low, high in pairs:
        if type(low) is not int or type(high) is not int or not 1 <= low <= high:
            raise ValueError(f"not a range of photos: {low!r} to {high!r}")
    return Ranges((low, high) for low, high in pairs)


class CachingStrategy(enum.Enum):
    """In which order a photostream is mirrored."""

    #: From the oldest photo to the newest.
    FIFO = 1

    #: From the newest photo to the oldest.
    LIFO = 2


@dataclasses.dataclass(eq=False)
class Look:
    """A page of the photostream to go through, as :class:`Survey` hands it out.

    :ivar page: Number of the page; 1 has the newest photos.
    :ivar page_count: Pages in the photostream.
    :ivar photos: Number, and index in the page's rows, of each photo to see to, in order.
    :ivar numbered: The numbers that are sure. Where rows are missing somewhere on the page,
        the numbers of what comes after them are not.
    :ivar doubtful: The others, among them photos that Flickr may be keeping back.
    :ivar missing: Rows that are missing.
    :ivar believed: Whether an earlier run missed them too, so that Flickr has no more.
    :ivar limit: Highest number that is still worth taking down.
    """

    page: int
    page_count: int
    photos: list[tuple[int, int]]
    numbered: Ranges
    doubtful: Ranges
    missing: int = 0
    believed: bool = True
    limit: int = sys.maxsize


class Survey:
    """Which page to read next: one run's way through a photostream that moves.

    Ask :meth:`next_page` for a page, give :meth:`receive` what Flickr answered, see to the
    photos that it hands out, and tell :meth:`settle` how that went. The next page may be
    asked for, and received, before the photos of the ones before are settled.

    :param ledger: What has been mirrored; kept up to date.
    :param images: Whether images are wanted.
    :param info_level: The level of information wanted, None for none.
    :param videos: Whether videos are wanted.
    :param per_page: Photos on a page.
    :param everything: Whether to go through the whole photostream, mirrored or not.
    """

    MOST_REPEATS = 3
    MOST_RESTARTS = 3
    MOST_ANSWERS = 5  # for each page
    MOST_EMPTY = 20  # pages on end that have no row at all

    def __init__(
        self,
        ledger: Ledger,
        *,
        images: bool,
        info_level: int | None,
        strategy: CachingStrategy,
        videos: bool = True,
        per_page: int = LARGEST_PAGE,
        everything: bool = False,
    ) -> None:
        self.ledger = ledger
        #: Photos in the photostream, None before the first answer.
        self.total: int | None = None
        #: Whether the photostream changed so much that the run could not keep up with it.
        self.unsettled = False
        self._images = images
        self._info_level = info_level
        self._videos = videos
        self._lifo = strategy is CachingStrategy.LIFO
        self._per_page = per_page
        self._everything = everything
        self._seen = Ranges()  # what this run has been through, whatever came of it
        self._top = 0  # total when page 1 was last read
        self._pages_since_top = 0
        self._begin_at_top = True
        self._unproved = bool(ledger.anchors)
        self._probing = True
        self._new_anchors: dict[int, str] = {}
        self._short_before = Ledger(short=dict(ledger.short))
        self._repeats = 0
        self._restarts = 0
        self._answers = 0
        self._empty_pages = 0
        self._open: list[Look] = []

    @property
    def done_count(self) -> int:
        """Number of photos that are done, those on pages that are not settled left out."""
        done = self._seen if self._everything else self._mirrored()
        for look in self._open:
            done -= look.numbered | look.doubtful
        return len(done)

    @property
    def seen_count(self) -> int:
        """Number of photos that this run has been through, each counted once."""
        return len(self._seen)

    def next_page(self) -> int | None:
        """Return the page to read next, None if nothing is left to be read.

        Page 1 comes first, for the total and the anchors, and once more at the end of a
        run that read others: only then is it certain that no photo has slid past.
        """
        if self.unsettled:
            return None
        self._probing = self._begin_at_top or self._unproved
        if self._begin_at_top:
            return 1
        if self._unproved:
            return self._page_of(max(self.ledger.anchors))
        left = self._left()
        if left:
            return self._page_of(left.highest if self._lifo else left.lowest)
        return 1 if self._pages_since_top else None

    def receive(self, page: int, total: int, ids: Sequence[str | None]) -> Look | None:
        """Take a page as Flickr gave it; return what to do, None to ask for it again.

        :param page: The page that was asked for.
        :param total: Photos in the photostream, says the page.
        :param ids: The id of each row's photo, None where the row makes no sense.
        """
        high = max(0, total - (page - 1) * self._per_page)
        low = max(1, high - self._per_page + 1)
        missing = max(0, high - low + 1 - len(ids))
        fitting, misfits = self._judge_anchors(page, total, ids, high, low, missing)

        # Where an anchor on page 1 has kept its number, no row is missing above it.
        sure_from = low
        if missing:
            sure_from = max(fitting) if fitting and page == 1 else high + 1
        numbered = span(sure_from, high)
        doubtful = span(low, sure_from - 1)
        if not self._everything:
            doubtful -= self._mirrored()
        believed = not doubtful or self._is_believed(doubtful, missing)
        if missing and (misfits or not believed):
            self._repeats += 1
            if self._repeats <= self.MOST_REPEATS:
                return None
        self._repeats = 0

        self.total = total
        if page == 1:
            self._begin_at_top = False
            self._top = total
            self._pages_since_top = 0
            self._new_anchors = _anchors_among(high, ids)
        self._prove(page, fitting, misfits)

        page_count = -(-total // self._per_page)
        look = Look(page, page_count, [], Ranges(), Ranges())
        self._answers += 1
        self._empty_pages = 0 if ids or not missing else self._empty_pages + 1
        self.unsettled |= self._answers > self.MOST_ANSWERS * (page_count + 8)
        self.unsettled |= self._empty_pages > self.MOST_EMPTY
        left = self._left()
        out_of_turn = left and (left.highest > high if self._lifo else left.lowest < low)
        if self._begin_at_top or (self._probing and out_of_turn):
            # It was read for the total and the anchors only.
            return look
        if page != 1 and left & span(low, high):
            self._pages_since_top += 1
            newest = max(self.ledger.anchors, default=0)
            if high > newest and ids and ids[0] and not (missing or self._unproved):
                # So new that page 1 has not shown it yet.
                self.ledger.anchors = {**self.ledger.anchors, high: ids[0]}
        look.numbered, look.doubtful = numbered, doubtful
        look.missing, look.believed = missing, believed
        look.photos = [(high - index, index) for index in range(len(ids))]
        if not self._lifo:
            look.photos.reverse()
        self._seen |= span(low, high)
        self._open.append(look)
        return look

    def settle(
        self,
        look: Look,
        failed_images: Iterable[int] = (),
        failed_infos: Iterable[int] = (),
        videos: Iterable[int] = (),
    ) -> None:
        """Take down that the photos of a page have been seen to.

        :param failed_images: Numbers of those whose images are still to be had.
        :param failed_infos: The same for their information.
        :param videos: Numbers of those that were left out, being videos.
        """
        if look not in self._open:
            return
        self._open.remove(look)
        image_failures = Ranges((number, number) for number in failed_images)
        info_failures = Ranges((number, number) for number in failed_infos)
        left_out = Ranges((number, number) for number in videos)
        whole = look.numbered.up_to(look.limit)
        if look.doubtful and not (image_failures or info_failures or left_out):
            pair = look.doubtful.lowest, look.doubtful.highest
            if look.believed:
                whole |= look.doubtful.up_to(look.limit)
            elif pair[1] <= look.limit:
                self.ledger.short[pair] = look.missing
        if self._images:
            self.ledger.enter_images(whole - image_failures - left_out)
        if self._info_level is not None:
            self.ledger.enter_infos(whole - info_failures - left_out, self._info_level)
        self.ledger.videos |= whole & left_out
        self.ledger.videos -= self.ledger.done(self._images, self._info_level)
        done = self._mirrored()
        for pair in [pair for pair in self.ledger.short if not span(*pair) - done]:
            del self.ledger.short[pair]

    def _mirrored(self) -> Ranges:
        return self.ledger.done(self._images, self._info_level, self._videos)

    def _done(self) -> Ranges:
        return self._seen if self._everything else self._seen | self._mirrored()

    def _left(self) -> Ranges:
        # LIFO leaves photos newer than page 1 was for the next look at page 1.
        return span(1, self._top if self._lifo else self.total) - self._done()

    def _page_of(self, number: int) -> int:
        return max(0, self.total - number) // self._per_page + 1

    def _is_believed(self, doubtful: Ranges, missing: int) -> bool:
        """Tell whether an earlier run missed as many rows among these photos already."""
        looked_at = Ranges(self._short_before.short)
        return not doubtful - looked_at and missing <= self._short_before.rows_kept_back(doubtful)

    def _judge_anchors(
        self,
        page: int,
        total: int,
        ids: Sequence[str | None],
        high: int,
        low: int,
        missing: int,
    ) -> tuple[set[int], set[int]]:
        """Return which anchors on a page have kept their numbers, and which have not.

        Where rows are missing, what comes after them may have another number than it seems,
        and a deletion may hide behind that. Then only the newest anchor counts, on page 1,
        from where it was taken with the same rows missing below it.
        """
        anchors = self.ledger.anchors
        on_page = {number for number in anchors if low <= number <= high}
        fitting = {
            number
            for number in on_page
            if high - number < len(ids) and ids[high - number] == anchors[number]
        }
        if missing:
            newest = {max(anchors, default=0)}
            fitting = fitting & newest if page == 1 else set()
            on_page = fitting or on_page
        misfits = {number for number in anchors if number > total} | (on_page - fitting)
        return fitting, misfits

    def _prove(self, page: int, fitting: set[int], misfits: set[int]) -> None:
        """Forget what the anchors on a page have disproved, and renew them from page 1."""
        anchors = self.ledger.anchors
        if misfits:
            lowest_misfit = min(misfits)
            intact = max((number for number in anchors if number < lowest_misfit), default=0)
            if self._seen.up_to(intact) != self._seen:
                self._restarts += 1
                self.unsettled |= self._restarts > self.MOST_RESTARTS
            self._forget_above(intact)
            self._unproved = intact > 0 and intact not in fitting
            # Without new anchors, whatever is taken down now could not be disproved.
            self._begin_at_top = page != 1 and not self._new_anchors
        elif anchors and max(anchors) in fitting:
            self._unproved = False
        elif page == 1:
            self._unproved = bool(anchors)
        if not self._unproved and self._new_anchors:
            self.ledger.anchors = self._new_anchors
            self._new_anchors = {}

    def _forget_above(self, number: int) -> None:
        self.ledger.forget_above(number)
        self._seen = self._seen.up_to(number)
        for look in self._open:
            look.limit = min(look.limit, number)


def _anchors_among(high: int, ids: Sequence[str | None]) -> dict[int, str]:
    """Return the newest photo and others ever further from it, by their numbers.

    Most deletions are of recent photos; the nearer the anchor below, the less there is to be
    looked at again.
    """
    anchors = {}
    step = 0
    while step < len(ids):
        if ids[step] is not None:
            anchors[high - step] = ids[step]
        step = step * 2 or step + 1
    return anchors


# ---------------------------------------------------------------------------------------
# 6. The agent
# ---------------------------------------------------------------------------------------


# As many as a browser opens to a few hosts together; more than 64 is an attack.
DEFAULT_JOBS = 16
MOST_JOBS = 64

MOST_DETECTORS = 4


class PhotoUnavailable(Exception):
    """Flickr lists a photo but has nothing of it to give any more."""


class NoImage(PassingTrouble):
    """Something else than an image came in an image's place."""


class Fate(enum.Enum):
    """What came of one part, image or information, of one photo."""

    #: It was mirrored by this run.
    NEW = enum.auto()
    #: It was on disk already.
    KEPT = enum.auto()
    #: Flickr has it no more: it will not be asked for again.
    UNAVAILABLE = enum.auto()
    #: It could not be had this time: the next run tries again.
    FAILED = enum.auto()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one part of one photo.

    :ivar reason: In words, for what is not on disk.
    :ivar size: Bytes written.
    :ivar filenames: Files written.
    :ivar images: Images mirrored.
    :ivar infos: Information files written.
    :ivar calls: API calls that it will cost, of what is only foreseen.
    :ivar was_damaged: Whether it was on disk, but not whole.
    """

    fate: Fate
    reason: str = ""
    size: int = 0
    filenames: tuple[str, ...] = ()
    images: int = 0
    infos: int = 0
    calls: int = 0
    was_damaged: bool = False


@dataclasses.dataclass
class MirrorResult:
    """What a run did.

    :ivar photo_count: Photos in the photostream.
    :ivar seen: Photos that were seen to, mirrored already or not.
    :ivar images: Images mirrored.
    :ivar infos: Information files written.
    :ivar size: Bytes written.
    :ivar calls: API calls made.
    :ivar seconds: How long it took.
    :ivar unavailable: Reasons by the ids of photos that Flickr has no more.
    :ivar failed: Reasons by the ids of photos to be tried again.
    :ivar skipped: What was odd about rows that make no sense.
    :ivar unsettled: Whether the photostream changed faster than it could be read.
    :ivar verified: Whether images were verified; then `checked` is how many were on disk,
        `mended` how many were fetched because they were damaged or missing, and `lost` how
        many of these could not be had.
    :ivar gone: Digests of photos on disk that Flickr no longer lists, after a refresh.
    :ivar left_out: Videos that the mirror leaves out.
    :ivar given_up: Photos that earlier runs found unavailable, and that this one did not ask for.
    :ivar dry_run: Whether nothing was done: images and infos are what would be fetched, and
        `calls_ahead` the API calls that it would take besides.
    """

    username: str = ""
    photo_count: int = 0
    seen: int = 0
    images: int = 0
    infos: int = 0
    size: int = 0
    calls: int = 0
    seconds: float = 0.0
    unavailable: dict[str, str] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: list[str] = dataclasses.field(default_factory=list)
    unsettled: bool = False
    verified: bool = False
    checked: int = 0
    mended: int = 0
    lost: int = 0
    gone: list[str] = dataclasses.field(default_factory=list)
    left_out: int = 0
    given_up: int = 0
    dry_run: bool = False
    calls_ahead: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is mirrored."""
        return not (self.unavailable or self.failed or self.skipped or self.unsettled)

    def __str__(self) -> str:
        images, infos = _count(self.images, "image"), _count(self.infos, "information file")
        if self.dry_run:
            hours = span_of(self.calls_ahead / CALLS_PER_HOUR * 3600)
            return (
                f"{self.username}: would fetch {images} and {infos}, of "
                f"{_count(self.photo_count, 'photo')}, with the listing again and "
                f"{_count(self.calls_ahead, 'API call')} besides ({hours} at Flickr's rate);"
                " how many bytes, the listing does not tell"
            )
        parts = [
            f"{self.username}: {images.replace(' ', ' new ')} and {infos.replace(' ', ' new ', 1)}"
            f", {size_of(self.size)}, of {_count(self.photo_count, 'photo')}",
            f"{_count(self.calls, 'API call')}, {span_of(self.seconds)}",
        ]
        if self.verified:
            parts.append(
                f"{_count(self.checked, 'image')} checked, {self.mended:,} mended,"
                f" {self.lost:,} lost"
            )
        if self.left_out:
            parts.append(f"{_count(self.left_out, 'video')} left out")
        if self.given_up:
            parts.append(f"{self.given_up:,} unavailable as before")
        if self.gone:
            parts.append(f"{len(self.gone):,} no longer on Flickr")
        troubles = [
            f"{len(photos):,} {trouble}"
            for photos, trouble in (
                (self.failed, "failed"),
                (self.unavailable, "unavailable"),
                (self.skipped, "not understood"),
            )
            if photos
        ]
        return "; ".join([*parts, ", ".join(troubles) or "nothing failed"])


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def size_of(size: int) -> str:
    """Return a number of bytes as people say it: ``8.2 MB``."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:,.1f} {unit}"
    return _count(size, "byte")


class _LogFormatter(logging.Formatter):
    """``2020-03-23 08:43:28,596 [INFO] Scanning page 1/1026...``, and nothing that moves."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s [%(levelname)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(record.message)
        return super().formatMessage(record)


def show_log(level: int) -> None:
    """Write log lines of a level and above to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LogFormatter())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False


class Lane:
    """Threads that do one kind of work in the order in which it was put to them.

    They are daemons: one that hangs on a dead connection does not keep the program alive.

    :param workers: Number of threads; with one, work is done strictly one after another.
    :param events: Where each finished work's `then` goes, to be called by who reads it.
    """

    def __init__(self, name: str, workers: int, events: queue.SimpleQueue) -> None:
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._events = events
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Have work done by a thread, then `then(what it returned)` by the reader of events."""
        self._work.put((work, then))

    def close(self) -> None:
        """Have each thread end as soon as it has finished what it is at; drop the rest."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._work.get_nowait()
        for _ in self._threads:
            self._work.put(None)

    def join(self, deadline: float) -> None:
        """Wait for the threads' ends, but not beyond a moment of the monotonic clock."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def is_busy(self) -> bool:
        """Whether a thread has not ended."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (each := self._work.get()) is not None:
            work, then = each
            try:
                result = work()
            except BaseException as error:
                self._events.put(functools.partial(_raise, error))
                if isinstance(error, Stopped):
                    return
            else:
                self._events.put(functools.partial(then, result))


def _raise(error: BaseException) -> None:
    raise error


def _outcome_of(mirror: Callable[[FlickrPhoto], Outcome], photo: FlickrPhoto) -> Outcome:
    """Return what comes of one part of a photo; a photo's own trouble is not the run's."""
    try:
        return mirror(photo)
    except PhotoUnavailable as error:
        return Outcome(Fate.UNAVAILABLE, str(error))
    except FlickrThrottled:
        raise
    except FlickrUnavailable as error:
        gone = isinstance(error.__cause__, NoImage)
        return Outcome(Fate.UNAVAILABLE if gone else Fate.FAILED, str(error))
    except FlickrError as error:
        if error.code in PHOTO_GONE_CODES:
            return Outcome(Fate.UNAVAILABLE, f"Flickr says: {error}")
        raise


class FlickrUserPhotostreamMirroringAgent:
    """Mirrors a user's photostream into the cache, and keeps the mirror up to date.

    No request is made before :meth:`run`, or :attr:`user`, needs one.

    :param username: Name of the user on Flickr.
    :param flickr_consumer_key: The API key.
    :param flickr_consumer_secret: The API key's secret.
    :param cache_root_path_name: Folder that holds a folder for each user mirrored,
        ``~/.flickr`` if left out.
    :param cache_directory_depth: Folders between the user's and the photos' files, 0 to 32.
    :param image_only: Mirror images and no information.
    :param info_level: 0: titles; 1: and descriptions; 2: and comments; 3: and all that the
        listing tells of a photo.
    :param info_only: Mirror information and no images.
    :param caching_strategy: The order in which photos are mirrored.
    :param verify_image: Go through the whole photostream, and fetch again every image that
        is missing or damaged.
    :param refresh: Go through the whole photostream, and mirror again what changed on Flickr.
    :param photos_only: Leave out videos.
    :param prefer_original: Of sizes with equal pixels fetch the original, the uploaded file.
    :param dry_run: Write nothing, and fetch nothing but the listing: tell what would be done.
    :param jobs: Most images fetched at a time, 1 to 64.
    :param calls_per_hour: Most API calls in any hour.
    :param api_url: Address of Flickr's API: see :class:`FlickrApi`.
    :param share_with: Another agent, whose key, connections, budget of API calls and pauses
        this one shares.
    :param per_page: Photos that a page of the listing holds, 1 to 500.
    :param on_progress: Called, in the thread that runs the mirror, with the number of photos
        done, of the photostream's photos, and of those that failed.
    :param on_photo: Called, in the same thread, with each photo of which something new has
        been mirrored, and the paths of the new files.
    :param clock: The time.
    :raise ValueError: If the arguments contradict each other or are out of range.
    :raise TypeError: If the strategy is no :class:`CachingStrategy`.
    """

    LONGEST_FILE = 4 * 1024**3

    def __init__(
        self,
        username: str,
        flickr_consumer_key: str,
        flickr_consumer_secret: str,
        cache_root_path_name: str | os.PathLike[str] | None = None,
        cache_directory_depth: int = DEFAULT_CACHE_DEPTH,
        image_only: bool = False,
        info_level: int = 0,
        info_only: bool = False,
        caching_strategy: CachingStrategy = CachingStrategy.LIFO,
        *,
        verify_image: bool = False,
        refresh: bool = False,
        photos_only: bool = False,
        prefer_original: bool = False,
        dry_run: bool = False,
        jobs: int = DEFAULT_JOBS,
        calls_per_hour: int = CALLS_PER_HOUR,
        api_url: str | None = None,
        share_with: FlickrUserPhotostreamMirroringAgent | None = None,
        per_page: int = LARGEST_PAGE,
        on_progress: Callable[[int, int, int], None] | None = None,
        on_photo: Callable[[FlickrPhoto, Sequence[pathlib.Path]], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(caching_strategy, CachingStrategy):
            raise TypeError(f"not a CachingStrategy: {caching_strategy!r}")
        if not isinstance(username, str) or not username.strip():
            raise ValueError("the username is empty")
        if image_only and info_only:
            raise ValueError("image_only and info_only exclude each other")
        if image_only and info_level:
            raise ValueError("image_only mirrors no information, so info_level must be 0")
        if info_level not in range(HIGHEST_INFO_LEVEL + 1):
            raise ValueError(f"info_level is {info_level!r}, not of 0 to {HIGHEST_INFO_LEVEL}")
        if cache_directory_depth not in range(DEEPEST_CACHE + 1):
            raise ValueError(
                f"cache_directory_depth is {cache_directory_depth!r}, not of 0 to {DEEPEST_CACHE}"
            )
        if jobs not in range(1, MOST_JOBS + 1):
            raise ValueError(f"jobs is {jobs!r}, not of 1 to {MOST_JOBS}")
        if calls_per_hour < 1:
            raise ValueError(f"calls_per_hour is {calls_per_hour!r}, not 1 or more")
        if verify_image and info_only:
            raise ValueError("info_only mirrors no images that verify_image could verify")
        if dry_run and (verify_image or refresh):
            raise ValueError("dry_run foresees neither verify_image nor refresh")

        if per_page not in range(1, LARGEST_PAGE + 1):
            raise ValueError(f"per_page is {per_page!r}, not of 1 to {LARGEST_PAGE}")

        self._username = username
        self._user: FlickrUser | None = None
        self._root = pathlib.Path(cache_root_path_name or DEFAULT_CACHE_PATH).expanduser()
        self._depth = cache_directory_depth
        self._images = not info_only
        self._info_level = None if image_only else info_level
        self._strategy = caching_strategy
        self._verify = verify_image
        self._refresh = refresh
        self._videos = not photos_only
        self._prefer_original = prefer_original
        self._dry_run = dry_run
        self._jobs = jobs
        self._per_page = per_page
        self._on_progress = on_progress
        self._on_photo = on_photo
        if share_with is not None:
            self._clock = share_with._clock
            self._web = share_with._web
            self._api = share_with._api
            self._languages = share_with._languages
            self._image_servers = share_with._image_servers
        else:
            self._clock = clock or Clock()
            self._web = Web(self._clock, connections=jobs)
            self._api = FlickrApi(
                flickr_consumer_key,
                flickr_consumer_secret,
                url=api_url,
                calls_per_hour=calls_per_hour,
                web=self._web,
            )
            # One core downloads; without images it has next to nothing to do.
            cores = (os.cpu_count() or 1) - self._images
            self._languages = LanguageDetector(min(MOST_DETECTORS, max(1, cores)))
            self._image_servers = Service("Flickr's image server", self._clock, places=jobs)
            # Flickr's limit holds across runs too.
            self._api.budget.recall(calls_in(self._root), self._clock.now(), self._clock.date())
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._stop_asked = False
        self._refused = False
        #: What the last run did, also one that was interrupted; None before the first.
        self.result: MirrorResult | None = None

    @property
    def user(self) -> FlickrUser:
        """The user whose photostream is mirrored; found on Flickr when first asked for.

        :raise FlickrError: If Flickr knows no such user.
        """
        if self._user is None:
            self._user = self._api.find_user(self._username)
        return self._user

    @functools.cached_property
    def cache(self) -> UserCache:
        """The user's folder.

        :raise MirrorError: If it was made with another depth.
        """
        return open_user_cache(self._root, self.user, self._depth)

    def run(self) -> MirrorResult:
        """Mirror what is not mirrored yet.

        :raise FlickrError: If Flickr refuses the user or the listing.
        :raise MirrorError: If something is in the way that the user can clear.
        :raise Stopped: If :meth:`stop` was called.
        """
        if not LOGGER.hasHandlers():
            show_log(logging.INFO)
        # What an earlier run left in it concerns that run.
        self._events = queue.SimpleQueue()
        try:
            return _MirrorRun(self).run()
        except FlickrError as error:
            self._refused = not isinstance(error, FlickrUnavailable)
            raise
        except MirrorError as error:
            self._refused = error.status == 2
            raise

    @property
    def may_go_on(self) -> bool:
        """Whether another run makes sense: Flickr knows the user, or could not be asked."""
        return not self._refused

    def look(self) -> MirrorResult | None:
        """Look once for new photos, and mirror them; when nothing is new, at one API call.

        :return: None if the look failed, which is logged.
        :raise Stopped: If :meth:`stop` was called.
        """
        self._verify = self._refresh = False
        try:
            return self.run()
        except (FlickrError, MirrorError) as error:
            LOGGER.error("%s: the look for new photos failed: %s", self._username, error)
            return None

    def wait(self, seconds: float) -> None:
        """Let seconds go by.

        :raise Stopped: If :meth:`stop` was called.
        """
        try:
            self._clock.sleep(seconds)
        except Stopped:
            self._stop_asked = False
            self._clock.go_on()
            raise

    def watch(self, seconds: float) -> Iterator[MirrorResult]:
        """Look for new photos for ever; give the result of each look that did not fail.

        :param seconds: Before each look.
        :raise Stopped: If :meth:`stop` was called.
        """
        while True:
            self.wait(seconds)
            result = self.look()
            if result is not None:
                yield result

    def stop(self) -> None:
        """Have :meth:`run` end soon and leave all in order; from any thread or signal.

        Where no run is under way, the next one ends at once.
        """
        self._stop_asked = True
        self._clock.stop()
        self._events.put(functools.partial(_raise, Stopped()))

    # ----- one photo -----

    def mirror_image(self, photo: FlickrPhoto) -> Outcome:
        """Mirror a photo's image, and a video's film, if it is not on disk."""
        files, damaged = self.__image_files(photo)
        if files:
            return Outcome(Fate.KEPT)
        outcome = _outcome_of(self.__fetch_image, photo)
        return dataclasses.replace(outcome, was_damaged=True) if damaged else outcome

    def mirror_info(self, photo: FlickrPhoto) -> Outcome:
        """Mirror a photo's information if it is not on disk, or at a lower level."""
        return _outcome_of(self.__mirror_info, photo)

    def refresh(self, photo: FlickrPhoto) -> Outcome:
        """Mirror a photo that changed on Flickr once more, and keep what it replaces.

        First the image: the date of the information file says up to which change the photo
        has been mirrored.
        """
        return _outcome_of(self.__refresh, photo)

    def has_changed(self, photo: FlickrPhoto) -> bool:
        """Tell whether a photo that is on disk changed on Flickr since it was mirrored."""
        date = self.cache.date_of(photo.info_filename)
        if date is None:
            date = self.cache.date_of(photo.filename_of(self.__best_size_of(photo)))
        return None not in (date, photo.last_update) and photo.last_update > date

    @property
    def foresees_texts(self) -> bool:
        """Whether the texts of photos are known before :meth:`mirror_info` of each.

        Not where their comments are wanted, which only a call tells.
        """
        return self._info_level in (0, 1) and not (self._dry_run or self._refresh or self._verify)

    def foresee_texts(self, photos: Iterable[FlickrPhoto]) -> None:
        """Begin with what :meth:`mirror_info` of these photos will take longest for."""
        new = (photo for photo in photos if not self.cache.has(photo.info_filename))
        labels = ((photo.title, photo.description)[: self._info_level + 1] for photo in new)
        self._languages.foresee(filter(None, itertools.chain.from_iterable(labels)))

    def foresee_image(self, photo: FlickrPhoto) -> Outcome:
        """Tell what :meth:`mirror_image` would do, at no request."""
        if self.__image_files(photo)[0]:
            return Outcome(Fate.KEPT)
        calls = int(photo.media == "video" or self.__best_size_of(photo) is None)
        return Outcome(Fate.NEW, images=1, calls=calls)

    def foresee_info(self, photo: FlickrPhoto) -> Outcome:
        """Tell what :meth:`mirror_info` would do, at no request."""
        known = info_level_of(self.cache.read_info(photo.info_filename))
        if known >= self._info_level:
            return Outcome(Fate.KEPT)
        needs_description = self._info_level >= 1 > known and photo.description is None
        needs_comments = self._info_level >= 2 > known and photo.comment_count != 0
        return Outcome(Fate.NEW, infos=1, calls=needs_description + needs_comments)

    def __best_size_of(self, photo: FlickrPhoto) -> FlickrPhotoSize | None:
        return photo.best_original if self._prefer_original else photo.best_size

    def __image_files(self, photo: FlickrPhoto) -> tuple[tuple[str, ...], bool]:
        """Return the photo's files if all are there and whole, and whether any is damaged."""
        best_size = self.__best_size_of(photo)
        if best_size is not None:
            pictures = [photo.filename_of(best_size)]
        else:
            # The extension tells the kind, which only the sizes tell; but whatever its kind,
            # the photo has no other image.
            pictures = [f"{photo.digest}{kind}" for kind in IMAGE_EXTENSIONS]
        films = [photo.video_filename] if photo.media == "video" else []
        present = [[name for name in names if self.cache.has(name)] for names in (pictures, films)]
        damaged = self._verify and any(
            not is_whole_file(self.cache.path_of(name)) for names in present for name in names
        )
        complete = bool(present[0]) and len(present[1]) == len(films) and not damaged
        return (tuple(present[0][:1] + present[1]) if complete else ()), damaged

    def __fetch_image(self, photo: FlickrPhoto) -> Outcome:
        if photo.best_size is None or photo.media == "video":
            photo.sizes = self._api.get_photo_sizes(photo.id)
        LOGGER.info("Caching image of photo %s...", photo.digest)
        size = self.__download_photo_image(photo)
        filenames = [photo.filename_of(self.__best_size_of(photo))]
        if photo.media == "video":
            size += self.__download_film(photo)
            filenames.append(photo.video_filename)
        return Outcome(Fate.NEW, size=size, filenames=tuple(filenames), images=1)

    def __download_photo_image(self, photo: FlickrPhoto) -> int:
        """Fetch a photo's best image into the cache, and its sizes first if it has none.

        :return: Bytes written.
        :raise PhotoUnavailable: If Flickr has no image of it.
        :raise FlickrError: If Flickr refuses, or does not answer.
        """
        if photo.best_size is None:
            photo.sizes = self._api.get_photo_sizes(photo.id)
        best_size = self.__best_size_of(photo)
        if best_size is None:
            raise PhotoUnavailable("Flickr offers no image of this photo")
        return self.__download(best_size.url, photo.filename_of(best_size), photo.upload_date)

    def __download_film(self, photo: FlickrPhoto) -> int:
        """Fetch the best film of a video that there is; return the bytes written."""
        trouble: Exception = PhotoUnavailable("Flickr offers no playable file of this video")
        for film in photo.films:
            try:
                return self.__download(film.url, photo.video_filename, photo.upload_date)
            except PhotoUnavailable as error:
                trouble = error
            except FlickrUnavailable as error:
                if not isinstance(error.__cause__, NoImage):
                    raise
                trouble = error
        raise trouble

    def __download(self, url: str, filename: str, date: int | None = None) -> int:
        """Fetch a file into the cache; return its length in bytes.

        Only the transfer holds one of the places on the wire: while a file is on its way to
        the disk, another photo's is on its way from Flickr.
        """
        with self.cache.writing(filename, date) as file:
            return self._image_servers.ask(self.__attempts_at(url, file, filename))

    def __attempts_at(
        self, url: str, file: BinaryIO, filename: str, since: int = 0
    ) -> Callable[[], int]:
        """Return what makes one attempt after another to fetch a body into a file."""
        attempts = 0

        def attempt() -> int:
            nonlocal attempts
            if attempts:
                file.seek(0)
                file.truncate()
            attempts += 1
            return self.__transfer(url, file, filename, since)

        return attempt

    def __transfer(self, url: str, file: BinaryIO, filename: str, since: int) -> int:
        """Fetch a body; return its length, 0 if the server has had the same since a date."""
        extension = pathlib.PurePath(filename).suffix
        # The length of a compressed body could not be compared with the announced one.
        headers = {"Accept-Encoding": "identity"}
        if since:
            headers["If-Modified-Since"] = email.utils.formatdate(since, usegmt=True)
        with self._web.get(url, headers=headers) as response:
            if response.status_code == 304 and since:
                return 0
            if response.status_code in (404, 410):
                raise PhotoUnavailable(f"the image is gone (HTTP {response.status_code})")
            if response.status_code != 200:
                raise FlickrUnavailable(f"the server answers HTTP {response.status_code}")
            if "unavailable" in response.url.rpartition("/")[2]:
                raise PhotoUnavailable("Flickr shows its 'photo unavailable' picture")
            size = 0
            start = tail = b""
            for chunk in self._web.chunks(response, self.LONGEST_FILE):
                size += len(chunk)
                file.write(chunk)
                tail = chunk[-64:] if len(chunk) >= 64 else (tail + chunk)[-64:]
                if len(start) < 12:
                    start += chunk
                    if len(start) >= 12 and not is_of_kind(start, extension):
                        raise NoImage(f"the server gives something that is no {extension} file")
            if len(start) < 12:
                raise NoImage("the server gives an empty file")
            announced = _number_of(response.headers.get("Content-Length"))
            if announced is not None and size != announced:
                raise PassingTrouble(f"{size:,} of {announced:,} bytes came")
            if not has_end(start, tail):
                file.flush()
                with open(os.dup(file.fileno()), "rb") as written:
                    if is_cut_off(written):
                        raise PassingTrouble(f"the file is cut off after {size:,} bytes")
        return size

    def __mirror_info(self, photo: FlickrPhoto) -> Outcome:
        known = self.cache.read_info(photo.info_filename)
        if info_level_of(known) >= self._info_level:
            return Outcome(Fate.KEPT)
        LOGGER.info("Caching information of photo %s...", photo.digest)
        if photo.description is None and info_level_of(known) >= 1:
            photo.description = known["description"]["content"]
        if info_level_of(known) >= 2:
            photo.comments = [comment["content"] for comment in known["comments"]]
        info = self.__info_of(photo, self._info_level)
        date = photo.last_update
        if info_level_of(known) >= 0:
            # What else changed since, the next refresh finds by the date.
            date = min(filter(None, (date, self.cache.date_of(photo.info_filename))), default=None)
            if _forgets(known, info):
                self.cache.keep_version(photo.info_filename)
        return self.__save_info(photo, info, date)

    def __info_of(self, photo: FlickrPhoto, level: int) -> dict[str, Any]:
        """Return what a photo's JSON file holds at a level.

        What the listing did not give costs a call each: the description, and the comments
        of a photo that has any, or of which it is not known.
        """
        if level >= 1 and photo.description is None:
            photo.description = self._api.get_photo_description(photo.id)
        if level >= 2 and photo.comments is None:
            has_comments = photo.comment_count != 0
            photo.comments = self._api.get_photo_comments(photo.id) if has_comments else []
        labels = [photo.title, *filter(None, [photo.description]), *(photo.comments or ())]
        self._clock.check()
        self._languages.detect(labels)
        info: dict[str, Any] = {"title": _label_json(photo.title)}
        if level >= 1:
            info["description"] = _label_json(photo.description)
        if level >= 2:
            info["comments"] = [_label_json(comment) for comment in photo.comments]
        if level >= 3:
            info |= photo.details(self.user)
        return info

    def __save_info(self, photo: FlickrPhoto, info: dict[str, Any], date: int | None) -> Outcome:
        payload = json_bytes(info)
        with self.cache.writing(photo.info_filename, date) as file:
            file.write(payload)
        return Outcome(Fate.NEW, size=len(payload), filenames=(photo.info_filename,), infos=1)

    def __refresh(self, photo: FlickrPhoto) -> Outcome:
        """Look at a changed photo's image and texts; what is new replaces what was."""
        outcomes = []
        if self._images:
            files, _ = self.__image_files(photo)
            if files and photo.media != "video" and photo.best_size is not None:
                outcomes.append(self.__refresh_image(photo, files[0]))
            elif not files:
                outcomes.append(self.__fetch_image(photo))
        if self._info_level is not None:
            outcomes.append(self.__refresh_info(photo))
        return Outcome(
            Fate.NEW if any(each.fate is Fate.NEW for each in outcomes) else Fate.KEPT,
            size=sum(each.size for each in outcomes),
            filenames=tuple(name for each in outcomes for name in each.filenames),
            images=sum(each.images for each in outcomes),
            infos=sum(each.infos for each in outcomes),
        )

    def __refresh_image(self, photo: FlickrPhoto, filename: str) -> Outcome:
        """Fetch an image again if the server has had another one since it was fetched."""
        url = self.__best_size_of(photo).url
        since = self.cache.date_of(filename)
        with tempfile.TemporaryFile(dir=self.cache.path_of(filename).parent) as file:
            size = self._image_servers.ask(self.__attempts_at(url, file, filename, since))
            if size == 0 or self.__is_same(file, filename):
                return Outcome(Fate.KEPT)
            LOGGER.info("Caching replaced image of photo %s...", photo.digest)
            self.cache.keep_version(filename)
            file.seek(0)
            with self.cache.writing(filename, photo.last_update) as copy:
                shutil.copyfileobj(file, copy)
        return Outcome(Fate.NEW, size=size, filenames=(filename,), images=1)

    def __is_same(self, file: BinaryIO, filename: str) -> bool:
        file.seek(0)
        with self.cache.path_of(filename).open("rb") as kept:
            while True:
                one, other = file.read(1 << 20), kept.read(1 << 20)
                if one != other or not one:
                    return one == other

    def __refresh_info(self, photo: FlickrPhoto) -> Outcome:
        """Write a photo's texts again if they differ from those on disk."""
        known = self.cache.read_info(photo.info_filename)
        level = max(self._info_level, info_level_of(known))
        info = self.__info_of(photo, level)
        if known is not None and _lasting(known) == _lasting(info):
            self.__save_info(photo, info, photo.last_update)
            return Outcome(Fate.KEPT, filenames=(photo.info_filename,))
        LOGGER.info("Caching changed information of photo %s...", photo.digest)
        if _forgets(known or {}, info):
            self.cache.keep_version(photo.info_filename)
        return self.__save_info(photo, info, photo.last_update)

    # ----- what a run is made of -----

    @property
    def extras(self) -> tuple[str, ...]:
        """What the listing is asked to tell of each photo: what this mirror uses, no more."""
        extras: list[str] = []
        if self._images:
            extras += ["media", *(f"url_{suffix}" for suffix in SIZE_LABELS), "date_upload"]
        elif not self._videos:
            extras += ["media"]
        if self._info_level is not None:
            # A refresh writes each file again at the level that it has.
            level = HIGHEST_INFO_LEVEL if self._refresh else self._info_level
            level_extras = ((1, "description"), (2, "count_comments"))
            extras += [extra for least, extra in level_extras if level >= least]
            extras += DETAIL_EXTRAS if level >= 3 else ["last_update"]
        elif self._refresh:
            extras += ["last_update"]
        return tuple(dict.fromkeys(extras))

    def read_page(self, page: int) -> PhotostreamPage:
        """Return a page of the photostream."""
        return self._api.get_photostream_page(
            self.user.id, page, per_page=self._per_page, extras=self.extras
        )

    def survey_of(self, ledger: Ledger) -> Survey:
        """Return the way through the photostream that this mirror takes."""
        return Survey(
            ledger,
            images=self._images,
            info_level=self._info_level,
            strategy=self._strategy,
            videos=self._videos,
            per_page=self._per_page,
            everything=self._verify or self._refresh,
        )


@dataclasses.dataclass(eq=False)
class _Part:
    """What is mirrored of each photo: its image, its information, or both anew.

    :ivar lane: Who does it.
    :ivar mirror: How it is done.
    :ivar images: Whether it is about images.
    :ivar infos: Whether it is about information.
    :ivar unavailable: Ids of photos of which Flickr has it no more.
    :ivar under_way: Ids of photos of which it is being mirrored.
    """

    lane: Lane
    mirror: Callable[[FlickrPhoto], Outcome]
    images: bool
    infos: bool
    unavailable: set[str]
    under_way: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(eq=False)
class _OpenPage:
    """A page whose photos are being mirrored.

    :ivar pending: For each number, how many parts of the photo are under way.
    :ivar failed_images: The numbers whose images are still to be had.
    :ivar failed_infos: The same for their information.
    :ivar videos: The numbers that are left out, being videos.
    :ivar news: Files that were written, of each photo that has some.
    :ivar finished: How many photos have been seen to.
    """

    look: Look
    pending: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    failed_images: set[int] = dataclasses.field(default_factory=set)
    failed_infos: set[int] = dataclasses.field(default_factory=set)
    videos: set[int] = dataclasses.field(default_factory=set)
    news: dict[int, list[str]] = dataclasses.field(default_factory=dict)
    finished: int = 0


class _MirrorRun:
    """One run of an agent: pages come in, photos go out, the ledger is kept.

    Everything here happens in the thread that called; the lanes' threads read pages and
    mirror photos, and what follows from that is an event.
    """

    OPEN_PAGES = 2
    DISK_WORKERS = 4
    INFO_WORKERS = 8
    TEXT_WORKERS = 2
    SYNC_PHOTOS = 100
    GRACE_SECONDS = 1.5
    MOST_REPORTED = 100

    def __init__(self, agent: FlickrUserPhotostreamMirroringAgent) -> None:
        self._agent = agent
        self._clock = agent._clock
        self._events = agent._events
        self._result = MirrorResult(
            username=agent._username, dry_run=agent._dry_run, verified=agent._verify
        )
        self._listing = Lane("listing", 1, self._events)
        self._disk_lane = Lane("disk", 1, self._events)
        if agent._jobs == 1:
            self._image_lane = self._info_lane = Lane("photo", 1, self._events)
        else:
            # More than there are places on the wire: some are writing to the disk.
            self._image_lane = Lane("image", agent._jobs + self.DISK_WORKERS, self._events)
            # Texts wait for Flickr's API and for their languages; images need not. Where no call
            # is waited for, more threads are only in the downloads' way.
            workers = self.TEXT_WORKERS if agent.foresees_texts else self.INFO_WORKERS
            workers = min(agent._jobs, workers)
            self._info_lane = Lane("information", workers, self._events)
        self._done_count = 0
        self._reading = False
        self._settling: list[_OpenPage] = []
        self._ended = False
        self._parts: list[_Part] = []
        self._refresh_part: _Part | None = None
        self._open_pages: list[_OpenPage] = []
        self._saved: Any = None
        #: Ids of photos of page 1 that are done; it is read twice.
        self._done_on_top: set[str] = set()
        #: First 64 bits of the digests of all photos listed, where they are wanted.
        self._listed = array.array("Q")

    def run(self) -> MirrorResult:
        self._started = started = self._clock.now()
        calls_before = self._agent._api.calls
        try:
            self._find_user()
            lock = contextlib.nullcontext() if self._agent._dry_run else self._agent.cache.locked()
            with lock:
                self._load()
                try:
                    self._mirror()
                finally:
                    self._end_work()
                    self._settle_rest()
                    self._save(clean=True)
                self._find_gone()
        except OSError as error:
            raise MirrorError(f"cannot mirror: {trouble_of(error)}") from None
        finally:
            self._end_work()
            self._result.calls = self._agent._api.calls - calls_before
            self._result.seconds = self._clock.now() - started
            self._agent.result = self._result
        self._report()
        return self._result

    def _find_user(self) -> None:
        found: list[FlickrUser] = []
        self._listing.put(lambda: self._agent.user, found.append)
        # What the cache will need is loaded while Flickr is looking for the user.
        import filelock  # noqa: F401
        import pathvalidate  # noqa: F401

        while not found:
            self._events.get()()
        self._result.username = found[0].username

    def _load(self) -> None:
        agent = self._agent
        state = _state_of(agent.cache)
        try:
            self._ledger = Ledger.from_json(state) if state else Ledger()
            if state.get("nsid") not in (None, agent.user.id):
                raise ValueError("it is another user's")
        except ValueError as error:
            LOGGER.warning("What had been mirrored is read anew: %s", error)
            self._ledger = Ledger()
        if not state.get("clean") and not agent._dry_run:
            if state:
                LOGGER.info("The last run was cut short: looking for what it left half written...")
            remove_leftovers(agent.cache.folder)
        if agent._verify:
            self._ledger.unavailable_images.clear()
            self._ledger.unavailable_infos.clear()
        self._calls_before = calls_of(state)
        self._survey = agent.survey_of(self._ledger)
        gone = self._ledger.unavailable_images, self._ledger.unavailable_infos
        foresee = agent._dry_run
        if agent._images:
            mirror = agent.foresee_image if foresee else agent.mirror_image
            self._parts.append(_Part(self._image_lane, mirror, True, False, gone[0]))
        if agent._info_level is not None:
            mirror = agent.foresee_info if foresee else agent.mirror_info
            self._parts.append(_Part(self._info_lane, mirror, False, True, gone[1]))
        if agent._refresh:
            self._refresh_part = _Part(self._image_lane, agent.refresh, True, True, set())
        self._result.given_up = len(set().union(*(part.unavailable for part in self._parts)))
        if agent.foresees_texts and not self._ledger.infos:
            agent._languages.start()
        self._save(clean=False)

    def _save(self, *, clean: bool) -> None:
        user = self._agent.user
        state = {
            "nsid": user.id,
            "username": user.username,
            "cache_directory_depth": self._agent.cache.depth,
            "clean": clean,
            "calls": self._calls_of_late(),
            **self._ledger.to_json(),
        }
        if state != self._saved and not self._agent._dry_run:
            self._agent.cache.write_state(state)
            self._saved = state

    def _calls_of_late(self) -> dict[str, int]:
        """Return how many API calls were made for this user, as long as they count."""
        now, date = self._clock.now(), self._clock.date()
        calls = collections.Counter(self._calls_before)
        calls.update(self._agent._api.budget.spent(self._started, now, date))
        return {
            str(minute): number
            for minute, number in sorted(calls.items())
            if minute >= (date - CallBudget.WINDOW) // 60
        }

    def _mirror(self) -> None:
        while True:
            self._read_on()
            if not (self._reading or self._open_pages or self._settling):
                break
            self._events.get()()
        self._result.unsettled = self._survey.unsettled

    def _read_on(self) -> None:
        """Have the next page read, while the photos of the one before are under way."""
        if self._reading or len(self._open_pages) >= self.OPEN_PAGES:
            return
        page = self._survey.next_page()
        if page is not None:
            self._reading = True
            self._listing.put(
                functools.partial(self._agent.read_page, page),
                functools.partial(self._receive, page),
            )

    def _receive(self, page: int, answer: PhotostreamPage) -> None:
        self._reading = False
        ids = [row.id if isinstance(row, FlickrPhoto) else None for row in answer.rows]
        look = self._survey.receive(page, answer.photo_count, ids)
        self._result.photo_count = answer.photo_count
        if look is None:
            LOGGER.debug("Page %d came with %d photos: asking again", page, len(ids))
            return
        if not look.photos:
            LOGGER.debug("Page %d has nothing to be mirrored now", page)
            return
        LOGGER.info("Scanning page %d/%d...", look.page, look.page_count)
        open_page = _OpenPage(look)
        self._open_pages.append(open_page)
        # Before any thread logs what it does: a bar may come to stand in the log's place.
        self._tell_progress()
        if self._agent.foresees_texts:
            self._agent.foresee_texts(self._new_ones(look, answer.rows))
        for number, index in look.photos:
            row = answer.rows[index]
            if isinstance(row, FlickrPhoto):
                self._start(open_page, number, row)
            else:
                self._result.skipped.append(f"row {index + 1} of page {page}: {row}")
                open_page.failed_images.add(number)
                open_page.failed_infos.add(number)
        self._settle_if_done(open_page)

    def _new_ones(self, look: Look, rows: Sequence[Any]) -> Iterator[FlickrPhoto]:
        """Give the photos of a page whose information is to be mirrored, as far as is known."""
        numbers = [number for number, _ in look.photos]
        known = self._ledger.done(images=False, info_level=self._agent._info_level)
        # Of a million photos there may be many ranges.
        known &= span(min(numbers), max(numbers))
        for number, index in look.photos:
            row = rows[index]
            if (
                number not in known
                and isinstance(row, FlickrPhoto)
                and row.id not in self._ledger.unavailable_infos
                and (self._agent._videos or row.media != "video")
            ):
                yield row

    def _start(self, open_page: _OpenPage, number: int, photo: FlickrPhoto) -> None:
        self._result.seen = self._survey.seen_count
        if photo.id in self._done_on_top:
            open_page.finished += 1
            return
        parts = self._parts
        if self._refresh_part is not None:
            self._listed.append(int(photo.digest[:16], 16))
            behind = self._agent._images and photo.id in self._ledger.images_behind
            if behind or self._agent.has_changed(photo):
                parts = [self._refresh_part]
        if photo.media == "video" and not self._agent._videos:
            open_page.videos.add(number)
            parts = []
        for part in parts:
            if photo.id in part.unavailable:
                continue
            if photo.id in part.under_way:
                # It slid over from a page that is still open; that page will see to it.
                self._take_down_failure(open_page, number, part)
                continue
            part.under_way.add(photo.id)
            open_page.pending[number] += 1
            part.lane.put(
                functools.partial(part.mirror, photo),
                functools.partial(self._part_done, part, open_page, number, photo),
            )

    def _part_done(
        self, part: _Part, open_page: _OpenPage, number: int, photo: FlickrPhoto, outcome: Outcome
    ) -> None:
        result = self._result
        result.size += outcome.size
        result.images += outcome.images
        result.infos += outcome.infos
        result.calls_ahead += outcome.calls
        if outcome.fate is Fate.UNAVAILABLE:
            part.unavailable.add(photo.id)
            result.unavailable[photo.id] = outcome.reason
        elif outcome.fate is Fate.FAILED:
            self._take_down_failure(open_page, number, part)
            result.failed[photo.id] = outcome.reason
        if part.images and result.verified:
            result.checked += outcome.fate is Fate.KEPT or outcome.was_damaged
            result.mended += outcome.fate is Fate.NEW
            result.lost += outcome.fate in (Fate.UNAVAILABLE, Fate.FAILED)
        if part is self._refresh_part and outcome.fate in (Fate.NEW, Fate.KEPT):
            if self._agent._images:
                self._ledger.images_behind.discard(photo.id)
            else:
                self._ledger.images_behind.add(photo.id)
        if outcome.fate is Fate.NEW:
            open_page.news.setdefault(number, []).extend(outcome.filenames)
        part.under_way.discard(photo.id)
        open_page.pending[number] -= 1
        if open_page.pending[number] == 0:
            del open_page.pending[number]
            open_page.finished += 1
            if open_page.look.page == 1 and number not in (
                open_page.failed_images | open_page.failed_infos
            ):
                self._done_on_top.add(photo.id)
            self._tell_progress()
            filenames = open_page.news.pop(number, [])
            if self._agent._on_photo is not None and filenames:
                self._agent._on_photo(photo, [*map(self._agent.cache.path_of, filenames)])
            if open_page.finished % self.SYNC_PHOTOS == 0:
                self._disk_lane.put(self._agent.cache.sync, lambda _: None)
        self._settle_if_done(open_page)

    def _take_down_failure(self, open_page: _OpenPage, number: int, part: _Part) -> None:
        if part.images:
            open_page.failed_images.add(number)
        if part.infos:
            open_page.failed_infos.add(number)

    def _settle_if_done(self, open_page: _OpenPage) -> None:
        if open_page.pending:
            return
        self._open_pages.remove(open_page)
        self._settling.append(open_page)
        # First the files must be durable, then the word that they are there.
        self._disk_lane.put(self._agent.cache.sync, functools.partial(self._settle, open_page))

    def _settle(self, open_page: _OpenPage, _: None = None) -> None:
        self._settling.remove(open_page)
        self._survey.settle(
            open_page.look, open_page.failed_images, open_page.failed_infos, open_page.videos
        )
        self._tell_progress()
        self._result.left_out = len(self._ledger.videos) if not self._agent._videos else 0
        self._save(clean=False)

    def _settle_rest(self) -> None:
        """Take down the pages that were finished when the run was stopped."""
        if self._settling and not self._disk_lane.is_busy:
            self._agent.cache.sync()
            for open_page in list(self._settling):
                self._settle(open_page)

    def _tell_progress(self) -> None:
        if self._agent._on_progress is not None:
            under_way = sum(page.finished for page in self._open_pages + self._settling)
            done = min(self._survey.done_count + under_way, self._result.photo_count)
            # Page 1 is gone through once more at the end.
            self._done_count = max(self._done_count, done)
            self._agent._on_progress(
                self._done_count,
                self._result.photo_count,
                len(self._result.failed) + len(self._result.unavailable),
            )

    def _find_gone(self) -> None:
        """Find the photos that are on disk and that Flickr did not list.

        A photostream has millions of photos: 8 bytes of each, sorted, fit into memory.
        """
        result = self._result
        if self._refresh_part is None or result.unsettled or result.skipped or self._ledger.short:
            return
        LOGGER.info("Looking for photos in the mirror that are no longer on Flickr...")
        self._listed = array.array("Q", sorted(self._listed))
        for digest in self._agent.cache.digests():
            wanted = int(digest[:16], 16)
            place = bisect.bisect_left(self._listed, wanted)
            if place == len(self._listed) or self._listed[place] != wanted:
                result.gone.append(digest)

    def _end_work(self) -> None:
        """End the threads; what they are writing, if anything, is dropped."""
        if self._ended:
            return
        self._ended = True
        trouble = sys.exc_info()[0]
        if trouble is not None:
            self._clock.stop()
        lanes = {self._listing, self._image_lane, self._info_lane, self._disk_lane}
        deadline = time.monotonic() + self.GRACE_SECONDS
        for lane in lanes:
            lane.close()
        # Whoever waits for a language waits no longer.
        self._agent._languages.close()
        for lane in lanes:
            lane.join(deadline)
        if "cache" in self._agent.__dict__:
            self._agent.cache.drop_partials()
        if trouble is Stopped or not self._agent._stop_asked:
            # The wish to stop is met, or was this run's own.
            self._agent._stop_asked = False
            self._clock.go_on()

    def _report(self) -> None:
        result = self._result
        user_id = self._agent.user.id
        for photos, what in ((result.failed, "failed"), (result.unavailable, "unavailable")):
            self._report_each(
                f"Photo {FlickrPhoto(photo_id, '').digest} {what}: {reason}"
                f" (https://www.flickr.com/photos/{user_id}/{photo_id}/)"
                for photo_id, reason in photos.items()
            )
        self._report_each(f"Skipped what makes no sense, {what}" for what in result.skipped)
        self._report_each(
            f"Photo {digest} is no longer on Flickr; the mirror keeps it" for digest in result.gone
        )
        if result.unsettled:
            LOGGER.error(
                "The photostream changed faster than it could be read; run again to see to the rest"
            )

    def _report_each(self, lines: Iterable[str]) -> None:
        lines = iter(lines)
        for line in itertools.islice(lines, self.MOST_REPORTED):
            LOGGER.warning("%s", line)
        more = sum(1 for _ in lines)
        if more:
            LOGGER.warning("... and %s more", f"{more:,}")


# ---------------------------------------------------------------------------------------
# 7. The command line
# ---------------------------------------------------------------------------------------

PROGRAM = "mirror_flickr"

WATCH_SECONDS = 300

LOG_LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


class _ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {printable(message)}\n")


def _number_from(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return what reads a number of a range from the command line."""

    def read(text: str) -> int:
        if re.fullmatch("[+-]?[0-9]{1,18}", text.strip(), re.ASCII):
            number = int(text)
            if number >= low and (high is None or number <= high):
                return number
        wanted = f"{low} or more" if high is None else f"of {low} to {high}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {wanted}")

    return read


def _something(text: str) -> str:
    """Read a text that may not be empty from the command line."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _argument_parser() -> argparse.ArgumentParser:
    parser = _ArgumentParser(
        prog=PROGRAM,
        description="Mirror a Flickr user's photostream into a local folder, and keep the"
        " mirror up to date: every public photo at its highest resolution, with its title,"
        " description and comments.",
        epilog="Run the same command again to go on after an interruption, or to fetch what"
        " is new.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    what = parser.add_argument_group("what to mirror")
    what.add_argument(
        "--username",
        action="append",
        type=_something,
        default=[],
        dest="usernames",
        metavar="USERNAME",
        help="username of the account of a user on Flickr to mirror their photostream; may be"
        " given several times",
    )
    what.add_argument(
        "--username-file",
        type=_something,
        metavar="FILE",
        help="a file with a username on each line",
    )
    what.add_argument("--image-only", action="store_true", help="only download photos' images")
    what.add_argument("--info-only", action="store_true", help="only download photos' information")
    what.add_argument(
        "--info-level",
        type=_number_from(0, HIGHEST_INFO_LEVEL),
        default=0,
        metavar="LEVEL",
        help="information of a photo to fetch: 0 its title (default), 1 its title and"
        " description, 2 its title, description and comments, 3 all that and its dates, tags,"
        " licence, place and more",
    )
    what.add_argument("--photos-only", action="store_true", help="leave out videos")
    what.add_argument(
        "--prefer-original",
        action="store_true",
        help="of sizes with equal pixels download the original, the uploaded file with its"
        " EXIF data",
    )

    order = parser.add_argument_group("in which order")
    order.add_argument(
        "--fifo",
        action="store_true",
        help="First-In First-Out: from the oldest uploaded photo to the newest",
    )
    order.add_argument(
        "--lifo",
        action="store_true",
        help="Last-In First-Out: from the newest uploaded photo to the oldest (default)",
    )

    where = parser.add_argument_group("where to keep it")
    where.add_argument(
        "--cache-path",
        type=_something,
        default=DEFAULT_CACHE_PATH,
        metavar="PATH",
        help="folder in which each mirrored user has a folder (default: %(default)s)",
    )
    # The specification writes it both ways.
    where.add_argument(
        "--cache_path", type=_something, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    where.add_argument(
        "--cache-directory-depth",
        type=_number_from(0, DEEPEST_CACHE),
        default=DEFAULT_CACHE_DEPTH,
        metavar="N",
        help="folders between the user's folder and the files, 0 to 32 (default: %(default)s)",
    )

    again = parser.add_argument_group("to go through all photos again")
    again.add_argument(
        "--verify-image",
        action="store_true",
        help="check every mirrored image, and fetch again what is missing or damaged",
    )
    again.add_argument(
        "--refresh",
        action="store_true",
        help="fetch again what changed on Flickr, keep what it replaces, and list the photos"
        " that are no longer there",
    )

    when = parser.add_argument_group("when")
    when.add_argument(
        "--watch",
        nargs="?",
        type=_number_from(1),
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help="go on looking for new photos after the mirror is complete, every so many seconds"
        " (default: %(const)s), until interrupted",
    )
    when.add_argument(
        "--dry-run",
        action="store_true",
        help="download nothing but the listing, and tell what would be downloaded",
    )

    keys = parser.add_argument_group(
        "Flickr API keys",
        f"Each is taken from its option, else from the file {KEYS_FILENAME} in the cache"
        " path, else asked for. Options show in the list of processes: on a machine that"
        " others use, save the keys once instead.",
    )
    keys.add_argument(
        "--consumer-key",
        type=_something,
        metavar="KEY",
        help="a unique string used by the Consumer to identify themselves to the Flickr API",
    )
    keys.add_argument(
        "--consumer-secret",
        type=_something,
        metavar="SECRET",
        help="a secret used by the Consumer to establish ownership of the Consumer Key",
    )
    keys.add_argument(
        "--save-api-keys",
        action="store_true",
        help="save the Flickr API keys for further usage",
    )

    manners = parser.add_argument_group("how fast")
    manners.add_argument(
        "--jobs",
        type=_number_from(1, MOST_JOBS),
        default=DEFAULT_JOBS,
        metavar="N",
        help="most images to download at a time, 1 to 64 (default: %(default)s); with 1,"
        " photos are mirrored strictly one after another",
    )
    manners.add_argument(
        "--api-rate",
        type=_number_from(1),
        default=CALLS_PER_HOUR,
        metavar="CALLS_PER_HOUR",
        help="most API calls to make in any hour (default: %(default)s, which is what Flickr"
        " allows one key)",
    )

    shown = parser.add_argument_group("what to show")
    shown.add_argument(
        "--quiet",
        action="store_true",
        help="show only warnings, errors and the last line",
    )
    shown.add_argument(
        "--debug",
        type=_number_from(0, 4),
        default=3,
        metavar="LEVEL",
        help="the logging level: 0 critical, 1 error, 2 warning, 3 info (default), 4 debug",
    )
    return parser


def get_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options given on the command line.

    One that is wrong, or contradicts another, ends the program with a line that says so and
    exit status 2.

    :param arguments: Those of the program itself if left out.
    """
    parser = _argument_parser()
    options = parser.parse_args(arguments)
    for one, other in (
        ("--fifo", "--lifo"),
        ("--image-only", "--info-only"),
        ("--verify-image", "--info-only"),
        ("--dry-run", "--verify-image"),
        ("--dry-run", "--refresh"),
        ("--dry-run", "--watch"),
    ):
        if _given(options, one) and _given(options, other):
            parser.error(f"{one} and {other} exclude each other")
    if options.image_only and options.info_level > 0:
        parser.error("--image-only mirrors no information: leave out --info-level")
    if options.username_file is not None:
        try:
            lines = pathlib.Path(options.username_file).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            parser.error(f"cannot read {options.username_file}: {reason}")
        options.usernames += [line.strip() for line in lines if line.strip()]
    options.usernames = list(dict.fromkeys(options.usernames))
    if not options.usernames:
        parser.error("whose photos? Give --username, or --username-file with a username in it")
    # The one, for whom one is enough.
    options.username = options.usernames[0]
    return options


def _given(options: argparse.Namespace, name: str) -> bool:
    return getattr(options, name.strip("-").replace("-", "_"))


def find_api_keys(options: argparse.Namespace) -> tuple[str, str]:
    """Return the API key and its secret: each from its option, the file, or the user.

    :raise MirrorError: If the file is damaged, or there is nobody to ask.
    """
    path = pathlib.Path(options.cache_path).expanduser() / KEYS_FILENAME
    # What a kill during --save-api-keys left may hold the secret.
    for leftover in path.parent.glob(f".*{PARTIAL_SUFFIX}"):
        leftover.unlink(missing_ok=True)
    key, secret = options.consumer_key, options.consumer_secret
    if key is None or secret is None:
        saved = _read_keys(path)
        key = key or saved.get("consumer_key") or _ask("Enter your Flickr API key: ")
        secret = secret or saved.get("consumer_secret") or _ask("Enter your Flickr API secret: ")
    if options.save_api_keys:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, mode=0o600) as file:
            file.write(json_bytes({"consumer_key": key, "consumer_secret": secret}))
    return key, secret


def _read_keys(path: pathlib.Path) -> dict[str, str]:
    try:
        keys = json.loads(path.read_bytes())
        if os.name == "posix" and path.stat().st_mode & 0o077:
            LOGGER.warning(
                "Others can read your Flickr API keys; mend that: chmod 600 %s",
                shlex.quote(str(path)),
            )
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        keys = None
    if not isinstance(keys, dict) or not all(
        isinstance(keys.get(name, ""), str) for name in ("consumer_key", "consumer_secret")
    ):
        raise MirrorError(
            f"{path} is damaged: it should hold a JSON object with consumer_key and"
            " consumer_secret; remove it, then use --save-api-keys",
            status=2,
        )
    return keys


def _ask(prompt: str) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise MirrorError(
            "no Flickr API keys and no terminal to ask for them: give --consumer-key and"
            " --consumer-secret, or save them with --save-api-keys first",
            status=2,
        )
    try:
        answer = getpass.getpass(prompt).strip()
    except EOFError:
        answer = ""
    if not answer:
        raise MirrorError(f"nothing entered for {prompt.strip().rstrip(':')!r}", status=2)
    return answer


class _ProgressBar:
    """Photos done of the photostream, rate, time left, failures; log lines scroll above it.

    Shown only where standard error is a terminal.
    """

    def __init__(self, shown: bool) -> None:
        self.is_shown = shown and sys.stderr.isatty()
        self._bar: Any = None
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: Any) -> None:
        self._ending.close()

    def show(self, done: int, total: int, failed: int) -> None:
        """Show that so many photos are done of so many, and so many failed."""
        if self._bar is None:
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            # From its first moment on, no thread's log line may come in the bar's way.
            self._ending.enter_context(logging_redirect_tqdm([LOGGER]))
            self._bar = tqdm(
                total=total, initial=done, unit=" photos", dynamic_ncols=True, file=sys.stderr
            )
            self._ending.enter_context(self._bar)
        if failed:
            self._bar.set_postfix_str(f"{failed:,} failed", refresh=False)
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status.

    0: everything asked for is mirrored. 1: Flickr refused, or some photos failed. 2: the
    command line is wrong. 130: interrupted.
    """
    options = get_arguments(arguments)
    level = LOG_LEVELS[options.debug]
    show_log(max(level, logging.WARNING) if options.quiet else level)
    agents: list[FlickrUserPhotostreamMirroringAgent] = []
    statuses = [0]
    try:
        keys = find_api_keys(options)
        for username in options.usernames:
            with _ProgressBar(shown=not options.quiet) as progress:
                show = progress.show if progress.is_shown else None
                agents.append(_agent_for(username, options, keys, agents, show))
                _stop_on_signals(agents[-1])
                statuses.append(_run(agents[-1], username))
        if options.watch is not None:
            _watch([agent for agent in agents if agent.may_go_on], options)
    except (KeyboardInterrupt, Stopped):
        done = f"{agents[-1].result}; " if agents and agents[-1].result else ""
        print(f"{printable(done)}interrupted: run the same command again to go on", flush=True)
        return 130
    except MirrorError as error:
        return _complain(str(error), error.status)
    except OSError as error:
        return _complain(trouble_of(error), 1)
    return max(statuses)


def _agent_for(
    username: str,
    options: argparse.Namespace,
    keys: tuple[str, str],
    others: Sequence[FlickrUserPhotostreamMirroringAgent],
    on_progress: Callable[[int, int, int], None] | None,
) -> FlickrUserPhotostreamMirroringAgent:
    return FlickrUserPhotostreamMirroringAgent(
        username,
        *keys,
        cache_root_path_name=options.cache_path,
        cache_directory_depth=options.cache_directory_depth,
        image_only=options.image_only,
        info_level=options.info_level,
        info_only=options.info_only,
        caching_strategy=CachingStrategy.FIFO if options.fifo else CachingStrategy.LIFO,
        verify_image=options.verify_image,
        refresh=options.refresh,
        photos_only=options.photos_only,
        prefer_original=options.prefer_original,
        dry_run=options.dry_run,
        jobs=options.jobs,
        calls_per_hour=options.api_rate,
        share_with=others[0] if others else None,
        on_progress=on_progress,
    )


def _run(agent: FlickrUserPhotostreamMirroringAgent, username: str) -> int:
    """Mirror one user's photostream; return the exit status for it."""
    try:
        result = agent.run()
    except FlickrUnavailable as error:
        return _complain(f"{username}: Flickr does not answer: {error}", 1)
    except FlickrError as error:
        return _complain(f"{username}: Flickr refuses: {error}", 1)
    except MirrorError as error:
        return _complain(str(error), error.status)
    print(printable(str(result)), flush=True)
    return 0 if result.complete else 1


def _watch(
    agents: Sequence[FlickrUserPhotostreamMirroringAgent], options: argparse.Namespace
) -> None:
    """Look for new photos of each user in turn, until interrupted."""
    if not agents:
        return
    LOGGER.info("Looking for new photos every %s from now on", span_of(options.watch))
    while True:
        agents[0].wait(options.watch)
        for agent in agents:
            _stop_on_signals(agent)
            result = agent.look()
            if result and (result.images or result.infos or not result.complete):
                print(printable(str(result)), flush=True)


def _complain(message: str, status: int) -> int:
    print(f"{PROGRAM}: error: {printable(message)}", file=sys.stderr, flush=True)
    return status


def _stop_on_signals(agent: FlickrUserPhotostreamMirroringAgent) -> None:
    """End the run in order at the first Ctrl-C or SIGTERM, and at once at the second."""

    def stop(*_: Any) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: os._exit(130))
        agent.stop()

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)


if __name__ == "__main__":
    sys.exit(main())
