"""An honest stand-in for Flickr on this machine: its REST API, its image host and its faults.

The sandbox speaks the real protocol over HTTP on the loopback address. The tests, the demo in the
README and the benchmark all run against it, because none of them may lean on Flickr itself:

    with Sandbox(Photostream.generated(1200)) as sandbox:
        os.environ["FLICKR_API_URL"] = sandbox.url

Or from a shell: `python tests/sandbox.py --photos 1200`, which prints the address and serves.

The photostream, the image files and the API answers are a plain model, with no input or output;
one asyncio protocol class serves them. Not modelled: signed calls, and the arguments of getPhotos
that filter by anything but the upload date.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

# ------------------------------------------------------------------------------------- texts

TITLES = (
    "Morning light over the old harbour, no. {n}",
    "Chợ nổi lúc bình minh, ảnh số {n}",
    "Le marché aux fleurs un dimanche d’été, n° {n}",
    "Straßenbahn der Linie {n} im ersten Schnee",
    "Niños jugando en la plaza después de la lluvia ({n})",
    "第{n}张：雨后的石板小巷",
    "夕暮れの商店街、その{n}",
    "Старая мельница у реки, снимок {n}",
    "Igreja matriz ao fim da tarde, foto {n}",
    "골목길의 고양이 {n}",
    "Fishing boats / low tide: “Saint Mary” & her crew, {n}?",
    "IMG_{n:05d}",
    "صورة رقم {n} من السوق القديم",
)

DESCRIPTIONS = (
    "",
    "Taken from the north pier, a little after six. <b>Please ask</b> before you use it.",
    "Con đường làng quanh co giữa hai hàng tre, trời vừa tạnh mưa.",
    'Vu de la rive gauche.\n\nVoir aussi <a href="https://www.flickr.com/photos/tags/seine/"'
    ' rel="noreferrer nofollow">les autres vues de la Seine</a>.',
    "",
    "Gefunden in einer Schachtel: &quot;Tante Käthe &amp; Onkel Willi, 1931&quot;.",
    "La fuente se secó hace años, pero la gente sigue citándose aquí.",
    "奶奶说，这条巷子八十年来没有变过。",
    "祭りの前の静けさ。<i>三脚なし</i>で撮りました。",
    "Снято на плёнку. Спасибо всем, кто помог найти это место!",
    "",
)

COMMENTS = (
    "What a wonderful view! I grew up two streets from here.",
    "Ảnh đẹp quá, nhớ quê da diết.",
    "Magnifique lumière, bravo &amp; merci pour le partage.",
    'Das Haus links steht heute nicht mehr, siehe <a href="https://example.org/haus">hier</a>.',
    "¡Qué recuerdos! Mi abuelo trabajaba en esa fábrica.",
    "拍得真好，请问是什么时候拍的？",
    "とても懐かしい風景ですね。",
    "Отличный кадр! А где это?",
    "Seen in the group &quot;Harbours of the world&quot; <b>(post 1, comment 2)</b>",
    "👏👏 great capture",
)

TAGS = ("harbour boats morning", "", "marché paris", "schnee straßenbahn", "", "雨 小巷")

DIMENSIONS = (  # of the originals, pixels: width, height
    (1024, 768), (1600, 1067), (800, 600), (683, 1024), (2048, 1365), (640, 480),
    (1500, 1001), (4032, 3024), (500, 375), (1200, 1600), (2560, 1707), (997, 1000),
)  # fmt: skip

FIRST_ID = 50_000_000_019
ID_STEP = 37
FIRST_UPLOAD = 1_400_000_000  # unix seconds: May 2014
UPLOAD_STEP = 1_800  # seconds


def digest(*parts: object) -> str:
    """Ten hexadecimal digits, the look of a Flickr secret, that depend on all the parts."""
    return blake2b(repr(parts).encode(), digest_size=5).hexdigest()


def date_of(seconds: int) -> str:
    """Unix seconds as Flickr writes the date a photo was taken."""
    minutes, second = divmod(seconds % 86_400, 60)
    return f"{day_of(seconds // 86_400)} {minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"


@lru_cache(maxsize=4096)
def day_of(days: int) -> str:
    """The date that many days after 1 January 1970."""
    return time.strftime("%Y-%m-%d", time.gmtime(days * 86_400))


def mixed(number: float, salt: int) -> float | str:
    """A number as Flickr answers it: at times as a JSON number, at times as a string."""
    return str(number) if salt % 2 else number


# ------------------------------------------------------------------------------------ photos


@dataclass(slots=True)
class SandboxPhoto:
    """A photo or a video of the photostream, as its owner uploaded it."""

    id: str
    secret: str = ""
    title: str = ""
    description: str = ""  # an HTML fragment
    comments: list[str] = field(default_factory=list)  # HTML fragments, oldest first
    media: str = "photo"  # or "video"
    original_format: str = "jpg"  # or "png", "gif"
    width: int = 1024  # of the original, pixels
    height: int = 768
    original_hidden: bool = False  # the owner keeps Original back
    date_upload: int = FIRST_UPLOAD  # unix seconds
    last_update: int = FIRST_UPLOAD  # unix seconds
    date_taken: str = "2014-05-13 16:53:20"
    tags: str = ""
    machine_tags: str = ""
    license: str = "0"
    views: int = 0
    latitude: float | None = None
    longitude: float | None = None
    record: dict[str, Any] | None = None  # its url_X, width_X, height_X are the sizes
    gone: bool = False  # still listed, but "Photo not found" and its images are unavailable
    image_revision: int = 0  # the bytes of the images change with it

    def __post_init__(self) -> None:
        if not self.secret:
            self.secret = digest("photo", self.id)


def generated_photo(
    number: int,
    photo_id: str,
    *,
    seed: int = 0,
    comments_every: int = 3,
    videos_every: int = 0,
    hidden_originals_every: int = 0,
    png_every: int = 0,
    gif_every: int = 0,
) -> SandboxPhoto:
    """Photo `number` (from 1) of a generated photostream; every n-th is a video, a PNG and so on.

    An `every` of 0 means none. The same arguments always give the same photo.
    """

    def falls_on(every: int) -> bool:
        return every > 0 and number % every == 0

    pick = number + seed
    width, height = DIMENSIONS[pick * 5 % len(DIMENSIONS)]
    uploaded = FIRST_UPLOAD + number * UPLOAD_STEP
    original_format = "png" if falls_on(png_every) else "gif" if falls_on(gif_every) else "jpg"
    return SandboxPhoto(
        id=photo_id,
        secret=digest(seed, number),
        title=TITLES[pick % len(TITLES)].format(n=number),
        description=DESCRIPTIONS[pick * 7 % len(DESCRIPTIONS)],
        comments=[COMMENTS[(pick + i * 3) % len(COMMENTS)] for i in range(1 + number // 3 % 5)]
        if falls_on(comments_every)
        else [],
        media="video" if falls_on(videos_every) else "photo",
        original_format=original_format,
        width=width,
        height=height,
        original_hidden=falls_on(hidden_originals_every),
        date_upload=uploaded,
        last_update=uploaded + 3_600,
        date_taken=date_of(uploaded - 86_400),
        tags=TAGS[pick % len(TAGS)],
        machine_tags=f"sandbox:number={number}" if number % 4 == 0 else "",
        license=str(pick % 8),
        views=number * 13 % 997,
        latitude=round(48 + number % 100 / 50, 4) if number % 5 == 0 else None,
        longitude=round(2 + number % 70 / 50, 4) if number % 5 == 0 else None,
    )


# ------------------------------------------------------------------------------------- sizes


class Size(NamedTuple):
    """One image of a photo; `server`/`name` is where the image host keeps it."""

    key: str  # as in the extra url_KEY
    label: str  # as getSizes names it
    width: int  # pixels
    height: int
    server: str
    name: str


LADDER = (  # key, label, suffix of the file name, longest side in pixels; in Flickr's order
    ("sq", "Square", "_s", 75),
    ("q", "Large Square", "_q", 150),
    ("t", "Thumbnail", "_t", 100),
    ("s", "Small", "_m", 240),
    ("n", "Small 320", "_n", 320),
    ("w", "Small 400", "_w", 400),
    ("m", "Medium", "", 500),
    ("z", "Medium 640", "_z", 640),
    ("c", "Medium 800", "_c", 800),
    ("l", "Large", "_b", 1024),
    ("h", "Large 1600", "_h", 1600),
    ("k", "Large 2048", "_k", 2048),
    ("3k", "X-Large 3K", "_3k", 3072),
    ("4k", "X-Large 4K", "_4k", 4096),
    ("5k", "X-Large 5K", "_5k", 5120),
    ("6k", "X-Large 6K", "_6k", 6144),
)
LABELS = {key: label for key, label, _, _ in LADDER} | {"f": "X-Large 4K", "o": "Original"}
SIZE_KEYS = ("sq", "q", "t", "s", "n", "w", "m", "z", "c", "l", "h", "k") + (
    "3k", "4k", "f", "5k", "6k", "o",
)  # fmt: skip
SERVER = "65535"  # where Flickr keeps new images
VIDEO_HEIGHTS = {"1080p": 1080, "720p": 720, "360p": 360}  # label: pixels


@lru_cache(maxsize=4096)
def ladder_of(width: int, height: int) -> tuple[tuple[str, str, str, int, int], ...]:
    """The re-encoded sizes of an original: key, label, suffix, width and height in pixels.

    No size is larger than the original. An original a little smaller than a step still gets that
    step, with its own pixels: 1982 pixels give a Large 2048 of 1982, as recorded, 1704 give none.
    """
    longest = max(width, height)
    sizes = []
    for key, label, suffix, side in LADDER:
        if key in ("sq", "q"):
            if key == "sq" or longest >= side:
                sizes.append((key, label, suffix, side, side))
        elif key == "t" or longest >= 0.9 * side:
            scale = min(1.0, side / longest)
            scaled = (max(1, round(width * scale)), max(1, round(height * scale)))
            sizes.append((key, label, suffix, *scaled))
    return tuple(sizes)


def sizes_of(photo: SandboxPhoto, keys: Container[str] = SIZE_KEYS) -> list[Size]:
    """The images of a photo (for a video its poster frames), in Flickr's order, Original last.

    `keys` are the sizes wanted; those the photo lacks are left out.
    """
    if photo.record is not None:
        return sizes_of_record(photo, keys)
    sizes = []
    for key, label, suffix, width, height in ladder_of(photo.width, photo.height):
        if key not in keys:
            continue
        large = max(width, height) > 1024 or key in ("h", "k")  # each has a secret of its own
        secret = digest(photo.secret, key) if large else photo.secret
        sizes.append(Size(key, label, width, height, SERVER, f"{photo.id}_{secret}{suffix}.jpg"))
    if "o" in keys and not photo.original_hidden:
        name = f"{photo.id}_{original_secret(photo)}_o.{photo.original_format}"
        sizes.append(Size("o", LABELS["o"], photo.width, photo.height, SERVER, name))
    return sizes


def sizes_of_record(photo: SandboxPhoto, keys: Container[str] = SIZE_KEYS) -> list[Size]:
    """The wanted sizes that a raw record names, under their own file names."""
    record = photo.record or {}
    sizes = []
    for key in SIZE_KEYS:
        url = record.get(f"url_{key}")
        if url and key in keys and not (key == "o" and photo.original_hidden):
            server, name = urlsplit(url).path.split("/")[-2:]
            width, height = int(record[f"width_{key}"]), int(record[f"height_{key}"])
            sizes.append(Size(key, LABELS[key], width, height, server, name))
    return sizes


def original_secret(photo: SandboxPhoto) -> str:
    """The secret in the address of Original; it differs from the photo's."""
    if photo.record is not None and photo.record.get("url_o"):
        return photo.record["url_o"].rsplit("/", 1)[-1].split("_")[1]
    return digest(photo.secret, "o")


def server_of(photo: SandboxPhoto) -> str:
    """The image server a photo's row names."""
    if photo.record is not None:
        return next((size.server for size in sizes_of_record(photo)), SERVER)
    return SERVER


def video_sizes_of(photo: SandboxPhoto) -> list[tuple[str, int | str | None, int | str | None]]:
    """The video files of a video, best first: label, width and height in pixels or unknown.

    Newer videos come in 1080p and below with dimensions, older ones under names such as "700"
    with null or "" for both, and the two sorts take turns here.
    """
    if photo.media != "video":
        return []
    draw = zlib.crc32(photo.id.encode()) // 2 % 6
    if draw < 2:
        unknown = "" if draw else None
        return [("700", unknown, unknown), ("iphone_wifi", unknown, unknown)]
    best = max(360, min(photo.width, photo.height))
    return [
        (label, round(height * photo.width / photo.height), height)
        for label, height in VIDEO_HEIGHTS.items()
        if height <= best
    ]


# ------------------------------------------------------------------------------- image files

PADDING = memoryview(random.Random("padding").randbytes(1 << 20))
LARGEST_COMMENT = 65_533  # bytes in one JPEG comment segment

CONTENT_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "mp4": "video/mp4",
}


def image_of(photo: SandboxPhoto, key: str, *, at_least: int | None = None) -> tuple[str, bytes]:
    """The image of a photo at a size, whole: its content type and its bytes.

    `key` is a size such as "o" or "m", or the label of a video file such as "360p". Two images
    differ in their bytes when photo, size or `image_revision` differ. `at_least` is the length in
    bytes below which an image is padded with incompressible bytes, inside the format's rules.
    """
    for size in sizes_of(photo):
        if size.key == key:
            extension = size.name.rsplit(".", 1)[-1]
            content_type, parts = image_parts(
                photo, key, size.width, size.height, extension, at_least
            )
            return content_type, b"".join(parts)
    if any(label == key for label, _, _ in video_sizes_of(photo)):
        content_type, parts = image_parts(photo, key, photo.width, photo.height, "mp4", at_least)
        return content_type, b"".join(parts)
    raise KeyError(f"photo {photo.id} has no size {key}")


def image_parts(
    photo: SandboxPhoto, key: str, width: int, height: int, extension: str, at_least: int | None
) -> tuple[str, list[bytes | memoryview]]:
    """As `image_of`, with the file in parts, so that whoever sends it joins them only once."""
    text = b"Flickr photo %s, size %s, revision %d" % (
        photo.id.encode(),
        key.encode(),
        photo.image_revision,
    )
    write = {"jpg": jpeg_parts, "png": png_parts, "gif": gif_parts, "mp4": mp4_parts}[extension]
    return CONTENT_TYPES[extension], write(width, height, text, at_least or 0)


def jpeg_parts(width: int, height: int, text: bytes, at_least: int) -> list[bytes | memoryview]:
    """A baseline JPEG in one shade of grey.

    Its Huffman tables give "same as the block before" and "end of block" the code 0 of one bit
    each, so every block of 8x8 pixels but the first is two zero bits. The first block carries the
    shade: code 10 and seven bits.
    """
    shade = zlib.crc32(text) & 0x7F
    blocks = -(-width // 8) * -(-height // 8)
    scan_length = -(-(10 + 2 * (blocks - 1)) // 8)
    parts: list[bytes | memoryview] = [JPEG_HEAD, jpeg_segment(0xFE, text)]
    missing = at_least - scan_length - len(text) - 140
    start = zlib.crc32(text) % (len(PADDING) - LARGEST_COMMENT)
    while missing > 0:
        piece = PADDING[start : start + min(missing, LARGEST_COMMENT)]
        parts += (struct.pack(">BBH", 0xFF, 0xFE, len(piece) + 2), piece)
        missing -= len(piece)
        start = (start + LARGEST_COMMENT) % (len(PADDING) - LARGEST_COMMENT)
    frame = struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)
    first = struct.pack(">H", 0x8000 | shade << 7)
    parts += (jpeg_segment(0xC0, frame), JPEG_TABLES, first, bytes(max(0, scan_length - 2)))
    parts.append(b"\xff\xd9")
    return parts


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """One JPEG marker segment: marker, length, data."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


JPEG_HEAD = b"\xff\xd8" + jpeg_segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
JPEG_TABLES = (
    jpeg_segment(0xDB, b"\0" + bytes([8] * 64))  # quantisation: a step is one shade
    + jpeg_segment(0xC4, b"\x00" + bytes([1, 1] + [0] * 14) + bytes([0, 7]))  # DC: 0, 7 bits
    + jpeg_segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + bytes([0]))  # AC: end of block
    + jpeg_segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
)


def png_parts(width: int, height: int, text: bytes, at_least: int) -> list[bytes | memoryview]:
    """A PNG of one bit a pixel and one colour."""
    colour = struct.pack(">I", zlib.crc32(text))[:3]
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)
    parts: list[bytes | memoryview] = [
        b"\x89PNG\r\n\x1a\n",
        png_chunk(b"IHDR", header),
        png_chunk(b"PLTE", colour),
        png_chunk(b"tEXt", b"Comment\0" + text),
    ]
    if at_least:
        parts += (struct.pack(">I", at_least) + b"spAd", *padding(at_least))
        parts.append(struct.pack(">I", png_padding_check(at_least)))
    return parts + [png_pixels(width, height), png_chunk(b"IEND", b"")]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk: length, type, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=64)
def png_pixels(width: int, height: int) -> bytes:
    """The IDAT chunk of a picture whose pixels are all 0."""
    return png_chunk(b"IDAT", zlib.compress(bytes((1 + -(-width // 8)) * height), 9))


@lru_cache(maxsize=64)
def png_padding_check(length: int) -> int:
    """The checksum of the padding chunk of that length."""
    check = zlib.crc32(b"spAd")
    for piece in padding(length):
        check = zlib.crc32(piece, check)
    return check


def padding(length: int) -> list[memoryview]:
    """`length` incompressible bytes, the same ones at every call."""
    whole, rest = divmod(length, len(PADDING))
    return [PADDING] * whole + [PADDING[:rest]]


def gif_parts(width: int, height: int, text: bytes, at_least: int) -> list[bytes | memoryview]:
    """A GIF whose screen has the given size; its one frame is a pixel in the corner."""
    colours = struct.pack(">I", zlib.crc32(text))[:3] * 2
    return [
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + colours,
        b"\x21\xfe" + bytes([len(text)]) + text + b"\0",
        gif_padding(at_least) if at_least else b"",
        b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0\x3b",
    ]


@lru_cache(maxsize=8)
def gif_padding(length: int) -> bytes:
    """A comment extension of at least `length` bytes, in blocks of 255."""
    blocks = (b"\xff" + PADDING[i * 255 % 1_000_000 :][:255] for i in range(-(-length // 256)))
    return b"\x21\xfe" + b"".join(blocks) + b"\0"


def mp4_parts(width: int, height: int, text: bytes, at_least: int) -> list[bytes | memoryview]:
    """The frame of an MP4 file: brand, an empty film of one second, and media data."""
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    film = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, 1000, 0x10000, 0x100) + matrix
    film += bytes(24) + struct.pack(">I", 2)
    parts: list[bytes | memoryview] = [
        mp4_box(b"ftyp", b"isom\0\0\2\0isomiso2mp41"),
        mp4_box(b"moov", mp4_box(b"mvhd", film)),
        struct.pack(">I", 8 + len(text) + at_least) + b"mdat" + text,
    ]
    return parts + padding(at_least)


def mp4_box(kind: bytes, data: bytes) -> bytes:
    """One MP4 box: length, type, data."""
    return struct.pack(">I", 8 + len(data)) + kind + data


UNAVAILABLE_PATH = "/images/photo_unavailable.gif"
UNAVAILABLE_PICTURE = b"".join(gif_parts(500, 374, b"This photo is no longer available", 0))


# ------------------------------------------------------------------------------- photostream


class Photostream:
    """The photos of one user, oldest first. Safe to change while a sandbox serves it."""

    def __init__(
        self,
        username: str = "sandbox",
        nsid: str = "12345678@N01",
        photos: Iterable[SandboxPhoto] = (),
        *,
        image_bytes: int | None = None,
    ) -> None:
        self.username = username
        self.nsid = nsid
        self.path_alias = username if re.fullmatch(r"[A-Za-z0-9_-]+", username) else None
        self.photos = list(photos)  # oldest first
        self.hidden: set[str] = set()  # ids that count and hold their slot, but show no row
        self.image_bytes = image_bytes  # the least length of every image, bytes
        self._lock = threading.RLock()
        self._by_id = {photo.id: photo for photo in self.photos}
        self._last_id = max((int(photo.id) for photo in self.photos), default=FIRST_ID)
        self._last_number = len(self.photos)

    @classmethod
    def generated(
        cls,
        count: int,
        *,
        seed: int = 0,
        username: str = "sandbox",
        nsid: str = "12345678@N01",
        comments_every: int = 3,
        videos_every: int = 0,
        hidden_originals_every: int = 0,
        png_every: int = 0,
        gif_every: int = 0,
        image_bytes: int | None = None,
    ) -> Photostream:
        """A photostream of `count` photos, the same for the same arguments."""
        photos = [
            generated_photo(
                number,
                str(FIRST_ID + number * ID_STEP),
                seed=seed,
                comments_every=comments_every,
                videos_every=videos_every,
                hidden_originals_every=hidden_originals_every,
                png_every=png_every,
                gif_every=gif_every,
            )
            for number in range(1, count + 1)
        ]
        return cls(username, nsid, photos, image_bytes=image_bytes)

    @classmethod
    def from_jsonl(
        cls,
        path: str | Path,
        *,
        comments: str | Path | None = None,
        username: str = "sandbox",
        nsid: str = "12345678@N01",
        limit: int | None = None,
        image_bytes: int | None = None,
    ) -> Photostream:
        """The photos of a file of records, one JSON object a line, oldest first.

        A record has id, title, description and, for each size, url_X, width_X and height_X.
        `comments` is a JSON file {id: {"comment": [{"_content": ...}]}}: every third photo gets
        the next one to five of its comments, as long as there are any.
        """
        texts: list[str] = []
        if comments is not None:
            answers = json.loads(Path(comments).read_text(encoding="utf-8"))
            texts = [row["_content"] for answer in answers.values() for row in answer["comment"]]
        photos: list[SandboxPhoto] = []
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if limit is not None and len(photos) >= limit:
                    break
                if line.strip():
                    taken = 1 + len(photos) // 3 % 5 if len(photos) % 3 == 2 else 0
                    photos.append(photo_of_record(json.loads(line), len(photos), texts[:taken]))
                    del texts[:taken]
        return cls(username, nsid, photos, image_bytes=image_bytes)

    def add(self, count: int = 1, **fields: Any) -> list[SandboxPhoto]:
        """Upload `count` new photos, with these fields in place of the generated ones."""
        added = []
        with self._lock:
            for _ in range(count):
                self._last_id += ID_STEP
                self._last_number += 1
                photo = generated_photo(self._last_number, str(self._last_id))
                if self.photos and self.photos[-1].date_upload >= photo.date_upload:
                    photo.date_upload = self.photos[-1].date_upload + UPLOAD_STEP
                    photo.last_update = photo.date_upload
                for name, value in fields.items():
                    setattr(photo, name, value)
                self.photos.append(photo)
                self._by_id[photo.id] = photo
                added.append(photo)
        return added

    def remove(self, photo_id: str) -> None:
        """Delete a photo, as its owner would: it is no longer listed and its images are gone."""
        with self._lock:
            self.photos.remove(self._by_id.pop(photo_id))
            self.hidden.discard(photo_id)

    def get(self, photo_id: str) -> SandboxPhoto | None:
        """The photo of that id, None where there is none."""
        with self._lock:
            return self._by_id.get(photo_id)

    def page(
        self,
        page: int,
        per_page: int,
        *,
        uploaded: tuple[int, int] | None = None,
    ) -> tuple[list[SandboxPhoto], int, int]:
        """One page of the photostream: its photos, the count of pages, the count of photos.

        Page 1 has the newest photos, newest first. Hidden photos count but show no row, so that
        a page may be short for good. A page beyond the last is empty. `uploaded` keeps only the
        photos uploaded between two times, unix seconds, both included.
        """
        with self._lock:
            photos = self.photos
            if uploaded is not None:
                first, last = uploaded
                photos = [photo for photo in photos if first <= photo.date_upload <= last]
            total = len(photos)
            end = total - (page - 1) * per_page
            slots = photos[max(0, end - per_page) : max(0, end)]
            rows = [photo for photo in reversed(slots) if photo.id not in self.hidden]
        return rows, -(-total // per_page), total


def photo_of_record(record: dict[str, Any], position: int, comments: list[str]) -> SandboxPhoto:
    """The photo at a position (from 0, oldest first) of a file of records."""
    keys = [key for key in SIZE_KEYS if record.get(f"url_{key}")]  # some addresses are ""
    largest = keys[-1]
    names = [record[f"url_{key}"].rsplit("/", 1)[-1] for key in keys if key != "o"]
    uploaded = FIRST_UPLOAD + position * UPLOAD_STEP
    return SandboxPhoto(
        id=str(record["id"]),
        secret=names[0].split(".")[0].split("_")[1] if names else "",
        title=record.get("title", ""),
        description=record.get("description", ""),
        comments=comments,
        media=record.get("media", "photo"),
        original_format=record[f"url_{largest}"].rsplit(".", 1)[-1],
        width=int(record[f"width_{largest}"]),
        height=int(record[f"height_{largest}"]),
        original_hidden="o" not in keys,
        date_upload=uploaded,
        last_update=uploaded,
        date_taken=date_of(uploaded),
        record=record,
    )


# -------------------------------------------------------------------------------- API answers


class ApiError(Exception):
    """A call that fails: Flickr's code and message, under HTTP 200."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Api:
    """Flickr's REST methods over some photostreams; parameters in, a JSON object out."""

    def __init__(
        self,
        photostreams: list[Photostream],
        *,
        base: str,
        faults: Faults,
        api_keys: set[str] | None = None,
        plain: bool = False,
        missing_extras: Iterable[str] = (),
    ) -> None:
        self.photostreams = photostreams
        self.base = base  # "http://host:port", where the images and the photo pages are
        self.faults = faults
        self.api_keys = api_keys
        self.plain = plain
        self.missing_extras = frozenset(missing_extras)
        self.methods: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
            "flickr.people.findByUsername": self.find_by_username,
            "flickr.people.getPhotos": self.get_photos,
            "flickr.people.getPublicPhotos": self.get_public_photos,
            "flickr.photos.getSizes": self.get_sizes,
            "flickr.photos.getInfo": self.get_info,
            "flickr.photos.comments.getList": self.get_comments,
            "flickr.urls.lookupUser": self.lookup_user,
        }

    def call(self, params: dict[str, str]) -> dict[str, Any]:
        """The answer to a call, a failure included."""
        try:
            answer_format = params.get("format", "rest")
            if answer_format != "json":
                raise ApiError(111, f'Format "{answer_format}" not found')
            name = params.get("method", "")
            if name not in self.methods:
                raise ApiError(112, f'Method "{name}" not found')
            key = params.get("api_key", "")
            if not key or (self.api_keys is not None and key not in self.api_keys):
                raise ApiError(100, "Invalid API Key (Key has invalid format)")
            return self.methods[name](params) | {"stat": "ok"}
        except ApiError as error:
            return {"stat": "fail", "code": error.code, "message": error.message}

    # users

    def find_by_username(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.people.findByUsername"""
        wanted = params.get("username", "").casefold()
        for stream in self.photostreams:
            if stream.username.casefold() == wanted:
                name = {"_content": stream.username}
                return {"user": {"id": stream.nsid, "nsid": stream.nsid, "username": name}}
        raise ApiError(1, "User not found")

    def lookup_user(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.urls.lookupUser"""
        match = re.search(r"/(?:photos|people)/([^/?#]+)", params.get("url", ""))
        wanted = unquote(match[1]).casefold() if match else None
        for stream in self.photostreams:
            if wanted in (stream.nsid.casefold(), (stream.path_alias or stream.nsid).casefold()):
                return {"user": {"id": stream.nsid, "username": {"_content": stream.username}}}
        raise ApiError(1, "User not found")

    # the photostream

    def get_photos(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.people.getPhotos"""
        if not params.get("user_id"):
            raise ApiError(1, "Required arguments missing")
        return self.listing(self.stream_of(params["user_id"], 2, "Unknown user"), params)

    def get_public_photos(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.people.getPublicPhotos"""
        stream = self.stream_of(params.get("user_id", ""), 1, "User not found")
        dates = ("min_upload_date", "max_upload_date")
        return self.listing(stream, {k: v for k, v in params.items() if k not in dates})

    def stream_of(self, nsid: str, code: int, message: str) -> Photostream:
        """The photostream of a user, or the given failure."""
        for stream in self.photostreams:
            if stream.nsid == nsid:
                return stream
        raise ApiError(code, message)

    def listing(self, stream: Photostream, params: dict[str, str]) -> dict[str, Any]:
        """A page of a photostream, with the extras asked for."""
        page = max(1, whole_number(params.get("page"), 1))
        per_page = min(500, whole_number(params.get("per_page"), 100)) or 100
        uploaded = None
        if params.get("min_upload_date") or params.get("max_upload_date"):
            uploaded = (
                whole_number(params.get("min_upload_date"), 0),
                whole_number(params.get("max_upload_date"), 1 << 62),
            )
        photos, page_count, total = stream.page(page, per_page, uploaded=uploaded)
        photos = photos[: max(0, len(photos) - self.faults.rows_to_drop(page))]
        extras = set() if self.plain else set(params.get("extras", "").replace(" ", "").split(","))
        extras -= self.missing_extras
        return {
            "photos": {
                "page": page,
                "pages": page_count,
                "perpage": mixed(per_page, page + 1),
                "total": mixed(total, page),
                "photo": [self.row(stream, photo, extras) for photo in photos],
            }
        }

    def row(self, stream: Photostream, photo: SandboxPhoto, extras: set[str]) -> dict[str, Any]:
        """A photo's row in a listing: the fields it always has and those of the extras."""
        number = int(photo.id)
        row: dict[str, Any] = {
            "id": photo.id,
            "owner": stream.nsid,
            "secret": photo.secret,
            "server": server_of(photo),
            "farm": 66,
            "title": photo.title,
            "ispublic": 1,
            "isfriend": 0,
            "isfamily": 0,
        }
        if "description" in extras:
            row["description"] = {"_content": photo.description}
        if "license" in extras:
            row["license"] = photo.license
        if "date_upload" in extras:
            row["dateupload"] = str(photo.date_upload)
        if "last_update" in extras:
            row["lastupdate"] = str(photo.last_update)
        if "date_taken" in extras:
            row["datetaken"] = photo.date_taken
            row["datetakengranularity"] = mixed(0, number)
            row["datetakenunknown"] = mixed(0, number // 2)
        if "owner_name" in extras:
            row["ownername"] = stream.username
        if "original_format" in extras and not photo.original_hidden:
            row["originalsecret"] = original_secret(photo)
            row["originalformat"] = photo.original_format
        if "o_dims" in extras and not photo.original_hidden:
            row["o_width"] = mixed(photo.width, number)
            row["o_height"] = mixed(photo.height, number)
        if "geo" in extras:
            if photo.latitude is None or photo.longitude is None:
                row |= {"latitude": 0, "longitude": 0, "accuracy": 0, "context": 0}
            else:
                row["latitude"] = mixed(photo.latitude, number)
                row["longitude"] = mixed(photo.longitude, number)
                row |= {"accuracy": mixed(16, number), "context": 0}
        if "tags" in extras:
            row["tags"] = photo.tags
        if "machine_tags" in extras:
            row["machine_tags"] = photo.machine_tags
        if "views" in extras:
            row["views"] = mixed(photo.views, number)
        if "media" in extras:
            row["media"] = photo.media
            row["media_status"] = "ready"
        if "path_alias" in extras:
            row["pathalias"] = stream.path_alias
        if "count_comments" in extras:
            row["count_comments"] = str(len(photo.comments))
        if "count_faves" in extras:
            row["count_faves"] = str(photo.views // 10)
        keys = [extra[4:] for extra in extras if extra.startswith("url_")]
        for size in sizes_of(photo, keys) if keys else ():
            row[f"url_{size.key}"] = f"{self.base}/img/{size.server}/{size.name}"
            row[f"height_{size.key}"] = mixed(size.height, number + size.width)
            row[f"width_{size.key}"] = mixed(size.width, number + size.width)
        return row

    # one photo

    def photo_of(self, params: dict[str, str]) -> tuple[Photostream, SandboxPhoto]:
        """The photo a call is about, with its photostream."""
        photo_id = params.get("photo_id", "")
        for stream in self.photostreams:
            photo = stream.get(photo_id)
            if photo is not None and not photo.gone and photo_id not in stream.hidden:
                return stream, photo
        raise ApiError(1, "Photo not found")

    def page_of(self, stream: Photostream, photo: SandboxPhoto) -> str:
        """The address of a photo's page, with a slash at its end."""
        return f"{self.base}/photos/{stream.path_alias or stream.nsid}/{photo.id}/"

    def get_sizes(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.photos.getSizes"""
        stream, photo = self.photo_of(params)
        page = self.page_of(stream, photo)
        number = int(photo.id)
        rows = [
            {
                "label": size.label,
                "width": mixed(size.width, number + size.height),
                "height": mixed(size.height, number + size.height),
                "source": f"{self.base}/img/{size.server}/{size.name}",
                "url": f"{page}sizes/{size.key}/",
                "media": "photo",
            }
            for size in sizes_of(photo)
        ]
        if photo.media == "video":
            player = f"{self.base}/apps/video/stewart.swf?photo_id={photo.id}"
            player += f"&photo_secret={photo.secret}"
            videos = [("Video Player", "640", "480", player)]
            if zlib.crc32(photo.id.encode()) % 2:  # only its owner could fetch it
                videos.append(("Video Original", "", "", f"{page}play/orig/{photo.secret}/"))
            for position, (label, width, height) in enumerate(video_sizes_of(photo)):
                if isinstance(width, int) and isinstance(height, int):
                    width, height = mixed(width, position), mixed(height, position)
                videos.append((label, width, height, f"{page}play/{label}/{photo.secret}/"))
            names = ("label", "width", "height", "source")
            rows += [
                dict(zip(names, video, strict=True)) | {"url": page, "media": "video"}
                for video in videos
            ]
        can_download = 0 if photo.original_hidden else 1
        return {"sizes": {"canblog": 0, "canprint": 0, "candownload": can_download, "size": rows}}

    def get_info(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.photos.getInfo"""
        photo_id = params.get("photo_id", "")
        if not re.fullmatch(r"[0-9]{5,18}", photo_id):
            raise ApiError(1, f'Photo "{photo_id}" not found (invalid ID)')
        stream, photo = self.photo_of(params)
        number = int(photo.id)
        info: dict[str, Any] = {
            "id": photo.id,
            "secret": photo.secret,
            "server": server_of(photo),
            "farm": 66,
            "dateuploaded": str(photo.date_upload),
            "isfavorite": 0,
            "license": photo.license,
            "safety_level": "0",
            "rotation": 0,
            "owner": {
                "nsid": stream.nsid,
                "username": stream.username,
                "realname": "",
                "location": None,
                "path_alias": stream.path_alias,
            },
            "title": {"_content": photo.title},
            "description": {"_content": photo.description},
            "visibility": {"ispublic": 1, "isfriend": 0, "isfamily": 0},
            "dates": {
                "posted": str(photo.date_upload),
                "taken": photo.date_taken,
                "takengranularity": mixed(0, number),
                "takenunknown": mixed(0, number // 2),
                "lastupdate": str(photo.last_update),
            },
            "views": mixed(photo.views, number),
            "comments": {"_content": mixed(len(photo.comments), number)},
            "notes": {"note": []},
            "people": {"haspeople": 0},
            "tags": {
                "tag": [
                    {
                        "id": f"{number % 9973}-{photo.id}-{position}",
                        "author": stream.nsid,
                        "raw": tag,
                        "_content": tag,
                        "machine_tag": int(":" in tag),
                    }
                    for position, tag in enumerate(f"{photo.tags} {photo.machine_tags}".split())
                ]
            },
            "urls": {"url": [{"type": "photopage", "_content": self.page_of(stream, photo)}]},
            "media": photo.media,
        }
        if not photo.original_hidden:
            info["originalsecret"] = original_secret(photo)
            info["originalformat"] = photo.original_format
        if photo.latitude is not None:
            place = {"latitude": str(photo.latitude), "longitude": str(photo.longitude)}
            info["location"] = place | {"accuracy": "16", "context": "0"}
        return {"photo": info}

    def get_comments(self, params: dict[str, str]) -> dict[str, Any]:
        """flickr.photos.comments.getList"""
        stream, photo = self.photo_of(params)
        comments: dict[str, Any] = {"photo_id": photo.id}
        rows = []
        for position, text in enumerate(photo.comments):
            writer = (int(photo.id) + position * 7) % 89_999 + 10_000
            number = f"7215763{int(photo.id) % 10**7 + position:07d}"
            rows.append(
                {
                    "id": f"{writer}-{photo.id}-{number}",
                    "author": f"{writer}@N02",
                    "authorname": f"visitor {writer}",
                    "datecreate": str(photo.date_upload + 3_600 * (position + 1)),
                    "permalink": f"{self.page_of(stream, photo)}#comment{number}",
                    "_content": text,
                }
            )
        if rows:
            comments["comment"] = rows
        return {"comments": comments}


def whole_number(text: str | None, default: int) -> int:
    """A parameter as Flickr reads it: a number, or else the default."""
    return int(text) if text is not None and text.isdecimal() else default


# ------------------------------------------------------------------------------------- faults

FAULT_KINDS = (
    "reset",  # the connection is reset, without an answer
    "cut",  # half of the body, then the connection ends
    "stall",  # some bytes of the body, then silence
    "trickle",  # a byte of the body every 0.2 seconds, for ever
    "slow",  # the body in small pieces, over 0.3 seconds
    "short_length",  # half of the body, and a Content-Length that says it is all
    "no_length",  # the whole body without Content-Length
    "lying_length_long",  # the whole body, a Content-Length beyond it, then the connection ends
    "500",
    "502",
    "503",
    "429",  # with Retry-After where the option retry_after is given
    "105",  # API failures that pass with time; images answer 503 instead
    "106",
    "201",
    "0",
    "html",  # status 200 with an HTML page
    "empty",  # status 200 with nothing
    "garbage",  # status 200 with bytes that mean nothing
    "redirect_loop",
    "redirect_scheme",  # a redirect to an ftp:// address
    "unavailable",  # images: a redirect to the "photo unavailable" picture; API calls answer 503
    "404",
    "410",
    "endless",  # a body that never ends, without Content-Length
)
PASSING_FAULTS = (  # what a client gets over by asking again, without long waits
    "reset", "cut", "slow", "no_length", "lying_length_long", "500", "502", "503", "429",
    "105", "201", "0", "html", "empty", "garbage",
)  # fmt: skip
PASSING_CODES = {
    "105": "Service currently unavailable",
    "106": "Write operation failed",
    "201": "Sorry, the Flickr API service is not currently available.",
    "0": "Sorry, the Flickr API service is not currently available.",
}
TRICKLE_PAUSE = 0.2  # seconds between two bytes
SLOW_PIECES, SLOW_PAUSE = 15, 0.02  # pieces of a slow body, seconds between two of them
ENDLESS_PIECE, ENDLESS_PAUSE = 65_536, 0.01  # bytes, seconds


class Fault(NamedTuple):
    """One fault: its kind, and the Retry-After that a 429 or 503 may carry."""

    kind: str
    retry_after: str | None = None


FaultSpec = str | tuple[str, dict[str, str]] | Fault | None


def fault_of(spec: FaultSpec) -> Fault | None:
    """A fault from how callers write it: "reset", ("429", {"retry_after": "2"}), None."""
    if spec is None or isinstance(spec, Fault):
        return spec
    fault = Fault(spec) if isinstance(spec, str) else Fault(spec[0], **spec[1])
    if fault.kind not in FAULT_KINDS:
        raise ValueError(f"no such fault: {fault.kind}")
    return fault


class Faults:
    """What goes wrong and when: by chance, by script, or always.

    `rate` is the share of requests, 0 to 1, that get one of `kinds` by chance, drawn from `seed`.
    At most `per_request_limit` faults by chance in a row hit the same request.
    """

    def __init__(
        self,
        rate: float = 0.0,
        kinds: Iterable[FaultSpec] = PASSING_FAULTS,
        seed: int = 0,
        api: bool = True,
        images: bool = True,
        per_request_limit: int | None = None,
    ) -> None:
        self.rate = rate
        self.kinds = [fault for fault in map(fault_of, kinds) if fault is not None]
        self.api = api
        self.images = images
        self.per_request_limit = per_request_limit
        self.counts: Counter[str] = Counter()  # faults that happened, by kind
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._scripts: list[tuple[str, deque[Fault | None]]] = []
        self._always: list[tuple[str, Fault | None]] = []
        self._in_a_row: Counter[str] = Counter()
        self._short_pages: dict[int, list[tuple[int, int | None]]] = {}

    def script(self, where: str, *kinds: FaultSpec) -> None:
        """The next requests that contain `where` get these faults in order; None is no fault.

        An API call is matched by its method and parameters, "flickr.people.getPhotos?page=2&...",
        in alphabetical order and without api_key; an image by its path.
        """
        with self._lock:
            self._scripts.append((where, deque(map(fault_of, kinds))))

    def always(self, where: str, kind: FaultSpec) -> None:
        """Every request that contains `where` gets this fault, until `clear`."""
        with self._lock:
            self._always.append((where, fault_of(kind)))

    def short_page(self, page: int, drop: int = 3, times: int | None = 1) -> None:
        """Cut `drop` rows off a page of the photostream, the next `times` times (None: always).

        Repeated, it tells what happens once the times before are used up.
        """
        with self._lock:
            self._short_pages.setdefault(page, []).append((drop, times))

    def clear(self) -> None:
        """No faults from now on; the counts stay."""
        with self._lock:
            self.rate = 0.0
            self._scripts.clear()
            self._always.clear()
            self._short_pages.clear()

    def choose(self, kind: str, identity: str) -> Fault | None:
        """The fault of a request of kind "api" or "image", None for a normal answer."""
        with self._lock:
            fault = self._scripted(identity, self._by_chance(kind, identity))
            if fault is not None:
                self.counts[fault.kind] += 1
            return fault

    def _scripted(self, identity: str, otherwise: Fault | None) -> Fault | None:
        for where, faults in self._scripts:
            if faults and where in identity:
                return faults.popleft()
        for where, fault in self._always:
            if where in identity:
                return fault
        return otherwise

    def _by_chance(self, kind: str, identity: str) -> Fault | None:
        if not self.rate or not (self.api if kind == "api" else self.images):
            return None
        kinds = [fault for fault in self.kinds if kind == "image" or fault.kind != "unavailable"]
        hit = self._random.random() < self.rate and bool(kinds)
        limit = self.per_request_limit
        if not hit or (limit is not None and self._in_a_row[identity] >= limit):
            self._in_a_row.pop(identity, None)
            return None
        self._in_a_row[identity] += 1
        return self._random.choice(kinds)

    def rows_to_drop(self, page: int) -> int:
        """How many rows this answer of that page lacks at its end."""
        with self._lock:
            plans = self._short_pages.get(page)
            if not plans:
                return 0
            drop, times = plans[0]
            if times is not None:
                plans[0] = (drop, times - 1)
                if times <= 1:
                    del plans[0]
            self.counts["short_page"] += 1
            return drop


# ------------------------------------------------------------------------------ HTTP answers


@dataclass(slots=True)
class SandboxRequest:
    """A request that the sandbox received, and how it was answered."""

    kind: str  # "api", "image" or "other"; "control" is never counted nor logged
    http_method: str
    path: str  # percent-decoded, without the query
    params: dict[str, str]  # of the query and of a form
    headers: dict[str, str]  # names in lower case
    started: float  # monotonic seconds
    finished: float | None = None  # monotonic seconds, when the last byte was handed over
    status: int | None = None  # HTTP status, None where the connection was reset
    fault: str | None = None

    @property
    def method(self) -> str:
        """The API method, "" for anything but an API call."""
        return self.params.get("method", "") if self.kind == "api" else ""

    @property
    def identity(self) -> str:
        """What repeats when the request is made again: see `Faults.script`."""
        if self.kind != "api":
            return self.path
        hidden = ("method", "api_key")
        params = sorted(f"{k}={v}" for k, v in self.params.items() if k not in hidden)
        return f"{self.method}?{'&'.join(params)}"


class Answer(NamedTuple):
    """An HTTP answer before it is written: the body in parts, the headers as text lines."""

    status: int
    content_type: str
    body: list[bytes | memoryview]
    headers: str = ""  # "Name: value\r\n" each

    @classmethod
    def page(cls, status: int, headers: str = "") -> Answer:
        """A small HTML page that says the status."""
        title = f"{status} {HTTPStatus(status).phrase}"
        html = f"<!DOCTYPE html>\n<title>{title}</title>\n<h1>{title}</h1>\n"
        return cls(status, "text/html; charset=utf-8", [html.encode()], headers)

    @classmethod
    def redirect(cls, location: str) -> Answer:
        """A 302 to another address."""
        return cls.page(302, f"Location: {location}\r\n")

    @classmethod
    def json(cls, value: Any, callback: str | None = None) -> Answer:
        """A JSON value, or a call of `callback` with it as Flickr writes it by default."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if callback is not None:
            body = f"{callback}({text})".encode()
            return cls(200, "text/javascript; charset=utf-8", [body])
        return cls(200, "application/json; charset=utf-8", [text.encode()])

    def length(self) -> int:
        """Bytes in the body."""
        return sum(map(len, self.body))


REASONS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def head_of(answer: Answer, length: int | None, close: bool) -> bytes:
    """Status line and headers; `length` None leaves Content-Length out."""
    lines = REASONS[answer.status] + answer.headers
    if answer.status != 304:
        lines += f"Content-Type: {answer.content_type}\r\n"
        if length is not None:
            lines += f"Content-Length: {length}\r\n"
    return (lines + ("Connection: close\r\n\r\n" if close else "\r\n")).encode("latin-1")


def replaced_by_fault(answer: Answer, fault: Fault, kind: str, base: str) -> Answer:
    """The answer in the place of the true one, for faults that change what is said."""
    if fault.kind in PASSING_CODES and kind == "api":
        message = PASSING_CODES[fault.kind]
        return Answer.json({"stat": "fail", "code": int(fault.kind), "message": message})
    if fault.kind in PASSING_CODES or (fault.kind == "unavailable" and kind == "api"):
        return Answer.page(503)
    if fault.kind.isdecimal():
        after = fault.retry_after
        return Answer.page(int(fault.kind), f"Retry-After: {after}\r\n" if after else "")
    if fault.kind == "html":
        return Answer.page(200)
    if fault.kind == "empty":
        return answer._replace(status=200, body=[])
    if fault.kind == "garbage":
        return answer._replace(status=200, body=[b"\0\xff{]", PADDING[:996]])
    if fault.kind == "redirect_loop":
        return Answer.redirect(f"{base}/loop/0")
    if fault.kind == "redirect_scheme":
        return Answer.redirect("ftp://127.0.0.1/photo.jpg")
    if fault.kind == "unavailable":
        return Answer.redirect(base + UNAVAILABLE_PATH)
    return answer


Steps = Iterator[tuple[float, bytes]]  # seconds to wait, then bytes to write


def steps_of_fault(answer: Answer, fault: Fault) -> tuple[Steps, bool]:
    """How an answer goes wrong on its way: what is written when, and whether the connection ends.

    The steps may never end; a wait of infinity is silence.
    """
    body = b"".join(answer.body)
    half = len(body) // 2
    if fault.kind == "cut":
        return iter([(0.0, head_of(answer, len(body), True) + body[:half])]), True
    if fault.kind == "stall":
        start = head_of(answer, len(body), True) + body[: min(64, half)]
        return iter([(0.0, start), (math.inf, b"")]), True
    if fault.kind == "trickle":
        return trickle(answer, body), True
    if fault.kind == "slow":
        step = -(-len(body) // SLOW_PIECES) or 1
        pieces = [(SLOW_PAUSE, body[i : i + step]) for i in range(0, len(body), step)]
        return iter([(0.0, head_of(answer, len(body), False)), *pieces]), False
    if fault.kind == "short_length":
        return iter([(0.0, head_of(answer, half, False) + body[:half])]), False
    if fault.kind == "no_length":
        return iter([(0.0, head_of(answer, None, True) + body)]), True
    if fault.kind == "lying_length_long":
        return iter([(0.0, head_of(answer, len(body) + 1000, True) + body)]), True
    if fault.kind == "endless":
        return endless(answer, body), True
    return iter([(0.0, head_of(answer, len(body), False) + body)]), False


def trickle(answer: Answer, body: bytes) -> Steps:
    """A byte at a time of a body that claims a megabyte at least."""
    yield 0.0, head_of(answer, max(len(body), 1_000_000), True)
    for position in range(len(body)):
        yield TRICKLE_PAUSE, body[position : position + 1]
    while True:
        yield TRICKLE_PAUSE, b" "


def endless(answer: Answer, body: bytes) -> Steps:
    """The body, and after it more bytes without end."""
    yield 0.0, head_of(answer, None, True) + body
    piece = bytes(PADDING[:ENDLESS_PIECE])
    while True:
        yield ENDLESS_PAUSE, piece


# --------------------------------------------------------------------------- HTTP connections

SEND_BUFFER = 1 << 20  # bytes that the system takes off our hands at once
LONGEST_REQUEST = 1 << 20  # bytes


class Connection(asyncio.Protocol):
    """One connection of a client: requests in, one answer after the other out."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.received = b""
        self.request: SandboxRequest | None = None  # the one being answered
        self.first = True  # no request answered yet
        self.close = False  # the connection ends after this answer
        self.timer: asyncio.TimerHandle | None = None
        self.steps: Steps = iter(())
        self.steps_over = True
        self.writing_paused = False

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.sandbox.connection_opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.request is not None:
            self.sandbox.request_over(self.request)
            self.request = None
        self.sandbox.connection_closed(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.request is None:
            self.next_request()

    def pause_writing(self) -> None:
        self.writing_paused = True

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.request is not None and self.steps_over and self.timer is None:
            self.over()

    # a request comes in

    def next_request(self) -> None:
        """Read the next request, once it is here as a whole, and see to its answer."""
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            if len(self.received) > LONGEST_REQUEST:
                self.transport.abort()
            return
        try:
            first, *lines = self.received[:end].decode("latin-1").split("\r\n")
            http_method, target, version = first.split(" ")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            whole = end + 4 + int(headers.get("content-length") or 0)
            if not end + 4 <= whole <= LONGEST_REQUEST:
                raise ValueError("length out of range")
        except ValueError:
            self.transport.write(head_of(Answer.page(400), 0, True))
            self.transport.close()
            return
        if len(self.received) < whole:
            return
        form, self.received = self.received[end + 4 : whole], self.received[whole:]
        self.close = "close" in headers.get("connection", "").lower() or version == "HTTP/1.0"
        self.answer_to(parsed(http_method, target, headers, form))

    def answer_to(self, request: SandboxRequest) -> None:
        """Answer a request now, or after the delays of the sandbox."""
        sandbox = self.sandbox
        self.request = request
        if request.kind == "control":
            self.write_answer(sandbox.control(request))
            return
        fault = sandbox.request_received(request)
        delay = sandbox.delay_of(request, self.first)
        self.first = False
        if delay:
            self.timer = self.loop.call_later(delay, self.answer_now, fault)
        else:
            self.answer_now(fault)

    def answer_now(self, fault: Fault | None) -> None:
        """Make the answer and write it, or what a fault leaves of it."""
        self.timer = None
        request = self.request
        assert request is not None
        if fault is not None and fault.kind == "reset":
            connected = self.transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        answer = self.sandbox.answer(request)
        if fault is None:
            self.write_answer(answer)
            return
        answer = replaced_by_fault(answer, fault, request.kind, self.sandbox.base)
        request.status = answer.status
        if request.http_method == "HEAD":
            self.write_answer(answer)
            return
        self.steps, close = steps_of_fault(answer, fault)
        self.close |= close
        self.steps_over = False
        self.next_step(b"")

    # an answer goes out

    def write_answer(self, answer: Answer) -> None:
        """Write an answer that has no fault."""
        request = self.request
        assert request is not None
        request.status = answer.status
        head = head_of(answer, answer.length(), self.close)
        if request.http_method == "HEAD" or answer.status == 304:
            self.write(head, last=True)
        else:
            self.write(b"".join([head, *answer.body]), last=True)
        if not self.writing_paused:
            self.over()

    def next_step(self, piece: bytes) -> None:
        """Write a piece of a faulty answer, and the pieces after it that need no wait."""
        self.timer = None
        if self.writing_paused:  # the client is slow to take what it was sent
            self.timer = self.loop.call_later(ENDLESS_PAUSE, self.next_step, piece)
            return
        self.write(piece)
        for wait, piece in self.steps:
            if wait:
                if wait < math.inf:
                    self.timer = self.loop.call_later(wait, self.next_step, piece)
                return
            self.write(piece)
        self.steps_over = True
        if not self.writing_paused:
            self.over()

    def write(self, data: bytes, last: bool = False) -> None:
        """Hand bytes to the system; the request is counted as over before its last ones."""
        if self.request is not None and data:
            self.sandbox.bytes_written(self.request, len(data), last)
            self.transport.write(data)

    def over(self) -> None:
        """The answer is out; close the connection or go on with the next request."""
        if self.request is not None:
            self.sandbox.request_over(self.request)
            self.request = None
        if self.close:
            self.transport.close()
        elif self.received:
            self.loop.call_soon(self.next_request)


def parsed(http_method: str, target: str, headers: dict[str, str], form: bytes) -> SandboxRequest:
    """A request out of its first line, its headers and its body."""
    path, _, query = target.partition("?")
    if path.startswith("http://"):
        path = urlsplit(path).path
    if "%" in path:
        path = unquote(path)
    params = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    if form:
        params.update(parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True))
    kind = "other"
    if path in ("/services/rest/", "/services/rest"):
        kind = "api"
    elif path.startswith("/img/") or "/play/" in path:
        kind = "image"
    elif path.startswith("/sandbox/"):
        kind = "control"
    return SandboxRequest(kind, http_method, path, params, headers, time.monotonic())


# ------------------------------------------------------------------------------------ sandbox

BACKLOG = 1024  # connections that may wait to be accepted
IMAGE_NAME = re.compile(r"([0-9]+)_[0-9a-z]+(?:_([0-9a-z_]+))?\.(jpg|png|gif|mp4)")


class Sandbox:
    """A Flickr of one's own at `url`, served from a thread between `start` and `stop`.

    Delays are in seconds: `api_delay` and `image_delay` before every such answer,
    `connect_delay` before the first answer on a connection. `api_keys` are the keys that are
    taken, None means any. `plain` ignores all extras, `missing_extras` names single ones.
    `on_request` is called with each request, on the sandbox's thread, before it is answered.
    """

    def __init__(
        self,
        *photostreams: Photostream,
        api_keys: Iterable[str] | None = None,
        api_delay: float = 0.0,
        image_delay: float = 0.0,
        connect_delay: float = 0.0,
        faults: Faults | None = None,
        plain: bool = False,
        missing_extras: Iterable[str] = (),
        port: int = 0,
        on_request: Callable[[SandboxRequest], None] | None = None,
        keep_requests: bool = True,
    ) -> None:
        self.photostreams = list(photostreams) or [Photostream()]
        self.api_delay = api_delay
        self.image_delay = image_delay
        self.connect_delay = connect_delay
        self.faults = faults or Faults()
        self.port = port  # 0 until `start` has found a free one
        self.on_request = on_request
        self.keep_requests = keep_requests
        self._api = Api(
            self.photostreams,
            base="",
            faults=self.faults,
            api_keys=None if api_keys is None else set(api_keys),
            plain=plain,
            missing_extras=missing_extras,
        )
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._in_flight: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.reset_counts()

    @property
    def photostream(self) -> Photostream:
        """The first photostream."""
        return self.photostreams[0]

    @property
    def base(self) -> str:
        """The address of the stand-in for Flickr's site and image host, no slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address of the REST endpoint."""
        return f"{self.base}/services/rest/"

    # start and stop

    def start(self) -> Sandbox:
        """Serve from a thread; a second start after a stop is at the same address."""
        listener = self._listen()
        ready = threading.Event()
        serve = self._serve(listener, ready.set)
        self._thread = threading.Thread(target=asyncio.run, args=(serve,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._thread is not None and self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, announce: Callable[[], None]) -> None:
        """Serve in the foreground until SIGINT or SIGTERM; `announce` is called once it serves."""

        def ready() -> None:
            assert self._loop is not None and self._stopping is not None
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._stopping.set)
            announce()

        asyncio.run(self._serve(self._listen(), ready))

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
        self.port = listener.getsockname()[1]
        self._api.base = self.base
        return listener

    async def _serve(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            lambda: Connection(self), sock=listener, backlog=BACKLOG
        )
        ready()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        while self._connections:
            await asyncio.sleep(0)

    # counts

    def reset_counts(self) -> None:
        """Start all counts and the log of requests anew."""
        with self._lock:
            self.calls: Counter[str] = Counter()  # API requests by method
            self.api_calls = 0
            self.images = 0
            self.bytes_sent = 0
            self.connections = 0
            self.in_flight_max: dict[str, int] = {"api": 0, "image": 0}
            self.requests: list[SandboxRequest] = []
            self.faults.counts.clear()

    def stats(self) -> dict[str, Any]:
        """All counts, as a JSON object."""
        with self._lock:
            return {
                "api_calls": self.api_calls,
                "calls": dict(self.calls),
                "images": self.images,
                "bytes_sent": self.bytes_sent,
                "connections": self.connections,
                "in_flight_max": dict(self.in_flight_max),
                "faults": dict(self.faults.counts),
                "photos": [len(stream.photos) for stream in self.photostreams],
            }

    def connection_opened(self, connection: Connection) -> None:
        """Count a connection."""
        self._connections.add(connection)
        with self._lock:
            self.connections += 1

    def connection_closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def request_received(self, request: SandboxRequest) -> Fault | None:
        """Count and log a request, tell whoever listens, and choose its fault."""
        kind = request.kind
        fault = None
        if kind != "other":
            fault = self.faults.choose(kind, request.identity)
            request.fault = fault.kind if fault else None
        with self._lock:
            if kind == "api":
                self.api_calls += 1
                self.calls[request.method] += 1
            elif kind == "image":
                self.images += 1
            self._in_flight[kind] += 1
            if self._in_flight[kind] > self.in_flight_max.get(kind, 0) and kind != "other":
                self.in_flight_max[kind] = self._in_flight[kind]
            if self.keep_requests:
                self.requests.append(request)
        if self.on_request is not None:
            self.on_request(request)
        return fault

    def bytes_written(self, request: SandboxRequest, count: int, last: bool) -> None:
        """Count bytes that are about to be written."""
        if request.kind == "control":
            return
        if last:
            request.finished = time.monotonic()
        with self._lock:
            self.bytes_sent += count

    def request_over(self, request: SandboxRequest) -> None:
        """A request is no longer in flight."""
        if request.kind == "control":
            return
        if request.finished is None:
            request.finished = time.monotonic()
        with self._lock:
            self._in_flight[request.kind] -= 1

    # answers

    def delay_of(self, request: SandboxRequest, first: bool) -> float:
        """Seconds to wait before the answer."""
        delay = self.connect_delay if first else 0.0
        if request.kind == "api":
            return delay + self.api_delay
        return delay + (self.image_delay if request.kind == "image" else 0.0)

    def answer(self, request: SandboxRequest) -> Answer:
        """The true answer to a request, before any fault."""
        if request.http_method not in ("GET", "HEAD", "POST"):
            return Answer.page(405)
        if request.kind == "api":
            params = request.params
            bare = params.get("nojsoncallback") == "1"
            callback = None if bare else params.get("jsoncallback", "jsonFlickrApi")
            return Answer.json(self._api.call(params), callback)
        if request.kind == "image":
            return self._image_answer(request)
        if request.path == UNAVAILABLE_PATH:
            return Answer(200, "image/gif", [UNAVAILABLE_PICTURE])
        if request.path == "/signin":
            return Answer.page(200)
        if request.path.startswith("/loop/"):
            turn = int(request.path.endswith("0"))
            return Answer.redirect(f"{self.base}/loop/{turn}")
        return Answer.page(404)

    def _image_answer(self, request: SandboxRequest) -> Answer:
        """An image, a video, or a redirect to where it is."""
        if "/play/" in request.path:
            return self._play_answer(request.path)
        found = self._image_at(request.path)
        if isinstance(found, Answer):
            return found
        stream, photo, key, width, height, extension = found
        modified = photo.date_upload + photo.image_revision * 86_400
        tag = f'"{photo.id}-{key}-{photo.image_revision}"'
        headers = f"ETag: {tag}\r\nLast-Modified: {formatdate(modified, usegmt=True)}\r\n"
        if unchanged(request.headers, tag, modified):
            return Answer(304, CONTENT_TYPES[extension], [], headers)
        content_type, parts = image_parts(photo, key, width, height, extension, stream.image_bytes)
        return Answer(200, content_type, parts, headers)

    def _image_at(self, path: str) -> Answer | tuple[Photostream, SandboxPhoto, str, int, int, str]:
        """The image at a path: photostream, photo, size, width and height in pixels, extension.

        Where there is none, what the image host says to that.
        """
        _, _, server, name = (path.split("/") + [""] * 4)[:4]
        match = IMAGE_NAME.fullmatch(name)
        if match is None or path.count("/") != 3:
            return Answer.page(404)
        for stream in self.photostreams:
            photo = stream.get(match[1])
            if photo is None or photo.gone:
                continue
            if match[3] == "mp4":
                known = any(label == match[2] for label, _, _ in video_sizes_of(photo))
                if known and name == f"{photo.id}_{photo.secret}_{match[2]}.mp4":
                    return stream, photo, match[2], photo.width, photo.height, "mp4"
                return Answer.page(404)
            for size in sizes_of(photo):
                if size.name == name and size.server == server:
                    return stream, photo, size.key, size.width, size.height, match[3]
            return Answer.page(404)
        return Answer.redirect(self.base + UNAVAILABLE_PATH)

    def _play_answer(self, path: str) -> Answer:
        """What is at the address that getSizes gives for a video file."""
        match = re.fullmatch(r"/photos/[^/]+/([0-9]+)/play/([0-9a-z_]+)/([0-9a-z]+)/", path)
        if match is None:
            return Answer.page(404)
        photo_id, label, secret = match.groups()
        if label == "orig":
            return Answer.redirect(f"{self.base}/signin")
        return Answer.redirect(f"{self.base}/img/{SERVER}/{photo_id}_{secret}_{label}.mp4")

    def image_bytes_for(self, url_or_path: str) -> bytes:
        """The whole file at an image address, KeyError where there is no image.

        The address of a video file as getSizes gives it stands for the file it leads to.
        """
        path = unquote(urlsplit(url_or_path).path)
        if path == UNAVAILABLE_PATH:
            return UNAVAILABLE_PICTURE
        if "/play/" in path:
            location = re.search(r"Location: (\S+)", self._play_answer(path).headers)
            path = urlsplit(location[1]).path if location else path
        found = self._image_at(path)
        if isinstance(found, Answer):
            raise KeyError(url_or_path)
        stream, photo, key, width, height, extension = found
        parts = image_parts(photo, key, width, height, extension, stream.image_bytes)[1]
        return b"".join(parts)

    def control(self, request: SandboxRequest) -> Answer:
        """What a benchmark or a demo in another process asks of the sandbox itself."""
        params = request.params
        if request.path == "/sandbox/stats":
            return Answer.json(self.stats())
        if request.path in ("/sandbox/add", "/sandbox/remove"):
            if request.http_method != "POST":
                return Answer.page(405, "Allow: POST\r\n")
            if request.path == "/sandbox/add":
                added = self.photostream.add(whole_number(params.get("count"), 1))
                return Answer.json({"ids": [photo.id for photo in added]})
            if self.photostream.get(params.get("id", "")) is not None:
                self.photostream.remove(params["id"])
                return Answer.json({"ids": [params["id"]]})
        return Answer.page(404)


def unchanged(headers: dict[str, str], tag: str, modified: int) -> bool:
    """Whether a conditional request already has the image of that tag and time (unix seconds)."""
    if "if-none-match" in headers:
        return tag in headers["if-none-match"] or headers["if-none-match"] == "*"
    if "if-modified-since" in headers:
        try:
            return modified <= parsedate_to_datetime(headers["if-modified-since"]).timestamp()
        except ValueError:
            return False
    return False


# ------------------------------------------------------------------------------- command line


def main(arguments: list[str] | None = None) -> None:
    """Serve a sandbox until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="A stand-in for Flickr on this machine.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--photos", type=int, default=1000, metavar="N", help="photos to make up")
    source.add_argument("--records", metavar="FILE", help="photos from a file of JSON lines")
    parser.add_argument("--comments", metavar="FILE", help="comments for the records, JSON")
    parser.add_argument("--username", default="sandbox", metavar="NAME")
    parser.add_argument("--limit", type=int, metavar="N", help="take only N records")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="0: any free one")
    parser.add_argument("--api-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--image-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--connect-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--image-bytes", type=int, metavar="N", help="least length of an image")
    parser.add_argument("--fault-rate", type=float, default=0.0, metavar="SHARE", help="0 to 1")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--videos-every", type=int, default=0, metavar="N", help="0: no videos")
    parser.add_argument("--stats", metavar="FILE", help="write the counts there at the end")
    options = parser.parse_args(arguments)

    if options.records:
        stream = Photostream.from_jsonl(
            options.records,
            comments=options.comments,
            username=options.username,
            limit=options.limit,
            image_bytes=options.image_bytes,
        )
    else:
        stream = Photostream.generated(
            options.photos,
            seed=options.seed,
            username=options.username,
            videos_every=options.videos_every,
            image_bytes=options.image_bytes,
        )
    sandbox = Sandbox(
        stream,
        api_delay=options.api_delay,
        image_delay=options.image_delay,
        connect_delay=options.connect_delay,
        faults=Faults(options.fault_rate, seed=options.seed),
        port=options.port,
        keep_requests=False,
    )
    sandbox.run(lambda: print(f"FLICKR_API_URL={sandbox.url}", flush=True))
    if options.stats:
        Path(options.stats).write_text(json.dumps(sandbox.stats(), indent=1) + "\n")


if __name__ == "__main__":
    main()
