"""Whatever comes in, from Flickr, the command line or the disk: documented errors, or none."""

import copy
import io
import json
import random
import re
import string
import threading
import time
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import KEY, SECRET, HeldClock
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sandbox import Photostream, Sandbox, SandboxPhoto, image_of, video_sizes_of

import flickr
from flickr import FlickrApi, FlickrError, FlickrUser, Label, Ledger, Locale, Web

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
fuzzed = settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
briefly = settings(fuzzed, max_examples=8)

# Lone surrogates too, as JSON may escape them.
anything = st.text(st.characters(codec=None), max_size=30)
odd_texts = st.sampled_from(
    ["", "0", "-1", "--5", "1e999", "9" * 25, "NaN", "true", "\ud800", "\x00", "../x", "http://["]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 10**18, 10**300, float("inf"), float("nan"), 1e308])
    | st.floats()
    | anything
    | odd_texts
)
json_values = st.recursive(
    leaves,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(anything, each, max_size=4),
    max_leaves=8,
)

# -------------------------------------------------------------------------------- API answers

STREAM = Photostream.generated(4, videos_every=4, comments_every=1)

CALLS = {
    "flickr.people.findByUsername": lambda api: api.find_user("sandbox"),
    "flickr.people.getPhotos": lambda api: api.get_photos("12345678@N01"),
    "flickr.photos.getSizes": lambda api: api.get_photo_sizes(STREAM.photos[3].id),
    "flickr.photos.getInfo": lambda api: api.get_photo_description(STREAM.photos[0].id),
    "flickr.photos.comments.getList": lambda api: api.get_photo_comments(STREAM.photos[0].id),
}


class Echo(ThreadingHTTPServer):
    """Answers each API method with the bytes that `bodies` holds for it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.bodies = {}
        self.url = f"http://127.0.0.1:{self.server_port}/services/rest/"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class EchoHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        method = dict(parse_qsl(urlsplit(self.path).query)).get("method")
        body = self.server.bodies.get(method, b"")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


@pytest.fixture(scope="module")
def echo():
    server = Echo()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def real_answers():
    """What the sandbox answers to each of the calls, and a failure."""
    bodies = {}
    with Sandbox(STREAM) as box:
        web = Web(HeldClock())
        extras = ",".join(["media", "description", "count_comments", *flickr.DETAIL_EXTRAS])
        sizes = ",".join(f"url_{suffix}" for suffix in flickr.SIZE_LABELS)
        parameters = {
            "format": "json", "nojsoncallback": 1, "api_key": KEY, "username": "sandbox",
            "user_id": "12345678@N01", "extras": f"{extras},{sizes}",
        }  # fmt: skip
        for method in CALLS:
            photo = STREAM.photos[3 if "Sizes" in method else 0]
            asked = {**parameters, "method": method, "photo_id": photo.id}
            with web.get(box.url, params=asked) as response:
                bodies[method] = b"".join(web.chunks(response, 1_000_000))
    return {method: json.loads(body) for method, body in bodies.items()}


def places_in(value, path=()):
    """The paths to every value inside a JSON value."""
    yield path
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, each in inside:
        yield from places_in(each, (*path, key))


def mutate(data, answer):
    """Change some places in a JSON value: replaced, removed, repeated, or put in a list."""
    answer = copy.deepcopy(answer)
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        paths = [path for path in places_in(answer) if path]
        if not paths:
            break
        *way, last = data.draw(st.sampled_from(paths), label="place")
        parent = answer
        for key in way:
            parent = parent[key]
        change = data.draw(st.sampled_from(["replace", "remove", "wrap", "fail"]), label="change")
        if change == "replace":
            parent[last] = data.draw(json_values, label="value")
        elif change == "remove":
            del parent[last]
        elif change == "wrap":
            parent[last] = [parent[last]]
        else:
            answer |= {"stat": "fail", "code": data.draw(leaves, label="code")}
    return answer


@pytest.mark.parametrize("method", CALLS)
@fuzzed
@given(data=st.data())
def test_an_answer_with_anything_in_it_is_read_or_a_documented_error(
    echo, real_answers, method, data
):
    answer = mutate(data, real_answers[method])
    echo.bodies[method] = json.dumps(answer).encode()
    api = FlickrApi(KEY, SECRET, url=echo.url, web=Web(HeldClock()))
    try:
        result = CALLS[method](api)
    except FlickrError as error:
        assert KEY not in str(error)
        return
    photos = result[0] if method == "flickr.people.getPhotos" else []
    for photo in photos:
        assert re.fullmatch("[0-9]+", photo.id)
        assert isinstance(photo.title.content, str)
        assert re.fullmatch(r"[0-9a-f]{32}\.[a-z0-9]+", photo.image_filename)
        assert photo.films is not None
        flickr.json_bytes(photo.details(FlickrUser("1@N01", "x"))).decode("utf-8")


@settings(fuzzed, max_examples=60)
@given(body=st.binary(max_size=200) | json_values.map(lambda each: json.dumps(each).encode()))
@example(body=b"[" * 200_000)
@example(body=b'{"user":' * 5_000)
@example(body=b'{"user": {"nsid": ' + b"[" * 900 + b"]" * 900 + b'}, "stat": "ok"}')
@example(body=b'{"stat": "fail", "code": ' + b"7" * 5_000 + b"}")
def test_a_body_of_anything_is_a_documented_error(echo, body):
    echo.bodies["flickr.people.findByUsername"] = body
    api = FlickrApi(KEY, SECRET, url=echo.url, web=Web(HeldClock()))
    try:
        user = api.find_user("sandbox")
    except FlickrError:
        return
    assert isinstance(user.id, str) and isinstance(user.username, str)


@briefly
@given(data=st.data())
def test_a_run_over_a_listing_with_anything_in_it_ends_and_stays_in_its_folder(
    echo, real_answers, tmp_path_factory, data
):
    page = copy.deepcopy(real_answers["flickr.people.getPhotos"])
    rows = page["photos"]["photo"]
    for row in rows:  # without letters there is no language to be detected, which takes long
        row |= {"title": row["id"], "description": {"_content": ""}}
    index = data.draw(st.integers(0, len(rows) - 1))
    rows[index] = mutate(data, rows[index])
    echo.bodies = {
        method: json.dumps(answer).encode()
        for method, answer in (real_answers | {"flickr.people.getPhotos": page}).items()
    }
    root = tmp_path_factory.mktemp("fuzz")
    agent = flickr.FlickrUserPhotostreamMirroringAgent(
        "sandbox", KEY, SECRET, root / "cache", api_url=echo.url, info_level=3, info_only=True,
        clock=HeldClock(),
    )  # fmt: skip
    result = agent.run()
    assert len(result.skipped) + len(result.failed) + result.infos >= 4 or result.unavailable
    files = [path for path in root.rglob("*") if path.is_file()]
    for path in files:
        assert path.is_relative_to(root / "cache" / "sandbox")
        if path.suffix == ".json":
            assert json.loads(path.read_bytes().decode("utf-8"))["title"]


# --------------------------------------------------------------------------- locales and labels

codes = st.text(string.ascii_letters + string.digits + "-_ é\u0130\ud800", max_size=8)
not_texts = st.none() | st.integers() | st.binary(max_size=3) | st.lists(st.text(max_size=2))


@fuzzed
@given(anything | codes | not_texts.filter(lambda each: each is not None))
@example("-")
@example("fra-")
@example("-CA")
@example("fra-CA-QC")
@example("fra\n")
@example("\u0130ng")
def test_a_locale_is_a_known_one_or_a_value_error(text):
    try:
        locale = Locale.from_string(text)
    except ValueError:
        return
    assert re.fullmatch("[a-z]{3}(-[A-Z]{2})?", str(locale), re.ASCII)
    assert Locale.from_string(str(locale)) == locale
    assert hash(Locale.from_string(str(locale))) == hash(locale)


@fuzzed
@given(anything | codes | st.text(string.ascii_letters, max_size=3), codes | anything | st.none())
def test_two_codes_are_a_known_locale_or_a_value_error(language, country):
    try:
        locale = Locale(language, country)
    except ValueError:
        return
    assert len(locale.language_code) == 3
    assert (locale.country_code is None) == (country is None)


@fuzzed
@given(st.text(st.characters(codec=None), max_size=300))
@example("\ud800\udfff" * 50)
@example("<" * 100)
@example("&#9999999;" * 10)
@example("\u0640" * 200)
@example("ﷺ" * 200)
def test_any_text_makes_a_label_with_a_locale(text):
    label = Label.detecting(text)
    assert label.content == text
    assert re.fullmatch("[a-z]{3}(-[A-Z]{2})?", str(label.locale))
    assert flickr.detect_locale(text) == label.locale


PIECES = [
    "<", "<a", "<a href='", "<!--", "</", "&", "&#", "&#x", "&amp", "&" + "a" * 31, "http://",
    "http:", "www.", "flic.kr/", "\n", " ", "\0", "a", "é", "名", "1", "[", "<a http://&amp;",
    "https://www.", "\u0640", "ا", "\ud800", "a\u0301", "<" + "!" * 50, "&#1;", "!<a!>",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_a_megabyte_of_anything_is_looked_at_in_no_time(piece):
    flickr.detect_locale("Warm up: load the profiles of all the languages first.")
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    flickr.prose_of(text)
    assert isinstance(flickr.detect_locale(text), Locale)
    assert time.process_time() - started < 2


# ------------------------------------------------------------------------------ command line

OPTIONS = [
    "--username", "--username-file", "--image-only", "--info-only", "--info-level",
    "--photos-only", "--prefer-original", "--fifo", "--lifo", "--cache-path",
    "--cache-directory-depth", "--verify-image", "--refresh", "--watch", "--dry-run",
    "--consumer-key", "--consumer-secret", "--save-api-keys", "--jobs", "--api-rate", "--quiet",
    "--debug", "--help", "--version", "--user", "--in", "-h", "--", "-", "--=",
]  # fmt: skip
values = st.sampled_from(
    ["0", "1", "-1", "+2", "4", "32", "33", "64", "1e3", "٣", "", " ", "%s", "%(prog)s", "x" * 300]
) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
words = (
    st.sampled_from(OPTIONS)
    | values
    | st.tuples(st.sampled_from(OPTIONS), values).map("=".join)
    | st.just("\udcff\udc80")  # bytes that are no UTF-8, as Python gives them
)


@settings(fuzzed, max_examples=400)
@given(st.lists(words, max_size=8))
@example(["--username", "x", "--username-file", "/"])
@example(["--username-file", "x" * 5000])
@example(["--username-file", "\udcff"])
@example(["--username=x", "--debug", "9" * 5000])
@example(["--username=x", "--jobs", "٣"])
@example(["--username=x", "%(x)s"])
@example(["--username=x", "--info-level", "%d\x1b[31m"])
def test_a_command_line_is_read_or_ends_with_status_0_or_2(capsys, arguments):
    try:
        options = flickr.get_arguments(arguments)
    except SystemExit as end:
        captured = capsys.readouterr()
        assert end.code in (0, 2)
        if end.code == 2:
            assert captured.err.startswith("mirror_flickr: error: ")
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", captured.err)
            assert len(captured.err.splitlines()) == 1
        return
    assert options.username
    assert 0 <= options.cache_directory_depth <= 32
    assert 1 <= options.jobs <= 64
    assert options.info_level in range(4) and options.debug in range(5)
    assert not (options.fifo and options.lifo)


@settings(fuzzed, max_examples=60)
@given(st.binary(max_size=200))
def test_a_file_of_usernames_may_hold_anything(tmp_path, capsys, content):
    path = tmp_path / "names"
    path.write_bytes(content)
    try:
        options = flickr.get_arguments(["--username-file", str(path)])
    except SystemExit as end:
        assert end.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        return
    assert all(name.strip() for name in options.usernames)


# --------------------------------------------------------------------------------- usernames

nsids = st.from_regex(r"[0-9]{1,12}@N[0-9]{2}", fullmatch=True)
DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{kind}{n}" for kind in ("com", "lpt") for n in range(10)
}


@settings(fuzzed, max_examples=500)
@given(
    st.text(st.characters(codec=None), max_size=60) | st.text("./\\ ~-:*\0\n", max_size=8), nsids
)
@example("x" * 300, "1@N01")
@example("📷" * 100, "1@N01")
@example("con", "1@N01")
@example("CON.txt", "1@N01")
@example("con ", "1@N01")
@example("flickr_keys", "1@N01")
@example("", "1@N01")
@example(" ", "1@N01")
@example("a" * 149 + "名", "1@N01")
@example("a" * 149 + ".b", "1@N01")
def test_the_folder_of_a_username_is_one_portable_path_component(username, nsid):
    name = flickr.folder_name_of(username, nsid)
    assert name and name not in (".", "..")
    assert not set(name) & set('/\\:*?"<>|')
    assert all(unicodedata.category(each) not in ("Cc", "Cs") for each in name)
    assert len(name.encode("utf-8")) <= 255 and len(name.encode("utf-16-le")) <= 510
    assert not name.startswith(".") and name == name.strip(" .")
    assert name.partition(".")[0].strip().casefold() not in DEVICES
    assert name.casefold() != flickr.KEYS_FILENAME
    assert Path("root", name).parts == ("root", name)
    assert name == username or nsid in name, "it is the name, or tells the user apart"


@fuzzed
@given(anything, anything, nsids, nsids)
@example("a/b", "a:b", "1@N01", "2@N01")
@example("x" * 300, "x" * 301, "1@N01", "2@N01")
def test_users_whose_names_are_cleaned_have_folders_of_their_own(one, other, nsid, another):
    if nsid != another and flickr.folder_name_of(one, nsid) != one:
        assert flickr.folder_name_of(one, nsid) != flickr.folder_name_of(other, another) or (
            flickr.folder_name_of(other, another) == other
        )


@fuzzed
@given(anything)
def test_what_is_printable_has_no_control_characters(text):
    shown = flickr.printable(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert shown.encode("utf-8").decode("utf-8") == shown


# ------------------------------------------------------------------------------- state files

STATE = {
    "version": 1,
    "nsid": "12345678@N01",
    "username": "sandbox",
    "cache_directory_depth": 4,
    "clean": True,
    "images": [[1, 3]],
    "infos": {"0": [[1, 3]]},
    "videos": [[2, 2]],
    "short": [[1, 2, 1]],
    "anchors": {"3": "50000000130"},
    "unavailable_images": ["5"],
    "unavailable_infos": [],
}


@settings(fuzzed, max_examples=400)
@given(data=st.data())
def test_any_json_is_a_ledger_or_a_value_error(data):
    damaged = data.draw(json_values) if data.draw(st.booleans()) else mutate(data, STATE)
    try:
        ledger = Ledger.from_json(json.loads(json.dumps(damaged)))
    except ValueError:
        return
    json.dumps(ledger.to_json())
    assert isinstance(ledger.done(True, 0), flickr.Ranges)


@pytest.fixture(scope="module")
def small_box():
    with Sandbox(Photostream.generated(3)) as box:
        yield box


DAMAGED_STATES = [
    b"", b"{", b"null", b"[]", b"0", b'"x"', b"\0" * 4096, b"\xff\xfe", b"[" * 100_000, b"{}",
    b'{"nsid": null}', b'{"images": Infinity}', json.dumps(STATE).encode()[:-40],
    *(
        json.dumps(STATE | change).encode()
        for change in (
            {"nsid": 5}, {"nsid": ["x"]}, {"nsid": {}}, {"cache_directory_depth": "4"},
            {"cache_directory_depth": "x"}, {"cache_directory_depth": 4.5},
            {"cache_directory_depth": []}, {"cache_directory_depth": -1}, {"clean": "no"},
            {"short": [[1, 2, float("inf")]]}, {"infos": {"x": [[1, 2]]}}, {"infos": []},
            {"anchors": {"3": None}}, {"anchors": {"9" * 5000: "x"}}, {"images": [[1, 10**30]]},
            {"images": [[3, 1]]}, {"images": [[True, 2]]}, {"images": "x"},
            {"anchors": {"-1": "x"}}, {"unavailable_images": 7}, {"unavailable_images": [[]]},
            {"version": "new"}, {"infos": {"99999": [[1, 3]]}}, {"calls": 5},
            {"calls": {"x": 1, "7": [], "8": 10**30, "9": -1, "10" * 30: 1}},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED_STATES, ids=range(len(DAMAGED_STATES)))
def test_a_run_on_a_damaged_state_file_looks_again_and_goes_on(small_box, tmp_path, content):
    def run():
        return flickr.FlickrUserPhotostreamMirroringAgent(
            "sandbox", KEY, SECRET, tmp_path, api_url=small_box.url, image_only=True
        ).run()

    run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert len(before) == 3
    sorted(before)[1].unlink()
    (tmp_path / "sandbox" / flickr.UserCache.STATE_FILENAME).write_bytes(content)
    assert run().complete
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")} == before
    state = json.loads((tmp_path / "sandbox" / flickr.UserCache.STATE_FILENAME).read_bytes())
    assert state["nsid"] == "12345678@N01" and state["clean"] is True


# ------------------------------------------------------------------------------- image files

IMAGES = [
    image_of(SandboxPhoto("11", original_format=kind), "o", at_least=at_least)[1]
    for kind in ("jpg", "png", "gif")
    for at_least in (None, 5_000)
] + [image_of(STREAM.photos[3], video_sizes_of(STREAM.photos[3])[0][0])[1]]


@fuzzed
@given(st.binary(max_size=300) | st.sampled_from(IMAGES).map(lambda each: each[:40]))
def test_any_bytes_have_a_kind_or_none(start):
    kind = flickr.kind_of(start)
    assert kind in (None, ".jpg", ".png", ".gif", ".tif", ".webp", ".mp4")
    for extension in (".jpg", ".png", ".gif", ".tif", ".webp", ".mp4"):
        assert flickr.is_of_kind(start, extension) == (kind == extension)


heads = st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0\0\0\x18ftyp"])


@fuzzed
@given(heads, st.binary(max_size=600))
@example(b"\xff\xd8\xff", b"\xff" * 500)
@example(b"\xff\xd8\xff\xe0\0\0", b"")
@example(b"\0\0\0\x08ftyp", b"\0\0\0\0")
@example(b"\0\0\0\x01ftyp", b"\xff" * 16)
def test_any_bytes_are_cut_off_or_not(head, rest):
    assert flickr.is_cut_off(io.BytesIO(head + rest)) in (True, False)


@fuzzed
@given(st.sampled_from(IMAGES), st.data())
def test_every_cut_of_an_image_is_noticed(image, data):
    assert not flickr.is_cut_off(io.BytesIO(image))
    length = data.draw(st.integers(16, len(image) - 1))
    cut = image[:length]
    if flickr.kind_of(cut) == ".gif" and cut.rstrip(b"\0").endswith(b";"):
        return  # a semicolon may stand anywhere in a GIF's text
    if flickr.kind_of(cut) == ".mp4" and flickr._end_of_boxes(io.BytesIO(cut), length) == length:
        return  # cut between two boxes
    assert flickr.is_cut_off(io.BytesIO(cut))


@settings(fuzzed, max_examples=120)
@given(st.sampled_from(IMAGES), st.integers(0, 2**32), st.integers(1, 30))
def test_an_image_with_random_damage_can_be_decoded_or_not(tmp_path, image, seed, changes):
    chance = random.Random(seed)
    damaged = bytearray(image)
    for _ in range(changes):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    for suffix in (".jpg", ".mp4"):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(damaged)
        assert flickr.is_whole_file(path) in (True, False)


@fuzzed
@given(heads, st.binary(max_size=300))
def test_any_bytes_can_be_decoded_or_not(tmp_path, head, rest):
    path = tmp_path / "image.png"
    path.write_bytes(head + rest)
    assert flickr.is_whole_file(path) in (True, False)
