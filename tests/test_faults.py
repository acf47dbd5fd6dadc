"""The promises of a mirror that is trusted for decades, each with the fault that tries it."""

import contextlib
import ctypes
import json
import os
import re
import resource
import shlex
import ssl
import subprocess
import sys
import threading
import time
import traceback
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import (
    KEY,
    SECRET,
    HeldClock,
    assert_one_line,
    program_environment,
    run_python,
    save_keys,
    wait_until,
)
from sandbox import UNAVAILABLE_PICTURE, Photostream, Sandbox, SandboxPhoto, image_of
from soak import Mirror, Report, image_name_of, path_of, stem_of

import flickr
from flickr import FlickrApi, FlickrError, FlickrUnavailable, Web

STATE = flickr.UserCache.STATE_FILENAME
LOCK = flickr.UserCache.LOCK_FILENAME
PARTIAL = "*.flickr-part"


class HastyClock(flickr.Clock):
    """A clock that shows the true time, and whose sleepers wake almost at once."""

    def sleep(self, seconds):
        super().sleep(min(seconds, 0.005))


def image_path(cache_path, photo, username="sandbox"):
    return path_of(cache_path / username, image_name_of(photo)[0])


def info_path(cache_path, photo, username="sandbox"):
    return path_of(cache_path / username, f"{stem_of(photo)}.json")


def image_bytes(photo, stream=None):
    at_least = stream.image_bytes if stream else None
    return image_of(photo, image_name_of(photo)[1], at_least=at_least)[1]


def files_of(cache_path):
    """Every file in the cache, hidden ones too, without the mirror's own two."""
    files = {path for path in cache_path.rglob("*") if not path.is_dir()}
    return {path for path in files if path.name not in (STATE, LOCK)}


def images_in(cache_path):
    return {path for path in files_of(cache_path) if path.suffix != ".json"}


def assert_whole(cache_path, stream, infos=True):
    """The cache holds the photostream, byte for byte, and nothing else."""
    expected = {image_path(cache_path, each): each for each in stream.photos}
    assert images_in(cache_path) == set(expected)
    for path, photo in expected.items():
        assert path.read_bytes() == image_bytes(photo, stream)
    infos_there = files_of(cache_path) - set(expected)
    wanted = {info_path(cache_path, each): each for each in stream.photos} if infos else {}
    assert infos_there == set(wanted)
    for path, photo in wanted.items():
        assert json.loads(path.read_bytes())["title"]["content"] == photo.title


def nothing_torn(cache_path, stream, level=0):
    """Files under final names are whole; the state claims nothing that is not there."""
    report = Report()
    Mirror(cache_path / stream.username, stream, level).check_after_kill(report)
    assert report.good, report


def assert_the_next_run_goes_on(mirror, box, cache_path):
    """Nothing is torn, and what is not there yet is fetched."""
    nothing_torn(cache_path, box.photostream)
    assert mirror(box, "--image-only").returncode == 0
    assert_whole(cache_path, box.photostream, infos=False)


# ------------------------------------------------------------- a server that answers anything


class Crafted(ThreadingHTTPServer):
    """A Flickr whose answers are given word by word.

    :ivar answers: By method, or method and photo id: a JSON value, bytes, or a whole HTTP
        answer as a text that starts with "HTTP/".
    :ivar files: By path: the same.
    """

    daemon_threads = True

    def __init__(self, rows=(), username="crafted", certificate=None):
        super().__init__(("127.0.0.1", 0), CraftedHandler)
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"
        self.photostream = Photostream(username, "7654321@N00")
        user = {"id": "7654321@N00", "nsid": "7654321@N00", "username": {"_content": username}}
        self.answers = {"flickr.people.findByUsername": {"user": user, "stat": "ok"}}
        self.files = {}
        self.asked = []
        self.list(rows)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def base(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def url(self):
        return f"{self.base}/services/rest/"

    def list(self, rows):
        """Let these be the rows of the only page of the listing."""
        page = {"page": 1, "pages": 1, "perpage": 500, "total": len(rows), "photo": list(rows)}
        self.answers["flickr.people.getPhotos"] = {"photos": page, "stat": "ok"}

    def row(self, photo_id, **fields):
        """A good row, its image served, with these fields in the place of the good ones."""
        photo = SandboxPhoto(photo_id)
        self.files[f"/img/{photo_id}_o.jpg"] = image_of(photo, "o")[1]
        row = {
            "id": photo_id,
            "title": photo_id,  # no letters: no language to be detected
            "url_o": f"{self.base}/img/{photo_id}_o.jpg",
            "width_o": photo.width,
            "height_o": photo.height,
        }
        return row | fields

    def handle_error(self, *_):
        """A client that goes away is no trouble."""


class CraftedHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        parts = urlsplit(self.path)
        self.server.asked.append(self.path)
        if parts.path == "/services/rest/":
            params = dict(parse_qsl(parts.query))
            method = params.get("method")
            failure = {"stat": "fail", "code": 1, "message": "Photo not found"}
            answers = self.server.answers
            answer = answers.get((method, params.get("photo_id")), answers.get(method, failure))
        else:
            answer = self.server.files.get(
                parts.path, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
            )
        if isinstance(answer, str) and answer.startswith("HTTP/"):
            self.wfile.write(answer.encode("latin-1"))
            self.close_connection = True
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


@pytest.fixture
def crafted():
    """Start a crafted Flickr: `crafted()`, then `box.list([box.row("11")])`."""
    with contextlib.ExitStack() as running:

        def start(**options):
            box = Crafted(**options)
            running.callback(box.server_close)
            running.callback(box.shutdown)
            return box

        yield start


# --------------------------------------------------------------------------- whole files only

HTTP_ANSWERS_THAT_ARE_NO_IMAGE = ["html", "empty", "garbage", "unavailable"]


@pytest.mark.parametrize("fault", ["cut", "short_length", "lying_length_long"])
def test_half_an_image_is_never_kept_and_is_asked_for_again_by_the_next_run(
    sandbox, agent, cache_path, fault
):
    stream = Photostream.generated(6, png_every=2, gif_every=3)
    box = sandbox(stream)
    box.faults.always("/img/", fault)
    result = agent(box, image_only=True, clock=HeldClock()).run()
    assert files_of(cache_path) == set()
    assert result.failed.keys() == {photo.id for photo in stream.photos}
    box.faults.clear()
    assert agent(box, image_only=True).run().complete
    assert_whole(cache_path, stream, infos=False)


@pytest.mark.parametrize("fault", ["no_length", "slow"])
def test_an_image_whose_length_nobody_announced_is_kept_if_it_is_whole(
    sandbox, agent, cache_path, fault
):
    stream = Photostream.generated(4, png_every=2)
    box = sandbox(stream)
    box.faults.always("/img/", fault)
    assert agent(box, image_only=True).run().complete
    assert_whole(cache_path, stream, infos=False)


@pytest.mark.parametrize("extension", ["jpg", "png", "gif"])
@pytest.mark.parametrize("cut_off", [1, 2, 40, 0.5])
def test_an_image_that_ends_too_early_is_not_kept_though_its_length_is_as_announced(
    crafted, agent, cache_path, extension, cut_off
):
    box = crafted()
    whole = image_of(SandboxPhoto("11", original_format=extension), "o")[1]
    cut = whole[: len(whole) // 2] if cut_off == 0.5 else whole[:-cut_off]
    box.files[f"/a/11_o.{extension}"] = cut
    box.list([box.row("12"), box.row("11", url_o=f"{box.base}/a/11_o.{extension}")])
    result = agent(box, image_only=True, clock=HeldClock()).run()
    assert result.failed.keys() == {"11"}
    assert {path.stem for path in files_of(cache_path)} == {stem_of(SandboxPhoto("12"))}


@pytest.mark.parametrize("fault", HTTP_ANSWERS_THAT_ARE_NO_IMAGE)
def test_what_is_no_image_is_reported_as_unavailable_and_asked_for_only_when_verifying(
    sandbox, agent, cache_path, fault
):
    stream = Photostream.generated(4)
    box = sandbox(stream)
    lost = stream.photos[1]
    box.faults.always(f"/{lost.id}_", fault)
    result = agent(box, clock=HeldClock()).run()
    assert result.unavailable.keys() == {lost.id} and not result.failed
    assert not image_path(cache_path, lost).exists()
    assert info_path(cache_path, lost).exists()

    box.faults.clear()
    box.reset_counts()
    for _ in range(2):
        assert agent(box).run().complete
    assert box.images == 0, "it is not asked for again"
    result = agent(box, verify_image=True).run()
    assert box.images == 1
    assert (result.checked, result.mended, result.lost) == (3, 1, 0)
    assert_whole(cache_path, stream)


@pytest.mark.parametrize("extension", ["jpg", "png", "gif"])
def test_an_image_of_another_kind_than_its_name_says_is_not_kept(
    crafted, agent, cache_path, extension
):
    box = crafted()
    other = "gif" if extension == "png" else "png"
    box.files[f"/a/11_o.{extension}"] = image_of(SandboxPhoto("11", original_format=other), "o")[1]
    box.list([box.row("12"), box.row("11", url_o=f"{box.base}/a/11_o.{extension}")])
    result = agent(box, image_only=True, clock=HeldClock()).run()
    assert result.unavailable.keys() == {"11"}
    assert len(files_of(cache_path)) == 1


def test_some_trouble_and_one_page_of_html_do_not_make_a_photo_unavailable(
    sandbox, agent, cache_path
):
    stream = Photostream.generated(2)
    box = sandbox(stream)
    busy = stream.photos[0]
    box.faults.script(f"/{busy.id}_", *["500"] * (flickr.ATTEMPTS - 1), "html")
    result = agent(box, image_only=True, clock=HeldClock()).run()
    assert not result.complete
    assert agent(box, image_only=True).run().complete
    assert_whole(cache_path, stream, infos=False)


def test_an_image_that_changes_between_two_attempts_is_mirrored_as_it_is_then(
    sandbox, agent, cache_path
):
    stream = Photostream.generated(3, image_bytes=50_000)
    photo = stream.photos[1]

    def change(request):
        if photo.id in request.path and request.fault is None:
            photo.image_revision = 1
            stream.image_bytes = 20_000

    box = sandbox(stream, on_request=change)
    box.faults.script(f"/{photo.id}_", "lying_length_long", "cut")
    assert agent(box, image_only=True, jobs=1, clock=HeldClock()).run().complete
    assert image_path(cache_path, photo).read_bytes() == image_bytes(photo, stream)


@pytest.mark.parametrize("revised", [20_000, 90_000], ids=["smaller", "larger"])
def test_an_image_that_changed_its_size_between_runs_is_fetched_whole(
    sandbox, agent, cache_path, revised
):
    stream = Photostream.generated(4, image_bytes=50_000)
    box = sandbox(stream)
    box.faults.always(f"/{stream.photos[2].id}_", "cut")
    assert agent(box, image_only=True, clock=HeldClock()).run().failed.keys() == {
        stream.photos[2].id
    }
    box.faults.clear()
    kept = {path: path.read_bytes() for path in images_in(cache_path)}
    stream.image_bytes = revised
    for photo in stream.photos:
        photo.image_revision = 1
    assert agent(box, image_only=True).run().complete
    [new] = images_in(cache_path) - set(kept)
    assert new.read_bytes() == image_bytes(stream.photos[2], stream)
    assert len(new.read_bytes()) >= revised
    assert all(path.read_bytes() == content for path, content in kept.items())


# -------------------------------------------------------------------------- killed at any moment

SMALL_PAGES = """
import sys
from flickr import FlickrUserPhotostreamMirroringAgent as Agent
key, secret, cache_path = sys.argv[1:]
Agent("sandbox", key, secret, cache_path, info_level=2, jobs=4, per_page=5).run()
"""


@pytest.mark.parametrize("moment", [1, 16, 29])
def test_a_kill_leaves_whole_files_and_partial_ones_that_the_next_run_removes(
    sandbox, agent, cache_path, moment
):
    stream = Photostream.generated(30, image_bytes=60_000)

    def kill(request):
        if request.kind == "image" and box.images == moment:
            process.kill()

    box = sandbox(stream, on_request=kill)
    box.faults.always("/img/", "slow")  # so that there are always files half written
    with subprocess.Popen(
        [sys.executable, "-c", SMALL_PAGES, KEY, SECRET, str(cache_path)],
        env=program_environment(box),
        stderr=subprocess.DEVNULL,
    ) as process:
        process.wait(30)
    assert process.returncode < 0
    assert list(cache_path.rglob(PARTIAL)), "something was being written"
    nothing_torn(cache_path, stream, level=2)
    state = json.loads((cache_path / "sandbox" / STATE).read_bytes())
    if moment >= 16:
        assert state["images"], "finished pages are taken down"

    box.on_request = None
    box.faults.clear()
    assert agent(box, info_level=2, per_page=5).run().complete
    assert not list(cache_path.rglob(PARTIAL))
    assert_whole(cache_path, stream)


def test_a_partial_file_of_the_keys_is_removed_by_the_next_run_too(sandbox, mirror, cache_path):
    # What a kill during --save-api-keys leaves; it may hold the secret.
    box = sandbox(Photostream.generated(1))
    cache_path.mkdir()
    (cache_path / ".k1w2x3.flickr-part").write_text(json.dumps({"consumer_secret": SECRET}))
    assert mirror(box).returncode == 0
    assert not list(cache_path.rglob(PARTIAL))


# ------------------------------------------------------------------------------- --verify-image


def garbage(path):
    path.write_bytes(b"\xff\xd8\xff" + b"no pixels" * 100)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_end(path):
    path.write_bytes(path.read_bytes()[:-2])


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": half,
    "garbage": garbage,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "page": lambda path: path.write_bytes(b"<!DOCTYPE html><title>502 Bad Gateway</title>"),
    "other picture": lambda path: path.write_bytes(UNAVAILABLE_PICTURE),
}


@pytest.mark.parametrize(
    "extension, damage",
    [*(("jpg", damage) for damage in DAMAGES), ("png", "half"), ("png", "garbage")],
)
def test_verifying_fetches_damaged_images_again_on_every_page(
    sandbox, agent, cache_path, extension, damage
):
    stream = Photostream.generated(9, png_every=1 if extension == "png" else 0)
    box = sandbox(stream)
    agent(box, per_page=2, image_only=True).run()
    damaged = [stream.photos[0], stream.photos[4], stream.photos[8]]
    for photo in damaged:
        DAMAGES[damage](image_path(cache_path, photo))
    box.reset_counts()
    result = agent(box, per_page=2, verify_image=True, image_only=True).run()
    assert result.complete
    there = 9 - (3 if damage == "missing" else 0)
    assert (result.checked, result.mended, result.lost) == (there, 3, 0)
    assert f"{there} images checked, 3 mended, 0 lost" in str(result)
    assert box.images == 3, "what is whole is not fetched"
    assert_whole(cache_path, stream, infos=False)


@pytest.mark.parametrize("damage", ["missing", "half", "page"])
@pytest.mark.parametrize("which", [".mp4", ".jpg"])
def test_verifying_mends_a_videos_film_and_its_picture(sandbox, agent, cache_path, damage, which):
    stream = Photostream.generated(4, videos_every=2, image_bytes=3_000)
    box = sandbox(stream)
    agent(box, image_only=True).run()
    before = {path: path.read_bytes() for path in images_in(cache_path)}
    [film, _] = [path for path in before if path.suffix == ".mp4"]
    DAMAGES[damage](film.with_suffix(which))
    result = agent(box, image_only=True, verify_image=True).run()
    assert result.complete and result.mended == 1
    assert {path: path.read_bytes() for path in images_in(cache_path)} == before


def test_verifying_tells_what_is_lost_and_keeps_what_can_not_be_had_better(
    sandbox, agent, mirror, cache_path
):
    stream = Photostream.generated(5)
    box = sandbox(stream)
    agent(box, image_only=True).run()
    damaged = image_path(cache_path, stream.photos[1])
    half(damaged)
    rest = damaged.read_bytes()
    image_path(cache_path, stream.photos[3]).unlink()
    stream.photos[1].gone = stream.photos[3].gone = True
    run = mirror(box, "--verify-image", "--image-only")
    assert run.returncode == 1
    assert "4 images checked, 0 mended, 2 lost" in run.stdout.splitlines()[-1]
    assert damaged.read_bytes() == rest


def test_verifying_says_so_where_all_is_well(sandbox, agent, mirror):
    box = sandbox(Photostream.generated(3))
    agent(box, image_only=True).run()
    run = mirror(box, "--verify-image", "--image-only")
    assert run.returncode == 0
    assert "3 images checked, 0 mended, 0 lost" in run.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "options", [{}, {"verify_image": True}, {"refresh": True}, {"info_only": True}], ids=str
)
@pytest.mark.parametrize("content", [b"", b'{"title": {"con'])
def test_information_that_is_no_json_is_mended_on_each_page_that_is_read(
    sandbox, agent, cache_path, content, options
):
    stream = Photostream.generated(8)
    box = sandbox(stream)
    agent(box, info_level=1, per_page=2).run()
    mends_all = "verify_image" in options or "refresh" in options
    # On the first page, which each run reads, and on the last.
    for photo in [stream.photos[7], *[stream.photos[0]] * mends_all]:
        info_path(cache_path, photo).write_bytes(content)
    agent(box, info_level=1, per_page=2, **options).run()
    assert_whole(cache_path, stream)


# ------------------------------------------------------------------------- one run at a time


def test_a_second_run_says_so_in_one_line_and_leaves_the_first_alone(
    sandbox, program, mirror, cache_path
):
    stream = Photostream.generated(3)
    box = sandbox(stream)
    box.faults.always("/img/", "stall")
    with program(box) as first:
        wait_until(lambda: box.images == 3)
        partials = list(cache_path.rglob(PARTIAL))
        assert partials
        assert_one_line(mirror(box, "--quiet"), "another run", cache_path / "sandbox")
        assert list(cache_path.rglob(PARTIAL)) == partials
        assert first.poll() is None
        first.kill()
        first.wait()
    box.faults.clear()
    assert mirror(box).returncode == 0, "the lock has died with its process"
    assert_whole(cache_path, stream)


def test_the_lock_dies_with_its_process_though_its_helpers_live(
    sandbox, program, agent, cache_path
):
    box = sandbox(Photostream.generated(12))
    box.faults.always("/img/", "stall")
    with program(box) as first:
        wait_until(lambda: len(list(cache_path.rglob("*.json"))) == 12)  # languages are detected
        first.kill()
        first.wait()
        box.faults.clear()
        assert agent(box).run().complete


def test_two_users_may_be_mirrored_into_a_cache_at_the_same_time(sandbox, program, agent):
    box = sandbox(
        Photostream.generated(3, username="alice"),
        Photostream("bob", "2@N01", [SandboxPhoto("77")]),
    )
    box.faults.always("/img/65535/5", "stall")
    with program(box, "--image-only"):
        wait_until(lambda: box.images == 3)
        assert agent(box, "bob", image_only=True).run().complete


# ------------------------------------------------------------ disks and folders that are no good

MEGABYTE = 1 << 20


@contextlib.contextmanager
def small_disk(folder):
    """Give what subprocesses need to find the folder's disk full, and what enlarges the disk.

    The folder is a disk of its own where that may be mounted; else files are kept short.
    """
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mounting, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield short_files(100_000), lambda: None
        return
    try:
        yield (
            {},
            lambda: subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True),
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def short_files(length):
    """What keeps a subprocess from writing longer files."""
    limit = (length, length)
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)}


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(sandbox, mirror, cache_path):
    box = sandbox(Photostream.generated(6, image_bytes=120_000))
    with small_disk(cache_path) as (restricted, enlarge):
        assert_one_line(mirror(box, "--image-only", "--quiet", **restricted))
        enlarge()
        assert_the_next_run_goes_on(mirror, box, cache_path)


def test_a_file_that_the_disk_does_not_take_is_one_line_and_the_next_run_goes_on(
    sandbox, mirror, cache_path
):
    box = sandbox(Photostream.generated(6, image_bytes=50_000))
    run = mirror(box, "--image-only", "--quiet", **short_files(40_000))
    assert_one_line(run, "File too large")
    assert not list(cache_path.rglob(PARTIAL))
    assert_the_next_run_goes_on(mirror, box, cache_path)


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def obey_permissions():
    """Have permissions count for a program that root starts, as for everybody else's."""
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@contextlib.contextmanager
def unwritable(*paths):
    """Take the permission to write to these away for the length of the block."""
    modes = [(path, path.stat().st_mode & 0o777) for path in paths]
    for path, mode in modes:
        path.chmod(mode & 0o555)
    try:
        yield
    finally:
        for path, mode in modes:
            path.chmod(mode)


@pytest.mark.parametrize("where", ["", "first digit", "everything"])
def test_a_folder_without_permission_is_one_line_that_names_it_and_the_next_run_goes_on(
    sandbox, mirror, cache_path, where
):
    stream = Photostream.generated(4)
    box = sandbox(stream)
    if where == "":
        cache_path.mkdir()
        folders = [cache_path]
    else:
        assert mirror(box, "--image-only").returncode == 0
        [photo] = stream.add(1)
        folders = [cache_path / "sandbox"]
        if where == "first digit":
            folders.append(cache_path / "sandbox" / stem_of(photo)[0])
            folders[-1].mkdir(exist_ok=True)
            del folders[0]
        elif where == "everything":
            folders = [cache_path, *(path for path in cache_path.rglob("*"))]
    before = files_of(cache_path)
    with unwritable(*folders):
        run = mirror(box, "--image-only", "--quiet", preexec_fn=obey_permissions)
        assert_one_line(run, "ermission denied", folders[0])
    assert before <= files_of(cache_path)
    assert_the_next_run_goes_on(mirror, box, cache_path)


@pytest.mark.parametrize("name", ["state", "keys"])
def test_a_file_that_may_not_be_read_is_one_line_that_names_it(sandbox, mirror, cache_path, name):
    stream = Photostream.generated(2)
    box = sandbox(stream)
    assert mirror(box, "--image-only", "--save-api-keys").returncode == 0
    path = cache_path / ("flickr_keys" if name == "keys" else f"sandbox/{STATE}")
    path.chmod(0)
    run = mirror(box, "--image-only", "--quiet", keys=(), preexec_fn=obey_permissions)
    assert_one_line(run, "ermission denied", path)
    path.chmod(0o600)
    assert mirror(box, "--image-only", keys=()).returncode == 0


@pytest.mark.parametrize("where", ["user", "first digit", "image"])
def test_something_in_the_way_is_one_line_that_names_it_and_the_next_run_goes_on(
    sandbox, mirror, cache_path, where
):
    stream = Photostream.generated(4)
    box = sandbox(stream)
    image = image_path(cache_path, stream.photos[1])
    obstacle = {
        "user": cache_path / "sandbox",
        "first digit": image.parents[3],
        "image": image,
    }[where]
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    if where == "image":
        obstacle.mkdir()
        (obstacle / "something").touch()
    else:
        obstacle.write_text("a file")
    assert_one_line(mirror(box, "--image-only", "--quiet"), obstacle)
    if where == "image":
        (obstacle / "something").unlink()
        obstacle.rmdir()
    else:
        assert obstacle.read_text() == "a file"
        obstacle.unlink()
    assert_the_next_run_goes_on(mirror, box, cache_path)


# ------------------------------------------------------------------- servers that do not behave


@pytest.mark.parametrize(
    "fault", ["redirect_loop", "redirect_scheme", "stall", "trickle", "endless", "reset"]
)
def test_a_server_that_misbehaves_is_an_error_for_that_photo_and_not_for_the_run(
    sandbox, agent, cache_path, fault
):
    stream = Photostream.generated(5)
    box = sandbox(stream)
    bad = stream.photos[2]
    box.faults.always(f"/{bad.id}_", fault)
    mirroring = agent(box, clock=HastyClock(), image_only=True)
    mirroring._web.stall = 0.3
    mirroring.LONGEST_FILE = 1_000_000
    result = mirroring.run()
    assert result.failed.keys() == {bad.id} and not result.unavailable
    assert images_in(cache_path) == {
        image_path(cache_path, photo) for photo in stream.photos if photo is not bad
    }
    box.faults.clear()
    assert agent(box, image_only=True).run().complete
    assert_whole(cache_path, stream, infos=False)


def test_one_bad_photo_makes_the_programs_status_1(sandbox, mirror, cache_path):
    stream = Photostream.generated(3)
    box = sandbox(stream)
    box.faults.always(f"/{stream.photos[0].id}_", "redirect_loop")
    run = mirror(box, "--quiet")
    assert run.returncode == 1
    [line] = run.stderr.splitlines()
    assert stem_of(stream.photos[0]) in line
    assert "1 failed" in run.stdout
    assert len(images_in(cache_path)) == 2


BAD_PLACES = [
    "ftp://127.0.0.1/a.jpg",
    "file:///etc/hostname",
    "data:image/jpeg;base64,/9j/4AAQ",
    "//",
    "http://",
    "http://[",
    "http://127.0.0.1:99999999/a.jpg",
    "http://127.0.0.1:port/a.jpg",
    "http://a..b/a.jpg",
    f"http://{'a' * 70}.invalid/a.jpg",
    "http://\x1b[31m/a.jpg",
    "http://%/\xff\xfe\xe9.jpg",
    "/\xff\xfe.jpg",
]


@pytest.fixture
def assert_one_error(crafted, agent, cache_path):
    """Give this answer for the second of three images, which is all that may go wrong."""

    def check(answer):
        box = crafted()
        box.files["/odd.jpg"] = answer
        box.list([box.row("11"), box.row("12", url_o=f"{box.base}/odd.jpg"), box.row("13")])
        result = agent(box, image_only=True, clock=HeldClock()).run()
        assert result.images == 2
        assert set(result.failed) | set(result.unavailable) == {"12"}
        assert len(files_of(cache_path)) == 2

    return check


@pytest.mark.parametrize("place", BAD_PLACES)
def test_a_redirect_to_nowhere_is_an_error_for_that_photo(assert_one_error, place):
    assert_one_error(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: many\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Encoding: gzip\r\nContent-Length: 40\r\n",
        "Transfer-Encoding: chunked\r\n",
        "X" * 70_000 + ": y\r\n",
        "no colon in this line\r\nContent-Length: 40\r\n",
        "".join(f"X-{n}: y\r\n" for n in range(300)),
        "Content-Type: \x1b[31m\xff\r\nContent-Length: 40\r\n",
    ],
    ids=range(10),
)
def test_headers_that_make_no_sense_are_an_error_for_that_photo_at_most(assert_one_error, headers):
    assert_one_error(f"HTTP/1.1 200 OK\r\n{headers}\r\n" + "\xff\xd8\xff" + "x" * 37)


# ------------------------------------------------------------------------------------ usernames

USERNAMES = {
    "slash": "a/b",
    "backslash": "a\\b",
    "two dots": "..",
    "one dot": ".",
    "way up": "../../etc",
    "hidden": ".hidden",
    "absolute": "/abs",
    "drive": "C:\\x",
    "control": "a\x00\x1b[31mb\nc\x7f",
    "direction": "abc\u202ecba",
    "device": "con",
    "device with extension": "NUL.txt",
    "keys": "flickr_keys",
    "KEYS": "FLICKR_KEYS",
    "state": STATE,
    "long": "x" * 300,
    "long and wide": "名" * 300,
    "emoji": "📷 fan 👩‍👩‍👧‍👦",
    "spaces around": "  both sides  ",
    "dots at the end": "what...",
    "wildcards": "*?<>|:\"'",
    "tilde": "~",
    "option": "--rf",
}


@pytest.mark.parametrize("username", USERNAMES.values(), ids=USERNAMES)
def test_the_folder_of_a_user_is_a_readable_one_directly_in_the_cache(
    sandbox, agent, tmp_path, username
):
    stream = Photostream(username, photos=[SandboxPhoto("11")])
    cache_path = tmp_path / "a" / "b" / "cache"
    agent(sandbox(stream), cache_root_path_name=cache_path, image_only=True).run()
    [folder] = cache_path.iterdir()
    assert folder.is_dir()
    assert len(folder.name.encode()) <= 255
    assert folder.name.isprintable() or "👩" in folder.name
    assert not folder.name.startswith(".") and folder.name == folder.name.strip(" .")
    assert not set(folder.name) & set('\\/:*?"<>|')
    assert folder.name.casefold() not in ("flickr_keys", "con", "nul.txt", "nul")
    [image] = tmp_path.rglob("*.jpg")
    assert image.parent == folder.joinpath(*image.name[:4]), "nothing is written elsewhere"
    assert (
        agent(sandbox(stream), cache_root_path_name=cache_path, image_only=True).run().images == 0
    )
    assert [*cache_path.iterdir()] == [folder], "it is found again"


def portable(name):
    """A name as some file systems compare it."""
    return unicodedata.normalize("NFC", name).casefold()


@pytest.mark.parametrize(
    "usernames",
    [
        ["a/b", "a_b", "a:b", "a?b", "a\\b"],
        ["Alice", "alice", "ALICE"],
        ["caf\u00e9", "cafe\u0301"],
        ["x" * 300, "x" * 299 + "y", "x" * 150],
        ["..", ".", "/", "..."],
        ["con", "CON", "con_"],
        ["dots", "dots.", "dots ", ".dots"],
        ["flickr_keys", "Flickr_Keys"],
        ["a\x1bb", "a\x1cb"],
    ],
)
def test_different_users_have_different_folders_on_any_file_system(
    sandbox, agent, cache_path, usernames
):
    for number, username in enumerate(usernames):
        stream = Photostream(username, f"{number}@N01", [SandboxPhoto(f"1{number}")])
        agent(sandbox(stream), image_only=True).run()
    assert len({portable(folder.name) for folder in cache_path.iterdir()}) == len(usernames)
    assert [len([*folder.rglob("*.jpg")]) for folder in cache_path.iterdir()] == [1] * len(
        usernames
    )


def test_a_user_who_names_themselves_after_anothers_folder_does_not_get_it(
    sandbox, agent, cache_path
):
    users = [("x", "1@N01"), ("x 3@N01", "2@N01"), ("x", "3@N01")]
    for number, (username, nsid) in enumerate(users):
        stream = Photostream(username, nsid, [SandboxPhoto(f"1{number}")])
        agent(sandbox(stream), image_only=True).run()
    assert [len([*folder.rglob("*.jpg")]) for folder in cache_path.iterdir()] == [1, 1, 1]


def test_a_user_who_was_renamed_keeps_the_folder_with_a_notice(sandbox, mirror, cache_path):
    stream = Photostream.generated(3, username="before")
    box = sandbox(stream)
    assert mirror(box).returncode == 0
    stream.username = "after"
    stream.add(1)
    box.reset_counts()
    run = mirror(box)
    assert run.returncode == 0
    assert [path.name for path in cache_path.iterdir()] == ["before"]
    [notice] = [line for line in run.stderr.splitlines() if "[WARNING]" in line]
    assert "after" in notice and str(cache_path / "before") in notice
    assert box.images == 1

    newcomer = Photostream("before", "2@N02", [SandboxPhoto("77")])
    assert mirror(sandbox(newcomer)).returncode == 0
    folders = {
        path.name: {each.name for each in path.rglob("*.jpg")} for path in cache_path.iterdir()
    }
    assert len(folders) == 2
    assert len(folders.pop("before")) == 4
    [(other, images)] = folders.items()
    assert "before" in other and images == {image_name_of(newcomer.photos[0])[0]}
    assert mirror(sandbox(newcomer)).returncode == 0
    assert len([*cache_path.iterdir()]) == 2


@pytest.mark.parametrize(
    "user",
    [
        *({"nsid": each} for each in ("..", "/", "", "../../x", 5, None, ["1@N01"], "x" * 10_000)),
        {"nsid": "1@N01\x1b[31m"},
        {"username": None},
        {"username": {"_content": ""}},
        {"username": {"_content": " "}},
        {"username": {"_content": "x" * 10_000_000}},
        {"username": {"_content": ".."}, "nsid": ".."},
        {"username": {"_content": "\ud800"}},
    ],
    ids=range(15),
)
def test_a_user_who_makes_no_sense_is_refused_or_has_a_folder_in_the_cache(
    crafted, agent, tmp_path, cache_path, user
):
    box = crafted()
    user = {"nsid": "7654321@N00", "username": {"_content": "../up"}} | user
    box.answers["flickr.people.findByUsername"] = {"user": user, "stat": "ok"}
    box.list([box.row("11")])
    try:
        agent(box, "someone", image_only=True).run()
    except (FlickrError, flickr.MirrorError):
        assert not list(tmp_path.rglob("*.jpg"))
        return
    [folder] = cache_path.iterdir()
    assert folder.is_dir() and folder.name.isprintable() and not folder.name.startswith(".")
    [image] = tmp_path.rglob("*.jpg")
    assert image.parent == folder.joinpath(*image.name[:4])


# --------------------------------------------------------------- what comes from the network

SENSELESS_ROWS = [
    None,
    5,
    "a photo",
    [],
    {},
    {"id": ""},
    {"id": "../../../x"},
    {"id": "1/2"},
    {"id": "12\n"},
    {"id": "١٢"},
    {"id": True},
    {"id": 1.5},
    {"id": None},
    {"id": -5},
    {"id": "9" * 1000},
    {"id": ["11"]},
    {"id": "21", "title": ["a", "b"]},
    {"id": "21", "title": {"_content": {"_content": "a"}}},
    {"id": "\x1b[31m21"},
]


@pytest.mark.parametrize("row", SENSELESS_ROWS)
def test_a_row_that_makes_no_sense_is_reported_and_skipped(crafted, agent, cache_path, caplog, row):
    box = crafted()
    box.list([box.row("11"), row, box.row("12")])
    result = agent(box, clock=HeldClock()).run()
    assert len(result.skipped) == 1 and not result.complete
    assert [line for line in caplog.messages if "row 2 of page 1" in line]
    assert result.images == result.infos == 2
    assert len(files_of(cache_path)) == 4


DEEP = json.loads("[" * 850 + "]" * 850)

ODD_FIELDS = {
    "no title": {"title": None},
    "number for title": {"title": 12},
    "10 MB title": {"title": "Ein sehr langer Titel. " * 450_000},
    "surrogates": {"title": "\ud800 and \udfff\udcff", "tags": "\udc80"},
    "null sizes": {"width_o": None, "height_o": None},
    "sizes as text": {"width_o": "1024", "height_o": "768 "},
    "sizes that are no numbers": {"width_o": "wide", "height_o": [1]},
    "huge sizes": {"width_o": 10**400, "height_o": -1},
    "address is null": {"url_o": None},
    "address is a number": {"url_o": 5},
    "address is empty": {"url_o": ""},
    "ftp": {"url_o": "ftp://127.0.0.1/a.jpg"},
    "file": {"url_o": "file:///etc/hostname"},
    "javascript": {"url_o": "javascript:alert(1)"},
    "no host": {"url_o": "http://"},
    "half a bracket": {"url_o": "http://[::1"},
    "lone surrogate in the host": {"url_o": "http://\udc80/a.jpg"},
    "lone surrogate in the path": {"url_o": "http://127.0.0.1:1/\udc80.jpg"},
    "two dots in the host": {"url_o": "http://a..b/a.jpg"},
    "long host": {"url_o": f"http://{'a' * 300}.invalid/a.jpg"},
    "port": {"url_o": "http://127.0.0.1:x/a.jpg"},
    "control characters": {"url_o": "http://127.0.0.1:1/\x1b[31m\r\nX: y.jpg"},
    "1 MB address": {"url_o": "http://127.0.0.1:1/" + "a" * 1_000_000},
    "upload date": {"dateupload": "9" * 17},
    "negative date": {"dateupload": -5, "lastupdate": "-5"},
    "date is a list": {"dateupload": [1], "lastupdate": {"a": 1}, "datetaken": 5},
    "last update": {"lastupdate": 10**17},
    "far away": {"latitude": 10**400, "longitude": "1e999", "accuracy": None},
    "nowhere": {"latitude": "NaN", "longitude": [], "accuracy": "x"},
    "deep": {"originalformat": DEEP, "tags": DEEP, "license": DEEP, "pathalias": DEEP},
    "path alias": {"pathalias": "../../\x1b[31m"},
    "license": {"license": "0x10"},
    "media": {"media": ["video"]},
    "comments": {"count_comments": "many"},
    "description": {"description": {"_content": None}},
}


@pytest.mark.parametrize("fields", ODD_FIELDS.values(), ids=ODD_FIELDS)
def test_odd_fields_of_a_row_are_no_trouble_for_other_rows(
    crafted, agent, cache_path, tmp_path, fields
):
    box = crafted()
    box.list([box.row("11"), box.row("12", **fields), box.row("13")])
    for photo_id in ("11", "12", "13"):
        box.answers["flickr.photos.getInfo", photo_id] = {"photo": {}, "stat": "ok"}
        box.answers["flickr.photos.comments.getList", photo_id] = {"comments": {}, "stat": "ok"}
    result = agent(box, info_level=3, clock=HeldClock()).run()
    troubled = set(result.failed) | set(result.unavailable)
    assert troubled <= {"12"}
    for photo_id in ("11", "13"):
        stem = stem_of(SandboxPhoto(photo_id))
        folder = cache_path.joinpath("crafted", *stem[:4])
        assert {path.name for path in folder.iterdir()} == {f"{stem}.jpg", f"{stem}.json"}
    for path in cache_path.rglob("*.json"):
        assert path.read_bytes().decode("utf-8") and json.loads(path.read_bytes())["title"]
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}


@pytest.mark.parametrize("extension", ["json", "html", "mp4"])
def test_the_address_of_an_image_can_not_make_it_another_kind_of_file(
    crafted, agent, cache_path, extension
):
    box = crafted()
    content = image_of(SandboxPhoto("11"), "o")[1]
    box.files[f"/a/11.{extension}"] = content
    box.list([box.row("11", url_o=f"{box.base}/a/11.{extension}")])
    results = [agent(box, clock=HeldClock()).run() for _ in range(2)]
    suffixes = {path.suffix for path in files_of(cache_path)}
    assert suffixes == ({".json", ".jpg"} if results[0].complete else {".json"})
    [info] = cache_path.rglob("*.json")
    assert json.loads(info.read_bytes())["title"]["content"] == "11"


SIZES = [
    {"label": "Large", "source": None, "width": 1, "height": 1},
    {"label": ["Large"], "source": "http://127.0.0.1:1/a.jpg"},
    {"label": "Original", "source": "gopher://x/a.jpg", "width": 9, "height": 9, "media": "photo"},
    {"label": "Original", "source": "http://127.0.0.1:1/a.jpg", "width": None, "height": ""},
    None,
    "size",
]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_that_make_no_sense_are_an_error_for_that_photo(crafted, agent, size):
    box = crafted()
    row = {"id": "12", "title": "No sizes"}
    box.list([box.row("11"), row, box.row("13")])
    box.answers["flickr.photos.getSizes", "12"] = {"sizes": {"size": [size]}, "stat": "ok"}
    result = agent(box, clock=HeldClock()).run()
    assert set(result.failed) | set(result.unavailable) == {"12"}
    assert (result.images, result.infos) == (2, 3)


ODD_COMMENTS = {
    "numbers": [1, 2.5, "3"],
    "nulls": [None, {"_content": None}],
    "lists": [["a"]],
    "surrogates": [{"_content": "\udfff x \ud83d"}],
    "100,000 of them": [{"_content": f"Wonderful light, my friend! {n}"} for n in range(100_000)],
    "one of 5 MB": [{"_content": "<a href='<" * 500_000}],
    "no list": "comments",
}


@pytest.mark.parametrize("comments", ODD_COMMENTS.values(), ids=ODD_COMMENTS)
def test_odd_comments_are_no_trouble_for_other_photos(crafted, agent, cache_path, comments):
    box = crafted()
    box.list([box.row("11", count_comments="1"), box.row("12", count_comments=1)])
    good = {"comments": {"comment": [{"_content": "Nice"}]}, "stat": "ok"}
    box.answers["flickr.photos.comments.getList", "11"] = {
        "comments": {"comment": comments},
        "stat": "ok",
    }
    box.answers["flickr.photos.comments.getList", "12"] = good
    for photo_id in ("11", "12"):
        box.answers["flickr.photos.getInfo", photo_id] = {"photo": {}, "stat": "ok"}
    started = time.monotonic()
    result = agent(box, info_level=2, clock=HeldClock()).run()
    assert set(result.failed) | set(result.unavailable) <= {"11"}
    assert result.images == 2
    path = path_of(cache_path / "crafted", f"{stem_of(SandboxPhoto('12'))}.json")
    assert json.loads(path.read_bytes())["comments"][0]["content"] == "Nice"
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "answer",
    [
        {"stat": "fail", "code": "--5", "message": "x"},
        {"stat": "fail", "code": "9" * 5000, "message": "x"},
        {"stat": "fail", "code": [1], "message": ["x"]},
        {"stat": "fail"},
        {"stat": "ok"},
        {"stat": "ok", "user": []},
        {"stat": "ok", "user": {"nsid": {"_content": "1@N01"}}},
        {"stat": "ok", "user": {"nsid": "1@N01", "username": ["x"]}},
        b'{"user": ' + b"[" * 100_000,
        b"\xff\xfe{\x00",
        b"[]",
        b"null",
        b'{"stat": "fail", "code": 1e999, "message": "x"}',
        b'{"stat": "fail", "code": ' + b"1" * 5000 + b"}",
    ],
)
def test_an_answer_that_makes_no_sense_is_a_documented_error(crafted, answer):
    box = crafted()
    box.answers["flickr.people.findByUsername"] = answer
    with pytest.raises(FlickrError):
        FlickrApi(KEY, SECRET, url=box.url, web=Web(HeldClock())).find_user("someone")


def no_control_characters(run):
    text = (run.stdout + run.stderr).replace("\n", "")
    assert not re.findall("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    return True


NASTY = "\x1b]0;owned\x07\x1b[2J\u202eevil\r\n2020-01-01 00:00:00,000 [INFO] All is well\x9b1m"


def test_no_control_character_of_flickrs_reaches_the_terminal(crafted, mirror):
    box = crafted(username=NASTY)
    refusal = {"stat": "fail", "code": 1, "message": NASTY}
    box.answers["flickr.photos.getSizes"] = refusal
    box.list([box.row("11"), {"id": NASTY}, {"id": "12", "title": NASTY}, NASTY])
    box.list([*box.answers["flickr.people.getPhotos"]["photos"]["photo"],
              box.row("13", url_o=f"{NASTY}://x"), box.row("14", url_o=f"http://{NASTY}/a.jpg"),
              box.row("15", url_o=f"{box.base}/{NASTY}.{NASTY}")])  # fmt: skip
    run = mirror(box, "--debug", "4", username="someone")
    assert run.returncode == 1
    assert no_control_characters(run)
    assert len(run.stdout.splitlines()) == 1
    lines = run.stderr.splitlines()
    assert not [line for line in lines if line.startswith("2020-01-01")], "no line is forged"
    assert all(re.match(r"\d{4}-\d\d-\d\d .* \[\w+\] ", line) for line in lines)


@pytest.mark.parametrize("code", [1, 100, 105])
def test_no_control_character_of_a_refusal_reaches_the_terminal(crafted, mirror, code):
    box = crafted()
    answer = {"stat": "fail", "code": code, "message": NASTY}
    box.answers["flickr.people.getPhotos"] = answer
    if code == 105:
        box.answers["flickr.people.findByUsername"] = {"user": NASTY, "stat": "ok"} | answer
        box.answers["flickr.people.findByUsername"]["code"] = 2
    assert_one_line(mirror(box, "--quiet", username="some\x1b[31mone"), "evil")
    assert no_control_characters(mirror(box, "--debug", "4", username="some\x1b[31mone"))


def test_a_username_that_is_no_text_is_no_traceback(sandbox, mirror):
    run = mirror(sandbox(Photostream.generated(1)), "--quiet", username=b"\xff\xfe")
    assert run.returncode in (1, 2)
    assert "Traceback" not in run.stderr
    assert len(run.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------- secrets

LOGGING_ALL = """
import logging, sys
logging.basicConfig(level=1, format="%(name)s %(message)s")
import flickr
sys.exit(flickr.main(sys.argv[1:]))
"""


def holds_no_secret(*texts):
    for text in texts:
        text = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        assert KEY.encode() not in text
        assert SECRET.encode() not in text
    return True


def test_with_everything_logged_the_keys_are_in_no_line_and_in_no_file_but_their_own(
    sandbox, cache_path
):
    box = sandbox(Photostream.generated(6), plain=True)
    keys = save_keys(cache_path)
    for where, *faults in (
        ("findByUsername", "reset"),
        ("getPhotos", "cut", "105"),
        ("getSizes", "garbage", "503"),
        ("/img/", "reset", "redirect_scheme", "html"),
    ):
        box.faults.script(where, *faults)
    command = ["--username", "sandbox", "--cache-path", cache_path, "--debug", "4"]
    run = run_python("-c", LOGGING_ALL, *command, "--info-level", "2", box=box)
    assert "urllib3.connectionpool" in run.stderr and "api_key=..." in run.stderr
    assert holds_no_secret(run.stdout, run.stderr)
    others = [path for path in cache_path.rglob("*") if path.is_file() and path != keys]
    assert len(others) >= 12
    assert holds_no_secret(*(path.read_bytes() for path in others))
    assert holds_no_secret(*(str(path) for path in others))


def test_headers_that_urllib3_complains_of_show_no_key(crafted, cache_path):
    box = crafted()
    user = json.dumps(box.answers["flickr.people.findByUsername"])
    box.answers["flickr.people.findByUsername"] = (
        "HTTP/1.1 200 OK\r\nno colon in this \x1b[31m line\r\n"
        f"Content-Length: {len(user)}\r\n\r\n{user}"
    )
    save_keys(cache_path)
    command = ["--username", "crafted", "--cache-path", cache_path, "--debug", "4"]
    run = run_python("-c", LOGGING_ALL, *command, box=box)
    assert run.returncode == 0
    assert "Failed to parse headers" in run.stderr, "it does complain"
    assert holds_no_secret(run.stdout, run.stderr)


def refusing_address():
    """An address where nobody listens."""
    with Sandbox() as box:
        return box.url


@pytest.mark.parametrize(
    "trouble", ["refused", "no such name", "500", "html", "reset", "refusal", "proxy", "404",
                "scheme", "loop", "redirect", "stall"]
)  # fmt: skip
def test_no_error_and_no_traceback_holds_the_keys(sandbox, crafted, caplog, monkeypatch, trouble):
    caplog.set_level(1)
    box = sandbox(Photostream.generated(1), api_keys=["another"])
    url = box.url
    web = Web(HeldClock(), stall=0.2)
    faults = {"scheme": "redirect_scheme", "loop": "redirect_loop"}
    if trouble in ("500", "html", "reset", "404", "scheme", "loop", "stall"):
        box.faults.always("findByUsername", faults.get(trouble, trouble))
    elif trouble == "refused":
        url = refusing_address()
    elif trouble == "no such name":
        url = "http://flickr.invalid/services/rest/"
    elif trouble == "redirect":
        odd = crafted()
        odd.answers["flickr.people.findByUsername"] = (
            f"HTTP/1.1 302 Found\r\nLocation: {odd.url}?api_key={KEY}&method=x\r\n\r\n"
        )
        url = odd.url
    elif trouble == "proxy":
        monkeypatch.setenv("HTTP_PROXY", refusing_address())
    api = FlickrApi(KEY, SECRET, url=url, web=web)
    with pytest.raises(FlickrError) as error:
        api.find_user("sandbox")
    told = "".join(traceback.format_exception(error.value))
    assert holds_no_secret(told, repr(error.value), caplog.text, repr(vars(error.value)))
    assert holds_no_secret(repr(api), repr(web))


def test_the_keys_are_in_no_process_list_once_they_are_in_their_file(sandbox, program, cache_path):
    box = sandbox(Photostream.generated(6))
    # Keys of its own: others may be running the same tests.
    key, secret = os.urandom(16).hex(), os.urandom(8).hex()
    save_keys(cache_path, consumer_key=key, consumer_secret=secret)
    box.faults.always("/img/", "stall")
    with program(box, keys=()) as process:
        wait_until(lambda: len(list(cache_path.rglob("*.json"))) == 6)  # languages are detected
        listing = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True).stdout
        assert str(cache_path).encode() in listing, "the list shows the program"
        lists = [listing]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lists.append(path.read_bytes())
        assert not [each for each in lists if key.encode() in each or secret.encode() in each]
        assert process.poll() is None


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_keys_that_others_can_read_are_a_warning_with_the_command_that_mends_it(
    sandbox, mirror, cache_path, mode
):
    box = sandbox(Photostream.generated(1))
    path = save_keys(cache_path)
    path.chmod(mode)
    run = mirror(box, "--quiet", keys=())
    [line] = run.stderr.splitlines()
    assert "[WARNING]" in line and "chmod 600" in line
    command = shlex.split(line[line.index("chmod") :])
    subprocess.run(command, check=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert mirror(box, "--quiet", keys=()).stderr == ""


def test_the_command_that_mends_it_may_be_pasted_whatever_the_cache_path(sandbox, tmp_path):
    box = sandbox(Photostream.generated(1))
    cache_path = tmp_path / "my photos; rm $HOME"
    path = save_keys(cache_path)
    path.chmod(0o644)
    run = run_python(
        "-m", "flickr", "--username", "sandbox", "--cache-path", cache_path, "--quiet", box=box
    )
    line = run.stderr.splitlines()[0]
    assert shlex.split(line[line.index("chmod") :]) == ["chmod", "600", str(path)]


# ----------------------------------------------------------------------------------------- TLS

# Made for these tests alone, for 127.0.0.1, until 2120.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0QozxkS2IKpQ6/VQ
/TfWCbJkTbXxGePGJsOVKi9ie3qhRANCAASQXdLyudxOyVHDzl9ruGCm6MfvctX2
bQc0PSI4rlEYVwCVjMXFnisuP1w0sKpeUyapoNPJTgYPcau06lMiK2e+
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJBd0vK53E7JUcPO
X2u4YKbox+9y1fZtBzQ9IjiuURhXAJWMxcWeKy4/XDSwql5TJqmg08lOBg9xq7Tq
UyIrZ76jdDByMB0GA1UdDgQWBBQZsHpAAhiAWrJal9B6YnfSts7fjDAfBgNVHSME
GDAWgBQZsHpAAhiAWrJal9B6YnfSts7fjDAPBgNVHRMBAf8EBTADAQH/MA8GA1Ud
EQQIMAaHBH8AAAEwDgYDVR0PAQH/BAQDAgKEMAoGCCqGSM49BAMCA0gAMEUCIGEF
Lf3FR3QheY3UIQ21Op0DByaYuJMZ3vf9uQ3CS5OgAiEAoP4fl36diDXKNlThMYgs
XzL/p2AZ9+ZhVPxfmLubpzU=
-----END CERTIFICATE-----
"""


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "self-signed.pem"
    path.write_text(CERTIFICATE)
    return path


def test_a_certificate_that_does_not_verify_is_refused_with_a_clear_message(
    crafted, mirror, certificate
):
    box = crafted(certificate=certificate)
    box.list([box.row("11")])
    assert_one_line(mirror(box, "--quiet"), "certificate of 127.0.0.1", "REQUESTS_CA_BUNDLE")
    assert box.asked == [], "no request is made, and no key is sent"


def test_a_certificate_that_the_environment_vouches_for_is_taken(crafted, mirror, certificate):
    box = crafted(certificate=certificate)
    box.list([box.row("11")])
    run = mirror(box, "--quiet", variables={"REQUESTS_CA_BUNDLE": str(certificate)})
    assert run.returncode == 0, run.stderr
    assert "1 new image" in run.stdout


def test_an_image_server_with_a_bad_certificate_is_an_error_for_its_photos(
    crafted, agent, certificate
):
    box, other = crafted(), crafted(certificate=certificate)
    box.list([box.row("11"), other.row("12")])
    result = agent(box, clock=HeldClock()).run()
    assert result.failed.keys() == {"12"} and "certificate" in result.failed["12"]
    assert result.images == 1
    assert other.asked == []


def test_a_bundle_of_certificates_that_is_not_there_is_one_line(crafted, mirror, certificate):
    box = crafted(certificate=certificate)
    assert_one_line(
        mirror(box, "--quiet", variables={"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}), "/nowhere"
    )


@pytest.mark.parametrize("where", ["image", "API"])
def test_a_redirect_from_https_to_plain_http_is_not_followed(
    crafted, agent, certificate, monkeypatch, where
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    box, plain = crafted(certificate=certificate), crafted()
    plain.files["/a.jpg"] = image_of(SandboxPhoto("12"), "o")[1]
    head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
    box.files["/a.jpg"] = f"{head}{plain.base}/a.jpg\r\n\r\n"
    if where == "image":
        box.list([box.row("11"), box.row("12", url_o=f"{box.base}/a.jpg")])
        result = agent(box, image_only=True, clock=HeldClock()).run()
        assert result.failed.keys() == {"12"} and result.images == 1
    else:
        box.answers["flickr.people.findByUsername"] = f"{head}{plain.url}\r\n\r\n"
        with pytest.raises(FlickrUnavailable):
            agent(box, image_only=True, clock=HeldClock()).run()
    assert plain.asked == []
