"""The stand-in for Flickr does what Flickr is known to do."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import sandbox as sandbox_module
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sandbox import (
    FAULT_KINDS,
    PASSING_CODES,
    SIZE_KEYS,
    UNAVAILABLE_PATH,
    Faults,
    Photostream,
    Sandbox,
    SandboxPhoto,
    image_of,
    ladder_of,
    sizes_of,
)

NSID = "12345678@N01"
EXTRAS = ",".join(
    ["description", "license", "date_upload", "date_taken", "last_update", "owner_name"]
    + ["original_format", "o_dims", "geo", "tags", "machine_tags", "views", "media"]
    + ["path_alias", "count_comments", "count_faves"]
    + [f"url_{key}" for key in SIZE_KEYS]
)


def call(box, method, post=False, **params):
    """The JSON answer to an API call."""
    params = {"method": method, "api_key": "k", "format": "json", "nojsoncallback": "1"} | params
    if post:
        return requests.post(box.url, data=params, timeout=5).json()
    return requests.get(box.url, params=params, timeout=5).json()


def listing(box, **params):
    """The `photos` object of a getPhotos answer."""
    return call(box, "flickr.people.getPhotos", user_id=NSID, **params)["photos"]


def image_url(box, photo, key="o"):
    """The address of a photo's image at a size."""
    size = next(size for size in sizes_of(photo) if size.key == key)
    return f"{box.base}/img/{size.server}/{size.name}"


def decoded(data):
    """The picture in some bytes, all of its pixels decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.fixture(scope="module")
def box():
    """A sandbox of 250 photos of every sort, for tests that change nothing."""
    stream = Photostream.generated(
        250, videos_every=20, hidden_originals_every=7, png_every=11, gif_every=13
    )
    with Sandbox(stream) as served:
        yield served


# --------------------------------------------------------------------------------- the model


@given(st.integers(0, 60), st.integers(1, 70), st.sets(st.integers(0, 59)))
def test_the_pages_hold_every_photo_that_is_not_hidden_once_newest_first(count, per_page, hidden):
    stream = Photostream.generated(count)
    stream.hidden = {photo.id for i, photo in enumerate(stream.photos) if i in hidden}
    _, page_count, total = stream.page(1, per_page)
    seen = [photo for p in range(1, page_count + 1) for photo in stream.page(p, per_page)[0]]
    expected = [photo for photo in reversed(stream.photos) if photo.id not in stream.hidden]
    assert (seen, total) == (expected, count)


def test_an_empty_photostream_has_no_pages_and_a_page_beyond_the_last_is_empty():
    assert Photostream().page(1, 100) == ([], 0, 0)
    assert Photostream.generated(3).page(3, 2) == ([], 2, 3)


def test_the_same_arguments_generate_the_same_photos_and_another_seed_other_ones():
    assert Photostream.generated(40).photos == Photostream.generated(40).photos
    assert Photostream.generated(40).photos != Photostream.generated(40, seed=1).photos


def test_generated_titles_and_ids_all_differ():
    photos = Photostream.generated(500).photos
    assert len({photo.title for photo in photos}) == len({photo.id for photo in photos}) == 500


def test_new_photos_come_first_under_ids_never_used_before():
    stream = Photostream.generated(5)
    gone = stream.photos[-1].id
    stream.remove(gone)
    first, second = stream.add(2, title="Neu", image_revision=3)
    assert stream.get(gone) is None
    assert [photo.id for photo in stream.page(1, 2)[0]] == [second.id, first.id]
    assert int(second.id) > int(first.id) > int(gone)
    assert (first.title, first.image_revision) == ("Neu", 3)
    assert first.date_upload > stream.photos[-3].date_upload


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_no_size_but_the_squares_is_larger_than_the_original(width, height):
    sizes = ladder_of(width, height)
    assert [size[0] for size in sizes] == [key for key in SIZE_KEYS if key in dict_of(sizes)]
    for key, _, _, size_width, size_height in sizes:
        assert key in ("sq", "q") or (size_width <= width and size_height <= height)


def dict_of(sizes):
    """The sizes by key."""
    return {size[0]: size for size in sizes}


@pytest.mark.parametrize(
    ("original", "largest"),
    [  # recorded from Flickr
        ((1100, 749), ("l", 1024, 697)),
        ((800, 600), ("c", 800, 600)),
        ((1017, 1536), ("h", 1017, 1536)),
        ((1704, 1704), ("h", 1600, 1600)),
        ((1267, 1982), ("k", 1267, 1982)),
        ((3500, 2333), ("3k", 3072, 2048)),
        ((6000, 4000), ("6k", 6000, 4000)),
        ((4683, 6439), ("6k", 4468, 6144)),
        ((640, 360), ("z", 640, 360)),
    ],
)
def test_the_largest_size_below_original_is_the_recorded_one(original, largest):
    key, _, _, width, height = ladder_of(*original)[-1]
    assert (key, width, height) == largest


def test_records_keep_their_file_names_and_share_out_the_comments(tmp_path):
    record = {"id": "10997138656", "title": "Page 78", "description": "Title: &quot;x&quot;"}
    for key, name, width in [("o", "6fdbb63abe_o", 1438), ("m", "cea54c6003", 357)]:
        record[f"url_{key}"] = f"https://farm6.staticflickr.com/5542/10997138656_{name}.jpg"
        record |= {f"width_{key}": width, f"height_{key}": 500}
    record |= {"url_l": "", "width_l": 0, "height_l": 0}  # a size the photo lacks
    lines = tmp_path / "records.jsonl"
    lines.write_text("\n".join(json.dumps(record | {"id": str(10997138656 + i)}) for i in range(8)))
    comments = tmp_path / "comments.json"
    comments.write_text(json.dumps({"1": {"comment": [{"_content": t} for t in "abcdef"]}}))
    stream = Photostream.from_jsonl(lines, comments=comments, limit=7)
    assert [photo.comments for photo in stream.photos] == [[], [], ["a"], [], [], ["b", "c"], []]
    with Sandbox(stream) as box:
        row = listing(box, extras=EXTRAS)["photo"][-1]
        assert row["url_o"] == f"{box.base}/img/5542/10997138656_6fdbb63abe_o.jpg"
        assert "url_l" not in row
        assert (row["secret"], row["server"]) == ("cea54c6003", "5542")
        assert row["originalsecret"] == "6fdbb63abe"
        assert decoded(requests.get(row["url_o"], timeout=5).content).size == (1438, 500)
        sizes = call(box, "flickr.photos.getSizes", photo_id=row["id"])["sizes"]["size"]
        assert [size["label"] for size in sizes] == ["Medium", "Original"]


# ----------------------------------------------------------------------------------- the API


@pytest.mark.parametrize("post", [False, True])
def test_a_user_is_found_by_name_in_any_case(box, post):
    answer = call(box, "flickr.people.findByUsername", post=post, username="SandBox")
    user = {"id": NSID, "nsid": NSID, "username": {"_content": "sandbox"}}
    assert answer == {"user": user, "stat": "ok"}


@pytest.mark.parametrize("name", ["sandbox", NSID, "12345678%40N01"])
@pytest.mark.parametrize("where", ["https://www.flickr.com/photos/%s/", "flickr.com/people/%s"])
def test_a_user_is_found_by_address(box, where, name):
    answer = call(box, "flickr.urls.lookupUser", url=where % name)
    assert answer["user"] == {"id": NSID, "username": {"_content": "sandbox"}}


@pytest.mark.parametrize(
    ("code", "message", "params"),
    [
        (1, "User not found", {"method": "flickr.people.findByUsername", "username": "nobody"}),
        (1, "User not found", {"method": "flickr.urls.lookupUser", "url": "x/photos/nobody/"}),
        (1, "User not found", {"method": "flickr.urls.lookupUser", "url": ""}),
        (2, "Unknown user", {"method": "flickr.people.getPhotos", "user_id": "9@N01"}),
        (1, "Required arguments missing", {"method": "flickr.people.getPhotos"}),
        (1, "User not found", {"method": "flickr.people.getPublicPhotos", "user_id": "9@N01"}),
        (1, "Photo not found", {"method": "flickr.photos.getSizes", "photo_id": "1"}),
        (1, "Photo not found", {"method": "flickr.photos.getInfo", "photo_id": "35366357641"}),
        (
            1,
            'Photo "1" not found (invalid ID)',
            {"method": "flickr.photos.getInfo", "photo_id": "1"},
        ),
        (
            1,
            'Photo "12345678901234567890" not found (invalid ID)',
            {"method": "flickr.photos.getInfo", "photo_id": "12345678901234567890"},
        ),
        (1, "Photo not found", {"method": "flickr.photos.comments.getList", "photo_id": "2"}),
        (
            100,
            "Invalid API Key (Key has invalid format)",
            {"method": "flickr.photos.getInfo", "api_key": ""},
        ),
        (112, 'Method "flickr.nothing" not found', {"method": "flickr.nothing"}),
        (111, 'Format "rest" not found', {"format": "rest", "method": "flickr.photos.getInfo"}),
    ],
)
def test_a_call_that_fails_is_answered_with_flickrs_code_and_message(box, code, message, params):
    assert call(box, **params) == {"stat": "fail", "code": code, "message": message}


def test_only_the_given_keys_are_taken():
    with Sandbox(api_keys={"good"}) as box:
        asked = {"method": "flickr.people.findByUsername", "username": "sandbox"}
        assert call(box, **asked)["code"] == 100
        assert call(box, **asked, api_key="good")["stat"] == "ok"


def test_without_nojsoncallback_the_answer_is_a_javascript_call(box):
    params = {"method": "flickr.nothing", "format": "json"}
    assert requests.get(box.url, params=params, timeout=5).text.startswith("jsonFlickrApi({")


def test_a_listing_without_extras_has_the_basic_fields_and_no_other(box):
    photos = listing(box)
    newest = box.photostream.photos[-1]
    assert len(photos["photo"]) == 100 and photos["pages"] == 3 and int(photos["total"]) == 250
    assert photos["photo"][0] == {
        "id": newest.id,
        "owner": NSID,
        "secret": newest.secret,
        "server": "65535",
        "farm": 66,
        "title": newest.title,
        "ispublic": 1,
        "isfriend": 0,
        "isfamily": 0,
    }


@pytest.mark.parametrize(
    ("extra", "fields"),
    [
        ("description", {"description"}),
        ("license", {"license"}),
        ("date_upload", {"dateupload"}),
        ("date_taken", {"datetaken", "datetakengranularity", "datetakenunknown"}),
        ("last_update", {"lastupdate"}),
        ("owner_name", {"ownername"}),
        ("original_format", {"originalsecret", "originalformat"}),
        ("o_dims", {"o_width", "o_height"}),
        ("geo", {"latitude", "longitude", "accuracy", "context"}),
        ("tags", {"tags"}),
        ("machine_tags", {"machine_tags"}),
        ("views", {"views"}),
        ("media", {"media", "media_status"}),
        ("path_alias", {"pathalias"}),
        ("count_comments", {"count_comments"}),
        ("count_faves", {"count_faves"}),
        ("url_o", {"url_o", "width_o", "height_o"}),
        ("url_z", {"url_z", "width_z", "height_z"}),
        ("nonsense", set()),
    ],
)
def test_an_extra_adds_exactly_its_fields(extra, fields):
    stream = Photostream("u", NSID, [SandboxPhoto("50000000019", width=800, height=600)])
    with Sandbox(stream) as box:
        (plain,) = listing(box)["photo"]
        (row,) = listing(box, extras=extra)["photo"]
    assert set(row) - set(plain) == fields
    assert row.items() >= plain.items()


def test_extras_say_what_the_photo_is(box):
    rows = [row for p in (1, 2, 3) for row in listing(box, extras=EXTRAS, page=p)["photo"]]
    for row, photo in zip(rows, reversed(box.photostream.photos), strict=True):
        assert row["description"] == {"_content": photo.description}
        assert row["dateupload"] == str(photo.date_upload)
        assert row["datetaken"] == photo.date_taken
        assert row["media"] == photo.media
        assert row["count_comments"] == str(len(photo.comments))
        assert float(row["latitude"]) == (photo.latitude or 0)
        keys = [size.key for size in sizes_of(photo)]
        assert [key for key in SIZE_KEYS if f"url_{key}" in row] == keys
        assert ("o" in keys) == ("originalsecret" in row) == (not photo.original_hidden)


def test_numbers_come_as_numbers_and_as_strings(box):
    pages = [listing(box, page=page, extras="url_m,views") for page in (1, 2)]
    rows = [row for page in pages for row in page["photo"]]
    for values in (
        [page["total"] for page in pages],
        [row["width_m"] for row in rows if "width_m" in row],
        [row["views"] for row in rows],
    ):
        assert {type(value) for value in values} == {int, str}
    again = listing(box, extras="url_m,views")
    assert again == pages[0]


@pytest.mark.parametrize(
    ("asked", "per_page", "rows"),
    [("500", 500, 250), ("9999", 500, 250), ("7", 7, 7), ("x", 100, 100), ("0", 100, 100)],
)
def test_per_page_is_as_asked_up_to_500_and_100_by_default(box, asked, per_page, rows):
    photos = listing(box, per_page=asked)
    assert (int(photos["perpage"]), len(photos["photo"])) == (per_page, rows)


def test_getpublicphotos_lists_the_same_photos(box):
    public = call(box, "flickr.people.getPublicPhotos", user_id=NSID, page="2", extras="media")
    assert public["photos"] == listing(box, page="2", extras="media")


def test_upload_dates_narrow_a_listing(box):
    photos = box.photostream.photos
    dates = {"min_upload_date": photos[10].date_upload, "max_upload_date": photos[12].date_upload}
    answer = listing(box, **dates)
    assert [row["id"] for row in answer["photo"]] == [photos[i].id for i in (12, 11, 10)]


def test_plain_ignores_all_extras_and_missing_extras_single_ones():
    with Sandbox(Photostream.generated(2), plain=True) as box:
        assert listing(box, extras=EXTRAS) == listing(box)
    with Sandbox(Photostream.generated(2), missing_extras=["count_comments"]) as box:
        (row, _) = listing(box, extras="media,count_comments")["photo"]
        assert "media" in row and "count_comments" not in row


def test_getinfo_describes_a_photo(box):
    photo = box.photostream.photos[11]
    info = call(box, "flickr.photos.getInfo", photo_id=photo.id)["photo"]
    assert info["title"] == {"_content": photo.title}
    assert info["description"] == {"_content": photo.description}
    assert info["dates"]["taken"] == photo.date_taken
    assert info["owner"]["nsid"] == NSID
    assert int(info["comments"]["_content"]) == len(photo.comments)
    assert [t["raw"] for t in info["tags"]["tag"]] == [*photo.tags.split(), photo.machine_tags]
    assert info["urls"]["url"][0]["type"] == "photopage"
    assert info["originalformat"] == "jpg"


def test_getsizes_agrees_with_the_extras(box):
    row = listing(box, extras=EXTRAS)["photo"][3]
    sizes = call(box, "flickr.photos.getSizes", photo_id=row["id"])["sizes"]["size"]
    assert [size["source"] for size in sizes] == [
        row[f"url_{key}"] for key in SIZE_KEYS if f"url_{key}" in row
    ]
    assert {size["label"] for size in sizes} >= {"Square", "Large Square", "Medium", "Original"}
    assert int(sizes[-1]["width"]) == int(row["width_o"])


def test_a_video_has_poster_frames_then_a_player_then_video_files_that_can_be_fetched():
    stream = Photostream.generated(24, videos_every=1, image_bytes=5_000)
    dimensions, labels = set(), set()
    with Sandbox(stream) as box:
        for photo in stream.photos:
            sizes = call(box, "flickr.photos.getSizes", photo_id=photo.id)["sizes"]["size"]
            posters = len(sizes_of(photo))
            assert [size["media"] for size in sizes[:posters]] == ["photo"] * posters
            assert {size["media"] for size in sizes[posters:]} == {"video"}
            assert sizes[posters]["label"] == "Video Player"
            assert ".swf" in sizes[posters]["source"]
            labels |= {size["label"] for size in sizes[posters:]}
            dimensions |= {type(size["width"]) for size in sizes[posters:]}
            best = sizes[posters + 1]
            answer = requests.get(best["source"], timeout=5)
            if best["label"] == "Video Original":
                assert answer.url.endswith("/signin")
                best = sizes[posters + 2]
                answer = requests.get(best["source"], timeout=5)
            assert answer.headers["Content-Type"] == "video/mp4"
            assert answer.url.endswith(".mp4") and answer.history[0].status_code == 302
            assert answer.content[4:8] == b"ftyp" and len(answer.content) >= 5_000
            assert answer.content == box.image_bytes_for(best["source"])
    assert labels >= {"360p", "720p", "700", "iphone_wifi", "Video Original"}
    assert dimensions == {int, str, type(None)}


def test_comments_come_all_at_once_and_without_the_key_where_there_are_none(box):
    none, some = box.photostream.photos[0], box.photostream.photos[5]
    answer = call(box, "flickr.photos.comments.getList", photo_id=none.id)
    assert answer == {"comments": {"photo_id": none.id}, "stat": "ok"}
    rows = call(box, "flickr.photos.comments.getList", photo_id=some.id)["comments"]["comment"]
    assert [row["_content"] for row in rows] == some.comments != []
    fields = {"id", "author", "authorname", "datecreate", "permalink", "_content"}
    assert set(rows[0]) == fields


def test_a_photo_that_is_gone_is_listed_but_not_found_and_its_image_is_the_unavailable_picture():
    stream = Photostream.generated(3)
    photo = stream.photos[1]
    with Sandbox(stream) as box:
        address = image_url(box, photo)
        photo.gone = True
        assert photo.id in [row["id"] for row in listing(box)["photo"]]
        for method in ("getSizes", "getInfo", "comments.getList"):
            answer = call(box, f"flickr.photos.{method}", photo_id=photo.id)
            assert (answer["code"], answer["message"]) == (1, "Photo not found")
        answer = requests.get(address, timeout=5)
        assert answer.url == box.base + UNAVAILABLE_PATH and answer.status_code == 200
        assert decoded(answer.content).format == "GIF"
        with pytest.raises(KeyError):
            box.image_bytes_for(address)
        removed = image_url(box, stream.photos[0])
        stream.remove(stream.photos[0].id)
        assert requests.get(removed, timeout=5).url == box.base + UNAVAILABLE_PATH


def test_hidden_photos_make_a_page_short_for_good():
    stream = Photostream.generated(10)
    stream.hidden = {stream.photos[9].id, stream.photos[1].id}
    with Sandbox(stream) as box:
        first, last = listing(box, per_page=5), listing(box, per_page=5, page=2)
    assert (len(first["photo"]), len(last["photo"]), int(first["total"])) == (4, 4, 10)


# -------------------------------------------------------------------------------- the images


@pytest.mark.parametrize("at_least", [None, 300_000])
@pytest.mark.parametrize("kind", ["jpg", "png", "gif"])
def test_every_size_is_a_whole_image_of_the_stated_kind_and_dimensions(kind, at_least):
    photo = SandboxPhoto("50000000019", original_format=kind, width=1501, height=997)
    for size in sizes_of(photo):
        content_type, data = image_of(photo, size.key, at_least=at_least)
        image = decoded(data)
        expected = {"jpg": "JPEG", "png": "PNG", "gif": "GIF"}[kind] if size.key == "o" else "JPEG"
        assert (image.size, image.format) == ((size.width, size.height), expected)
        assert content_type == Image.MIME[expected]
        assert (at_least or 0) <= len(data) < (at_least or 50_000) + 5_000


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(["jpg", "png", "gif"]))
def test_originals_of_any_dimensions_are_decodable(width, height, kind):
    photo = SandboxPhoto("50000000019", original_format=kind, width=width, height=height)
    assert decoded(image_of(photo, "o")[1]).size == (width, height)


@pytest.mark.parametrize("kind", ["jpg", "png", "gif"])
def test_images_differ_by_photo_size_and_revision(kind):
    photos = [SandboxPhoto(str(50000000019 + i), original_format=kind) for i in range(4)]
    photos.append(SandboxPhoto("50000000019", original_format=kind, image_revision=1))
    for at_least in (None, 70_000):
        images = [image_of(p, s.key, at_least=at_least)[1] for p in photos for s in sizes_of(p)]
        assert len(set(images)) == len(images)
    with pytest.raises(KeyError):
        image_of(photos[0], "6k")


def test_an_image_is_served_as_the_model_makes_it(box):
    for photo in box.photostream.photos[:40]:
        for key in ("t", "o"):
            if key == "o" and photo.original_hidden:
                continue
            answer = requests.get(image_url(box, photo, key), timeout=5)
            content_type, data = image_of(photo, key)
            assert answer.content == data == box.image_bytes_for(answer.url)
            assert answer.headers["Content-Type"] == content_type


def test_an_unchanged_image_is_not_sent_again_and_a_replaced_one_is():
    stream = Photostream.generated(1)
    with Sandbox(stream) as box:
        address = image_url(box, stream.photos[0])
        first = requests.get(address, timeout=5)
        for header, value in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")):
            again = requests.get(address, headers={header: first.headers[value]}, timeout=5)
            assert (again.status_code, again.content) == (304, b"")
        stream.photos[0].image_revision = 1
        for header, value in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")):
            again = requests.get(address, headers={header: first.headers[value]}, timeout=5)
            assert again.status_code == 200 and again.content != first.content


def test_head_answers_the_length_and_no_body(box):
    photo = box.photostream.photos[0]
    answer = requests.head(image_url(box, photo), timeout=5)
    assert answer.content == b""
    assert int(answer.headers["Content-Length"]) == len(image_of(photo, "o")[1])


@pytest.mark.parametrize("path", ["/img/65535/x.jpg", "/img/1/2/3/4.jpg", "/", "/photos/a/1/"])
def test_what_is_nowhere_is_404(box, path):
    assert requests.get(box.base + path, timeout=5).status_code == 404


def test_the_address_of_a_hidden_original_is_404(box):
    photo = next(photo for photo in box.photostream.photos if photo.original_hidden)
    name = f"{photo.id}_{sandbox_module.original_secret(photo)}_o.jpg"
    assert requests.get(f"{box.base}/img/65535/{name}", timeout=5).status_code == 404


# -------------------------------------------------------------------------------- the faults


@pytest.fixture
def faulty():
    """A sandbox of one photo with 20,000 bytes in each image, no faults yet."""
    with Sandbox(Photostream.generated(1, image_bytes=20_000), faults=Faults()) as served:
        yield served


def fetch(box, timeout=5.0):
    """An http.client response to a request for the only photo's Original."""
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=timeout)
    connection.request("GET", image_url(box, box.photostream.photos[0])[len(box.base) :])
    return connection.getresponse()


def whole(box):
    """The bytes of the only photo's Original."""
    return image_of(box.photostream.photos[0], "o", at_least=20_000)[1]


def test_reset_ends_the_connection_without_an_answer(faulty):
    faulty.faults.script("/img/", "reset")
    with pytest.raises(ConnectionResetError) as raised:
        fetch(faulty)
    assert not isinstance(raised.value, http.client.RemoteDisconnected)
    assert faulty.requests[0].status is None and faulty.requests[0].fault == "reset"
    assert fetch(faulty).read() == whole(faulty)


def test_cut_sends_half_of_the_body(faulty):
    faulty.faults.script("/img/", "cut")
    with pytest.raises(http.client.IncompleteRead) as raised:
        fetch(faulty).read()
    assert raised.value.partial == whole(faulty)[: len(whole(faulty)) // 2]


def test_stall_falls_silent(faulty):
    faulty.faults.script("/img/", "stall")
    answer = fetch(faulty, timeout=0.5)
    assert answer.read(64) == whole(faulty)[:64]
    with pytest.raises(TimeoutError):
        answer.read(1)


def test_trickle_sends_a_byte_at_a_time(faulty):
    faulty.faults.script("/img/", "trickle")
    answer = fetch(faulty)
    started = time.monotonic()
    assert answer.read(4) == whole(faulty)[:4]
    assert 0.6 < time.monotonic() - started < 2


def test_slow_takes_a_while_and_is_whole(faulty):
    faulty.faults.script("/img/", "slow")
    started = time.monotonic()
    assert fetch(faulty).read() == whole(faulty)
    assert time.monotonic() - started > 0.2


def test_short_length_agrees_with_half_a_body(faulty):
    faulty.faults.script("/img/", "short_length")
    answer = fetch(faulty)
    assert answer.length == len(whole(faulty)) // 2
    assert answer.read() == whole(faulty)[: len(whole(faulty)) // 2]


def test_no_length_ends_with_the_connection(faulty):
    faulty.faults.script("/img/", "no_length")
    answer = fetch(faulty)
    assert answer.length is None and answer.read() == whole(faulty)


def test_a_length_that_lies_leaves_the_client_waiting_for_more(faulty):
    faulty.faults.script("/img/", "lying_length_long")
    with pytest.raises(http.client.IncompleteRead) as raised:
        fetch(faulty).read()
    assert raised.value.partial == whole(faulty)


def test_endless_goes_on(faulty):
    faulty.faults.script("/img/", "endless")
    answer = fetch(faulty)
    assert answer.length is None and len(answer.read(3_000_000)) == 3_000_000


@pytest.mark.parametrize("status", ["500", "502", "503", "429", "404", "410"])
def test_an_error_status_is_answered_for_calls_and_images(faulty, status):
    faulty.faults.always("", (status, {"retry_after": "2"}))
    answer = fetch(faulty)
    assert (answer.status, answer.headers["Retry-After"]) == (int(status), "2")
    answer = requests.get(faulty.url, timeout=5)
    assert answer.status_code == int(status) and "html" in answer.headers["Content-Type"]


def test_429_says_retry_after_only_where_asked_to(faulty):
    faulty.faults.script("/img/", "429")
    assert fetch(faulty).headers["Retry-After"] is None


@pytest.mark.parametrize("code", PASSING_CODES)
def test_a_passing_code_fails_a_call_and_is_503_for_an_image(faulty, code):
    faulty.faults.always("", code)
    answer = call(faulty, "flickr.people.getPhotos", user_id=NSID)
    assert answer == {"stat": "fail", "code": int(code), "message": PASSING_CODES[code]}
    assert fetch(faulty).status == 503


def test_html_empty_and_garbage_are_answered_with_status_200(faulty):
    for kind, beginning in (("html", b"<!DOCTYPE html>"), ("empty", b""), ("garbage", b"\0\xff")):
        faulty.faults.clear()
        faulty.faults.always("", kind)
        for answer in (fetch(faulty), requests.get(faulty.url, timeout=5, stream=True).raw):
            body = answer.read()
            assert answer.status == 200 and body.startswith(beginning)
            assert (body == b"") == (kind == "empty")


def test_redirects_go_in_a_circle_or_to_another_scheme(faulty):
    faulty.faults.script("/img/", "redirect_loop", "redirect_scheme")
    with pytest.raises(requests.TooManyRedirects):
        requests.get(image_url(faulty, faulty.photostream.photos[0]), timeout=5)
    assert fetch(faulty).headers["Location"].startswith("ftp://")


def test_unavailable_redirects_an_image_to_the_small_picture(faulty):
    faulty.faults.always("", "unavailable")
    address = image_url(faulty, faulty.photostream.photos[0])
    assert requests.get(address, timeout=5).url == faulty.base + UNAVAILABLE_PATH
    assert requests.get(faulty.url, timeout=5).status_code == 503


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_after_any_fault_the_sandbox_serves_on_and_has_counted_it(faulty, kind):
    faulty.faults.script("/img/", kind)
    address = image_url(faulty, faulty.photostream.photos[0])
    try:
        requests.get(address, timeout=0.4, stream=True, allow_redirects=False).raw.read(2)
    except (requests.RequestException, OSError):
        assert kind == "reset"
    assert requests.get(address, timeout=5).content == whole(faulty)
    assert faulty.faults.counts == {kind: 1}
    assert [request.fault for request in faulty.requests] == [kind, None]
    assert faulty.images == 2


def test_a_script_hits_the_matching_requests_in_order_and_none_is_a_normal_answer(faulty):
    faulty.faults.script("getSizes", "500", None, "502")
    photo_id = faulty.photostream.photos[0].id
    params = {"method": "flickr.photos.getSizes", "photo_id": photo_id, "api_key": "k"}
    params |= {"format": "json"}
    statuses = []
    for _ in range(4):
        assert call(faulty, "flickr.photos.getInfo", photo_id=photo_id)["stat"] == "ok"
        statuses.append(requests.get(faulty.url, params=params, timeout=5).status_code)
    assert statuses == [500, 200, 502, 200]


def test_a_script_may_name_the_parameters_of_a_call(faulty):
    faulty.faults.script("getPhotos?format=json&nojsoncallback=1&page=2", "105")
    assert call(faulty, "flickr.people.getPhotos", page="1", user_id=NSID)["stat"] == "ok"
    assert call(faulty, "flickr.people.getPhotos", page="2", user_id=NSID)["code"] == 105


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="no such fault"):
        Faults().script("", "restart")


def test_faults_by_chance_follow_rate_seed_and_limit():
    def drawn(**options):
        faults = Faults(0.5, ("500", "502"), **options)
        return [faults.choose("image", "/img/a") for _ in range(400)]

    hits = sum(fault is not None for fault in drawn())
    assert 150 < hits < 250
    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    limited = drawn(per_request_limit=2)
    runs = "".join("x" if fault else " " for fault in limited).split()
    assert max(map(len, runs)) == 2
    assert not any(drawn(images=False))
    faults = Faults(1.0, ("unavailable",))
    assert faults.choose("api", "flickr.people.getPhotos?") is None


def test_a_short_page_lacks_rows_at_its_end_as_often_as_told():
    stream = Photostream.generated(10)
    with Sandbox(stream) as box:
        box.faults.short_page(1, drop=3)
        box.faults.short_page(2, drop=2, times=None)
        lengths = [len(listing(box, per_page=5, page=p)["photo"]) for p in (1, 1, 2, 2, 2)]
        assert lengths == [2, 5, 3, 3, 3]
        assert box.faults.counts["short_page"] == 4


# --------------------------------------------------------------------- connections and counts


def test_calls_images_bytes_and_connections_are_counted(faulty):
    session = requests.Session()
    address = image_url(faulty, faulty.photostream.photos[0])
    for _ in range(3):
        answer = session.get(address, timeout=5)
    call(faulty, "flickr.people.getPhotos", user_id=NSID)
    call(faulty, "flickr.nothing")
    assert faulty.calls == {"flickr.people.getPhotos": 1, "flickr.nothing": 1}
    assert (faulty.api_calls, faulty.images, faulty.connections) == (2, 3, 3)
    assert faulty.bytes_sent > 3 * len(answer.content)
    image, *_, last = faulty.requests
    assert (image.kind, image.http_method, image.status) == ("image", "GET", 200)
    assert image.path == address[len(faulty.base) :]
    assert image.headers["user-agent"].startswith("python-requests")
    assert image.finished >= image.started
    assert (last.kind, last.method, last.params["api_key"]) == ("api", "flickr.nothing", "k")
    faulty.reset_counts()
    assert (faulty.api_calls, faulty.images, faulty.requests) == (0, 0, [])


def test_requests_in_flight_are_counted_by_kind():
    stream = Photostream.generated(8)
    with Sandbox(stream, image_delay=0.3, api_delay=0.2) as box:
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            addresses = [image_url(box, photo) for photo in stream.photos]
            list(pool.map(lambda address: requests.get(address, timeout=5), addresses))
        assert 0.3 <= time.monotonic() - started < 1.5
        assert box.in_flight_max == {"api": 0, "image": 8}
        listing(box)
        assert box.in_flight_max["api"] == 1


def test_only_the_first_answer_on_a_connection_waits_for_connect_delay():
    with Sandbox(Photostream.generated(1), connect_delay=0.3) as box:
        session = requests.Session()
        took = []
        for _ in range(2):
            started = time.monotonic()
            session.get(image_url(box, box.photostream.photos[0]), timeout=5)
            took.append(time.monotonic() - started)
    assert took[0] >= 0.3 > took[1]


def test_two_hundred_clients_at_once_are_all_served(faulty):
    address = image_url(faulty, faulty.photostream.photos[0])
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: requests.get(address, timeout=10).content, range(200)))
    assert set(answers) == {whole(faulty)} and faulty.images == 200


def test_pipelined_requests_are_answered_in_order(faulty):
    path = image_url(faulty, faulty.photostream.photos[0])[len(faulty.base) :]
    request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", faulty.port), timeout=5) as connection:
        last = b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n"
        connection.sendall(request % path.encode() + last)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.index(whole(faulty)) < received.index(b"HTTP/1.1 404 Not Found")


def test_nonsense_on_a_connection_is_400(faulty):
    with socket.create_connection(("127.0.0.1", faulty.port), timeout=5) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_a_test_may_change_the_photostream_from_on_request():
    stream = Photostream.generated(4)

    def upload(request):
        if request.params.get("page") == "2":
            stream.add()

    with Sandbox(stream, on_request=upload) as box:
        pages = [listing(box, page=p, per_page=2) for p in (1, 2)]
    assert pages[0]["photo"][1]["id"] == pages[1]["photo"][0]["id"]


def test_a_large_answer_reaches_a_client_that_reads_slowly():
    stream = Photostream.generated(1, image_bytes=8_000_000)
    with Sandbox(stream) as box:
        answer = fetch(box)
        time.sleep(0.2)
        photo = stream.photos[0]
        assert answer.read() == image_of(photo, "o", at_least=8_000_000)[1]


def test_after_a_stop_nothing_listens_and_a_second_start_is_at_the_same_address(faulty):
    address = image_url(faulty, faulty.photostream.photos[0])
    session = requests.Session()
    session.get(address, timeout=5)
    threads = threading.active_count()
    faulty.stop()
    assert threading.active_count() == threads - 1
    with pytest.raises(requests.ConnectionError):
        session.get(address, timeout=5)
    faulty.start()
    assert session.get(address, timeout=5).content == whole(faulty)


# -------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_serves_until_a_signal_and_leaves_its_counts(tmp_path, number):
    script = Path(sandbox_module.__file__)
    stats = tmp_path / "stats.json"
    options = ["--photos", "5", "--username", "me", "--image-bytes", "9000", "--stats", stats]
    command = [sys.executable, script, *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip().removeprefix("FLICKR_API_URL=")
        base = url.removesuffix("/services/rest/")
        params = {"method": "flickr.people.getPhotos", "user_id": NSID, "api_key": "k"}
        params |= {"format": "json", "nojsoncallback": "1", "extras": "url_s"}
        row = requests.get(url, params=params, timeout=5).json()["photos"]["photo"][0]
        assert len(requests.get(row["url_s"], timeout=5).content) >= 9000
        assert len(requests.post(base + "/sandbox/add?count=2", timeout=5).json()["ids"]) == 2
        assert requests.get(base + "/sandbox/add", timeout=5).status_code == 405
        assert requests.post(base + "/sandbox/remove?id=" + row["id"], timeout=5).ok
        assert requests.post(base + "/sandbox/remove?id=1", timeout=5).status_code == 404
        live = requests.get(base + "/sandbox/stats", timeout=5).json()
        assert (live["api_calls"], live["images"], live["photos"]) == (1, 1, [6])
        os.kill(process.pid, number)
        assert process.wait(5) == 0 and process.stderr.read() == ""
    at_the_end = json.loads(stats.read_text())
    assert at_the_end["calls"] == {"flickr.people.getPhotos": 1}
    assert at_the_end["bytes_sent"] == live["bytes_sent"]
