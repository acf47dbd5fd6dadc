"""The mirror, end to end over HTTP against the sandbox (waypoints 10 to 13)."""

import io
import json
import logging
from pathlib import Path

import pytest
from conftest import KEY, SECRET, HeldClock, calls, digest_of, files_in, run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sandbox import (
    Faults,
    Photostream,
    Sandbox,
    SandboxPhoto,
    image_of,
    sizes_of,
    video_sizes_of,
)

import flickr
from flickr import CachingStrategy, FlickrPhoto, FlickrUserPhotostreamMirroringAgent, Label, Locale

SIZE_EXTRAS = {f"url_{suffix}" for suffix in flickr.SIZE_LABELS}
IMAGE_EXTRAS = SIZE_EXTRAS | {"media", "date_upload"}


def place_of(name, depth=4, username="sandbox"):
    """Where a file stands in the cache."""
    return Path(username, *name[:depth], name)


def best_of(photo):
    """The size that should be mirrored: most pixels, of equal ones the first."""
    return max(sizes_of(photo), key=lambda size: size.width * size.height)


def images_of(photo):
    """The names and the bytes of the files that a photo or a video should become."""
    best = best_of(photo)
    images = {f"{digest_of(photo)}.{best.name.rpartition('.')[2]}": image_of(photo, best.key)[1]}
    if photo.media == "video":
        images[f"{digest_of(photo)}.mp4"] = image_of(photo, video_sizes_of(photo)[0][0])[1]
    return images


def expected_images(stream, depth=4):
    """Path and bytes of every image of a photostream."""
    return {
        place_of(name, depth, stream.username): content
        for photo in stream.photos
        for name, content in images_of(photo).items()
    }


def mirrored(cache_path, suffix=None):
    """Path and bytes of every file in the cache, or those of one kind."""
    return {
        path: (cache_path / path).read_bytes()
        for path in files_in(cache_path)
        if suffix is None or path.suffix == suffix
    }


def mirrored_images(cache_path):
    return {path: each for path, each in mirrored(cache_path).items() if path.suffix != ".json"}


def mirrored_info(cache_path, photo, username="sandbox"):
    path = cache_path / place_of(f"{digest_of(photo)}.json", username=username)
    return json.loads(path.read_text(encoding="utf-8"))


def extras_asked(box):
    """The extras of the requests for the listing; they are the same in all of them."""
    [extras] = {
        request.params.get("extras", "")
        for request in box.requests
        if "getPhotos" in request.method
    }
    return set(filter(None, extras.split(",")))


def wordless(count, **options):
    """A photostream whose texts hold no words: it takes no time to tell their languages."""
    stream = Photostream.generated(count, **options)
    for number, photo in enumerate(stream.photos):
        photo.title = f"{number}. 5. 1931"
        photo.description = f"<b>{number}</b> &amp; 👏"
        photo.comments = [f"&quot;{each + number}&quot;" for each in range(len(photo.comments))]
    return stream


@pytest.fixture
def box(sandbox):
    """A sandbox of seven photos without words; the third and the sixth have comments."""
    return sandbox(wordless(7))


@pytest.fixture
def told(caplog):
    """Return the log's messages that start so: `told("Caching image")`."""
    caplog.set_level(logging.DEBUG, "flickr")
    return lambda start="": [each for each in caplog.messages if each.startswith(start)]


# ------------------------------------------------------------------------------ the layout


def test_an_image_stands_where_the_specification_says(sandbox, agent, cache_path):
    photo = SandboxPhoto("49674775373", title="Huế 1920-1929")
    box = sandbox(Photostream("manhhai", "13476480@N07", [photo]))
    agent(box).run()
    name = "fb2e16023f14649810da65b5fcbea02e"
    folder = Path("manhhai/f/b/2/e")
    assert set(files_in(cache_path)) == {folder / f"{name}.jpg", folder / f"{name}.json"}


@pytest.mark.parametrize("depth", [0, 1, 2, 31, 32])
def test_the_depth_of_the_cache_may_be_chosen(box, agent, cache_path, depth):
    agent(box, cache_directory_depth=depth, image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream, depth)


def test_the_cache_is_in_the_home_folder_unless_said_otherwise(box, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    FlickrUserPhotostreamMirroringAgent(
        "sandbox", KEY, SECRET, image_only=True, api_url=box.url
    ).run()
    assert mirrored(tmp_path / ".flickr") == expected_images(box.photostream)


def test_a_tilde_in_the_cache_path_is_the_home_folder(box, agent, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    agent(box, cache_root_path_name="~/mirror", image_only=True).run()
    assert mirrored(tmp_path / "mirror") == expected_images(box.photostream)


def test_two_users_share_a_cache(sandbox, agent, cache_path):
    streams = [
        Photostream.generated(2, username="alice", nsid="1@N01"),
        Photostream("bob", "2@N01", [SandboxPhoto("77"), SandboxPhoto("78")]),
    ]
    box = sandbox(*streams)
    for stream in streams:
        agent(box, stream.username, image_only=True).run()
    assert mirrored(cache_path) == expected_images(streams[0]) | expected_images(streams[1])


@pytest.mark.parametrize("username", ["Phạm Mạnh Hải", "a b", "名前", "x.y-z_1"])
def test_the_folder_bears_the_username_wherever_that_is_a_name_of_a_folder(
    sandbox, agent, cache_path, username
):
    box = sandbox(Photostream.generated(1, username=username))
    agent(box, image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream)


@pytest.mark.parametrize(
    "username", ["../../evil", "/etc/evil", "..", ".", "a/b", ".hidden", "a\x00b"]
)
def test_no_username_leads_out_of_the_cache(sandbox, agent, tmp_path, username):
    box = sandbox(Photostream.generated(1, username=username))
    cache_path = tmp_path / "deep" / "cache"
    agent(box, image_only=True, cache_root_path_name=cache_path).run()
    [image] = tmp_path.rglob("*.jpg")
    assert len(image.relative_to(cache_path).parts) == 6
    assert not image.relative_to(cache_path).parts[0].startswith(".")


# ------------------------------------------------------------------------------ the images


def test_every_photo_is_mirrored_at_its_best_size_to_the_byte(box, agent, cache_path):
    result = agent(box, image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream)
    assert result.complete
    assert (result.images, result.infos, result.photo_count) == (7, 0, 7)


def test_what_is_kept_is_what_the_image_host_gave(box, agent, cache_path):
    agent(box, image_only=True).run()
    asked = [request.path for request in box.requests if request.kind == "image"]
    assert sorted(box.image_bytes_for(path) for path in asked) == sorted(
        mirrored(cache_path).values()
    )


def test_originals_that_are_png_or_gif_keep_their_extension(sandbox, agent, cache_path):
    photos = [
        SandboxPhoto("1001", original_format="png"),
        SandboxPhoto("1002", original_format="gif", width=1300, height=1300),
        SandboxPhoto("1003", width=1300, height=1300),
    ]
    # Where a re-encoded size has as many pixels it comes first, and is a JPEG.
    box = sandbox(Photostream(photos=photos))
    agent(box, image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream)
    assert [best_of(photo).label for photo in photos] == ["Large", "Original", "Original"]
    kinds = {Image.open(io.BytesIO(each)).format for each in mirrored(cache_path, ".gif").values()}
    assert kinds == {"GIF"}


def test_where_the_original_is_kept_back_the_largest_other_size_is_mirrored(
    sandbox, agent, cache_path
):
    box = sandbox(Photostream.generated(6, hidden_originals_every=1))
    agent(box, image_only=True).run()
    assert all(best_of(photo).key != "o" for photo in box.photostream.photos)
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_a_video_becomes_a_poster_and_a_film(sandbox, agent, cache_path):
    box = sandbox(Photostream.generated(8, videos_every=2))
    agent(box, image_only=True).run()
    assert len(mirrored(cache_path, ".mp4")) == 4
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_a_photostream_of_everything_is_mirrored_whole(sandbox, agent, cache_path):
    box = sandbox(
        Photostream.generated(
            60, videos_every=7, hidden_originals_every=5, png_every=4, gif_every=3
        )
    )
    assert agent(box, per_page=25).run().complete
    assert mirrored_images(cache_path) == expected_images(box.photostream)
    assert len(mirrored(cache_path, ".json")) == 60


def test_an_empty_photostream_is_mirrored_as_nothing(sandbox, agent, cache_path):
    box = sandbox(Photostream())
    result = agent(box, info_level=2).run()
    assert result.complete
    assert (result.images, result.infos, result.photo_count) == (0, 0, 0)
    assert list(files_in(cache_path)) == []


def test_an_image_is_asked_for_over_connections_that_are_kept(sandbox, agent):
    box = sandbox(Photostream.generated(30))
    agent(box, image_only=True, jobs=2).run()
    assert box.images == 30
    assert box.connections <= 4


def test_no_more_images_are_asked_for_at_a_time_than_jobs_allow(sandbox, agent):
    box = sandbox(Photostream.generated(20), image_delay=0.02)
    agent(box, image_only=True, jobs=3).run()
    assert box.in_flight_max["image"] == 3


def test_every_request_names_the_program(box, agent):
    agent(box, info_level=2).run()
    assert {request.kind for request in box.requests} == {"api", "image"}
    assert {request.headers["user-agent"].split("/")[0] for request in box.requests} == {
        "mirror-flickr"
    }


def test_images_go_through_the_environments_proxy_too(box, sandbox, agent, monkeypatch, cache_path):
    # The proxy, another sandbox, answers for the first one: it holds the same photos.
    proxy = sandbox(box.photostream)
    monkeypatch.setenv("HTTP_PROXY", proxy.base)
    agent(box, image_only=True).run()
    assert box.requests == []
    assert proxy.images == 7
    assert mirrored(cache_path) == expected_images(box.photostream)


# --------------------------------------------------------------------------------- order


@pytest.mark.parametrize(
    ("strategy", "pages"),
    [(CachingStrategy.LIFO, [1, 2, 3]), (CachingStrategy.FIFO, [3, 2, 1])],
)
def test_photos_are_mirrored_in_the_order_of_the_strategy_within_pages_too(
    box, agent, told, strategy, pages
):
    agent(box, image_only=True, caching_strategy=strategy, jobs=1, per_page=3).run()
    photos = box.photostream.photos
    if strategy is CachingStrategy.LIFO:
        photos = photos[::-1]
    assert told("Caching image of photo") == [
        f"Caching image of photo {digest_of(photo)}..." for photo in photos
    ]
    assert told("Scanning page")[:3] == [f"Scanning page {page}/3..." for page in pages]


@pytest.mark.parametrize("strategy", list(CachingStrategy))
def test_images_are_fetched_in_the_order_of_the_strategy(box, agent, strategy):
    agent(box, image_only=True, caching_strategy=strategy, jobs=1, per_page=2).run()
    asked = [request.path.split("/")[-1] for request in box.requests if request.kind == "image"]
    ids = [photo.id for photo in box.photostream.photos]
    assert [name.split("_")[0] for name in asked] == (
        ids if strategy is CachingStrategy.FIFO else ids[::-1]
    )


def test_newest_first_is_what_happens_unless_said_otherwise(box, agent, told):
    agent(box, image_only=True, jobs=1).run()
    newest, oldest = box.photostream.photos[-1], box.photostream.photos[0]
    lines = told("Caching image")
    assert digest_of(newest) in lines[0]
    assert digest_of(oldest) in lines[-1]


@pytest.mark.parametrize(("option", "first"), [("--fifo", 2), ("--lifo", 1), ("--debug=3", 1)])
def test_the_command_line_takes_both_strategies(sandbox, mirror, option, first):
    # No titles: no languages to be told, which is quick.
    photos = [SandboxPhoto(str(number)) for number in range(1001, 1502)]
    run = mirror(sandbox(Photostream(photos=photos)), "--info-only", option)
    assert run.returncode == 0
    assert run.stderr.splitlines()[0].endswith(f" [INFO] Scanning page {first}/2...")


def test_an_agent_without_any_logging_set_up_shows_its_progress(box, cache_path):
    program = (
        "from flickr import *\n"
        "FlickrUserPhotostreamMirroringAgent("
        f"'sandbox', {KEY!r}, {SECRET!r}, {str(cache_path)!r}, image_only=True).run()"
    )
    shown = run_python("-c", program, box=box).stderr.splitlines()
    assert len(shown) == 8
    assert shown[0].endswith(" [INFO] Scanning page 1/1...")


# --------------------------------------------------------------------------- information


def label(content, locale=None):
    return {"content": content, "locale": locale or str(flickr.detect_locale(content))}


def info_of(photo, level):
    info = {"title": label(photo.title)}
    if level >= 1:
        info["description"] = label(photo.description)
    if level >= 2:
        info["comments"] = [label(comment) for comment in photo.comments]
    return info


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_information_file_holds_exactly_what_its_level_says(sandbox, agent, cache_path, level):
    box = sandbox(Photostream.generated(7))
    agent(box, info_level=level).run()
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, level)


def test_the_information_is_the_specifications(sandbox, agent, cache_path):
    title = "Đoàn công tác SV ĐH Kiến Trúc Sài Gòn tại Côn Đảo, tháng 3-1976"
    comments = [
        "Dear PhamOrama:Cám ơn bạn đã hỏi thăm, tôi vẫn sống ở VN từ 1975.",
        "Internet ngon nhieu gio cua toi, nen thu that hom nay moi re-install. Manh Hai post tam"
        " anh &quot;so cute&quot;. Con nit ben nay khon lanh hon tuoi nho cua chung ta nhieu lam.",
        "[https://www.flickr.com/photos/13476480@N07/1718051545/in/photostream/]",
    ]
    photo = SandboxPhoto("1718051545", title=title, comments=comments)
    box = sandbox(Photostream(photos=[photo]))
    agent(box, info_only=True, info_level=2).run()
    assert mirrored_info(cache_path, photo) == {
        "title": {"content": title, "locale": "vie"},
        "description": {"content": "", "locale": "eng"},
        "comments": [
            {"content": comments[0], "locale": "vie"},
            {"content": comments[1], "locale": "vie"},
            {"content": comments[2], "locale": "eng"},
        ],
    }


def test_an_information_file_can_be_read_by_people(sandbox, agent, cache_path):
    title = "Chợ nổi lúc bình minh – 第2张 – “Straße” 🛶"
    box = sandbox(Photostream(photos=[SandboxPhoto("1001", title=title)]))
    agent(box, info_only=True).run()
    [content] = mirrored(cache_path).values()
    assert title in content.decode("utf-8")
    assert b"\\u" not in content
    assert content.count(b"\n") > 1


def test_texts_are_mirrored_to_the_letter(sandbox, agent, cache_path):
    text = ' \t<b>a</b>&quot;"\\\n\r\n\u2028 e\u0301 \ufeff\x07 &amp;amp; </script> \U0001f6f6 '
    photo = SandboxPhoto("1001", title=text, description=text, comments=[text, "", text])
    box = sandbox(Photostream(photos=[photo]))
    agent(box, info_only=True, info_level=2).run()
    assert mirrored_info(cache_path, photo) == info_of(photo, 2)


def test_image_only_mirrors_no_information(box, agent, cache_path):
    agent(box, image_only=True).run()
    assert mirrored(cache_path, ".json") == {}
    assert len(mirrored(cache_path, ".jpg")) == 7


def test_info_only_mirrors_no_images(box, agent, cache_path):
    agent(box, info_only=True, info_level=2).run()
    assert len(mirrored(cache_path)) == len(mirrored(cache_path, ".json")) == 7
    assert box.images == 0


def test_images_and_titles_are_mirrored_unless_said_otherwise(box, agent, cache_path):
    agent(box).run()
    assert mirrored_images(cache_path) == expected_images(box.photostream)
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, 0)


# ----------------------------------------------------------- nothing that is not used


@pytest.mark.parametrize(
    ("options", "extras"),
    [
        ({"image_only": True}, IMAGE_EXTRAS),
        ({"info_only": True}, {"last_update"}),
        ({"info_only": True, "info_level": 1}, {"last_update", "description"}),
        (
            {"info_only": True, "info_level": 2},
            {"last_update", "description", "count_comments"},
        ),
        ({}, IMAGE_EXTRAS | {"last_update"}),
        ({"info_level": 1}, IMAGE_EXTRAS | {"last_update", "description"}),
        ({"info_level": 2}, IMAGE_EXTRAS | {"last_update", "description", "count_comments"}),
    ],
)
def test_the_listing_is_asked_for_exactly_what_is_used(box, agent, options, extras):
    agent(box, **options).run()
    assert extras_asked(box) == extras


@pytest.mark.parametrize(
    "options",
    [{"image_only": True}, {"info_only": True}, {}, {"info_level": 1}],
    ids=["images", "titles", "images and titles", "descriptions"],
)
def test_the_listing_is_enough_for_everything_but_comments(box, agent, options):
    agent(box, **options).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def test_a_photo_without_comments_costs_no_call(box, agent):
    agent(box, info_level=2).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getList": 2}
    asked = {request.params["photo_id"] for request in box.requests if "getList" in request.method}
    assert asked == {photo.id for photo in box.photostream.photos if photo.comments}


def test_only_videos_cost_a_call_for_their_sizes(sandbox, agent):
    box = sandbox(Photostream.generated(7, videos_every=3))
    agent(box, image_only=True).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getSizes": 2}
    assert box.images == 9 + 2  # a film's address leads to another one


def test_one_image_a_photo_is_fetched(box, agent):
    agent(box, info_level=2).run()
    assert box.images == 7


def test_pages_are_as_long_as_flickr_allows(sandbox, agent):
    box = sandbox(Photostream.generated(1))
    agent(box, image_only=True).run()
    [request] = [request for request in box.requests if "getPhotos" in request.method]
    assert request.params["per_page"] == "500"


# --------------------------------------------------------------------------- another run


@pytest.mark.parametrize("strategy", list(CachingStrategy))
def test_a_second_run_fetches_nothing(sandbox, agent, cache_path, strategy):
    box = sandbox(wordless(7, videos_every=3, png_every=2))
    options = {"info_level": 2, "caching_strategy": strategy}
    agent(box, **options).run()
    before = mirrored(cache_path)
    box.reset_counts()
    result = agent(box, **options).run()
    assert (result.images, result.infos, result.size, result.complete) == (0, 0, 0, True)
    assert box.images == 0
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert mirrored(cache_path) == before


def test_the_same_agent_may_run_again(box, agent, cache_path):
    again = agent(box, image_only=True)
    assert again.run().images == 7
    box.photostream.add(2)
    assert again.run().images == 2
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_an_agent_may_be_used_after_its_run(box, agent, cache_path):
    used = agent(box, image_only=True)
    used.run()
    photo = FlickrPhoto(box.photostream.photos[0].id, "")
    (cache_path / place_of(photo.image_filename)).unlink()
    used._FlickrUserPhotostreamMirroringAgent__download_photo_image(photo)
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_only_new_photos_are_fetched(box, agent, cache_path):
    agent(box, info_level=2).run()
    box.reset_counts()
    box.photostream.add(3)
    result = agent(box, info_level=2).run()
    assert (result.images, result.infos) == (3, 3)
    assert box.images == 3
    assert mirrored_images(cache_path) == expected_images(box.photostream)


@pytest.mark.parametrize("lost", [1, 7])
def test_an_image_that_is_missing_on_the_newest_page_is_fetched_again(box, agent, cache_path, lost):
    agent(box, info_level=2).run()
    before = mirrored(cache_path)
    for path in list(mirrored_images(cache_path))[:lost]:
        (cache_path / path).unlink()
    box.reset_counts()
    result = agent(box, info_level=2).run()
    assert mirrored(cache_path) == before
    assert box.images == result.images == lost
    assert result.infos == 0
    assert "getList" not in calls(box)


@pytest.mark.parametrize("suffix", [".mp4", ".jpg"])
def test_half_of_a_video_that_is_missing_on_the_newest_page_is_fetched_again(
    sandbox, agent, cache_path, suffix
):
    box = sandbox(Photostream.generated(2, videos_every=1))
    agent(box, image_only=True).run()
    for path in mirrored(cache_path, suffix):
        (cache_path / path).unlink()
    agent(box, image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_another_depth_than_the_mirrors_is_refused(box, agent, cache_path):
    agent(box, image_only=True).run()
    before = mirrored(cache_path)
    with pytest.raises(flickr.MirrorError, match="4") as caught:
        agent(box, image_only=True, cache_directory_depth=2).run()
    assert caught.value.status == 2
    assert mirrored(cache_path) == before


def test_information_that_is_missing_on_the_newest_page_is_fetched_again(box, agent, cache_path):
    agent(box, info_level=2).run()
    before = mirrored(cache_path)
    (cache_path / list(mirrored(cache_path, ".json"))[0]).unlink()
    box.reset_counts()
    assert agent(box, info_level=2).run().infos == 1
    assert mirrored(cache_path) == before
    assert box.images == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"title": "x"}', b'{"title": {"content": "x"}}', b"\xff", b"[" * 100_000],
    ids=["empty", "cut", "list", "text", "no locale", "binary", "deep"],
)
def test_a_damaged_information_file_is_written_anew(sandbox, agent, cache_path, content):
    box = sandbox(wordless(3))
    agent(box, info_only=True, info_level=1).run()
    before = mirrored(cache_path)
    (cache_path / list(before)[0]).write_bytes(content)
    agent(box, info_only=True, info_level=1).run()
    assert mirrored(cache_path) == before


@pytest.mark.parametrize("levels", [(0, 1), (0, 2), (1, 2)])
def test_a_higher_level_fills_in_what_the_files_lack(box, agent, cache_path, levels):
    lower, higher = levels
    agent(box, info_level=lower).run()
    box.reset_counts()
    result = agent(box, info_level=higher).run()
    assert (result.images, result.infos) == (0, 7)
    assert box.images == 0
    assert "getInfo" not in calls(box)
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, higher)


@pytest.mark.parametrize("levels", [(1, 0), (2, 0), (2, 1)])
def test_a_lower_level_does_not_degrade_the_files(box, agent, cache_path, levels):
    higher, lower = levels
    agent(box, info_level=higher).run()
    before = mirrored(cache_path)
    assert agent(box, info_level=lower).run().infos == 0
    assert mirrored(cache_path) == before


def test_images_are_added_to_a_mirror_of_information(box, agent, cache_path):
    agent(box, info_only=True, info_level=2).run()
    infos = mirrored(cache_path)
    box.reset_counts()
    result = agent(box, image_only=True).run()
    assert (result.images, result.infos) == (7, 0)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert mirrored(cache_path) == infos | expected_images(box.photostream)


def test_information_is_added_to_a_mirror_of_images(box, agent, cache_path):
    agent(box, image_only=True).run()
    box.reset_counts()
    result = agent(box, info_level=1).run()
    assert (result.images, result.infos, box.images) == (0, 7, 0)
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, 1)


@pytest.mark.parametrize("strategy", list(CachingStrategy))
def test_a_run_that_was_stopped_goes_on_where_it_was(sandbox, agent, cache_path, strategy):
    options = {"image_only": True, "caching_strategy": strategy, "jobs": 1, "per_page": 3}
    stopped = None

    def stop_at_the_fifth(request):
        if request.kind == "image" and box.images == 5:
            stopped.stop()

    box = sandbox(Photostream.generated(9), on_request=stop_at_the_fifth, image_delay=0.02)
    stopped = agent(box, **options)
    with pytest.raises(flickr.Stopped):
        stopped.run()
    done = len(mirrored(cache_path))
    assert 4 <= done <= 5
    box.on_request = None
    box.reset_counts()
    assert agent(box, **options).run().images == 9 - done
    assert box.images == 9 - done
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_an_agent_that_was_stopped_may_run_again(sandbox, agent, cache_path):
    stopped = None

    def stop_once(request):
        if request.kind == "image":
            box.on_request = None
            stopped.stop()

    box = sandbox(Photostream.generated(9), on_request=stop_once, image_delay=0.05)
    stopped = agent(box, image_only=True, jobs=4)
    with pytest.raises(flickr.Stopped):
        stopped.run()
    assert stopped.run().complete
    assert mirrored(cache_path) == expected_images(box.photostream)


# ------------------------------------------------------ a server without the extras


def test_a_server_without_any_extras_still_gives_a_whole_mirror(sandbox, agent, cache_path):
    box = sandbox(wordless(7, png_every=2), plain=True)
    agent(box, info_level=2).run()
    assert mirrored_images(cache_path) == expected_images(box.photostream)
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, 2)
    assert calls(box) == {
        "findByUsername": 1, "getPhotos": 1, "getSizes": 7, "getInfo": 7, "getList": 7,
    }  # fmt: skip


def test_a_server_without_any_extras_still_gives_the_films_of_videos(sandbox, agent, cache_path):
    box = sandbox(Photostream.generated(4, videos_every=2), plain=True)
    agent(box, image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_without_extras_only_what_is_used_is_asked_for(sandbox, agent):
    box = sandbox(wordless(7), plain=True)
    agent(box, info_only=True, info_level=0).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    agent(box, image_only=True).run()
    assert calls(box) == {"findByUsername": 2, "getPhotos": 2, "getSizes": 7}
    agent(box, info_only=True, info_level=1).run()
    assert calls(box) == {"findByUsername": 3, "getPhotos": 3, "getSizes": 7, "getInfo": 7}


def test_without_extras_what_a_file_already_says_is_not_asked_for_again(sandbox, agent, cache_path):
    box = sandbox(wordless(4), plain=True)
    agent(box, info_only=True, info_level=1).run()
    box.reset_counts()
    agent(box, info_only=True, info_level=2).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getList": 4}
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, 2)


def test_without_extras_a_second_run_asks_nothing_about_any_photo(sandbox, agent):
    box = sandbox(wordless(5, videos_every=2), plain=True)
    agent(box, info_level=2).run()
    box.reset_counts()
    agent(box, info_level=2).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0


@pytest.mark.parametrize(
    ("missing", "method", "count"),
    [
        (["count_comments"], "getList", 7),
        (["description"], "getInfo", 7),
        (sorted(SIZE_EXTRAS), "getSizes", 7),
    ],
    ids=["count_comments", "description", "sizes"],
)
def test_what_the_listing_leaves_out_is_asked_for_of_each_photo(
    sandbox, agent, cache_path, missing, method, count
):
    box = sandbox(wordless(7), missing_extras=missing)
    assert agent(box, info_level=2).run().complete
    assert calls(box)[method] == count
    assert mirrored_images(cache_path) == expected_images(box.photostream)
    for photo in box.photostream.photos:
        assert mirrored_info(cache_path, photo) == info_of(photo, 2)


# ------------------------------------------------------------------------- the agent


def test_the_user_of_an_agent_is_the_specifications(sandbox, agent):
    box = sandbox(Photostream("manhhai", "13476480@N07"))
    mirroring_agent = agent(box, "manhhai")
    assert repr(mirroring_agent.user).startswith("<FlickrUser object at 0x")
    assert mirroring_agent.user.id == "13476480@N07"
    assert mirroring_agent.user.username == "manhhai"
    assert box.calls == {"flickr.people.findByUsername": 1}
    with pytest.raises(AttributeError):
        mirroring_agent.user = None


def test_the_user_of_an_agent_is_named_as_flickr_names_it(sandbox, agent, cache_path):
    box = sandbox(Photostream.generated(1, username="ManhHai"))
    agent(box, "manhhai", image_only=True).run()
    assert mirrored(cache_path) == expected_images(box.photostream)


def test_the_private_method_of_waypoint_11_downloads_the_best_image(sandbox, agent, cache_path):
    box = sandbox(Photostream("manhhai", "13476480@N07", [SandboxPhoto("49674775373", width=4032)]))
    title = Label("Huế 1920-1929 - Chez un grand mandarin : avant le repas", Locale("fra"))
    photo = FlickrPhoto("49674775373", title)
    agent(box)._FlickrUserPhotostreamMirroringAgent__download_photo_image(photo)
    best = best_of(box.photostream.photos[0])
    assert photo.best_size.url == f"{box.base}/img/{best.server}/{best.name}"
    assert photo.image_filename == "fb2e16023f14649810da65b5fcbea02e.jpg"
    path = cache_path / "manhhai/f/b/2/e/fb2e16023f14649810da65b5fcbea02e.jpg"
    assert path.read_bytes() == box.image_bytes_for(photo.best_size.url)
    assert list(files_in(cache_path)) == [path.relative_to(cache_path)]


def test_the_private_method_of_waypoint_11_uses_the_sizes_that_a_photo_has(sandbox, agent):
    box = sandbox(Photostream.generated(1))
    photo = FlickrPhoto(box.photostream.photos[0].id, "")
    mirroring_agent = agent(box)
    photo.sizes = flickr.FlickrApi(KEY, SECRET, url=box.url).get_photo_sizes(photo.id)
    mirroring_agent._FlickrUserPhotostreamMirroringAgent__download_photo_image(photo)
    assert calls(box) == {"getSizes": 1, "findByUsername": 1}
    assert box.images == 1


def test_the_arguments_of_an_agent_have_the_specifications_names(box, cache_path):
    mirroring_agent = FlickrUserPhotostreamMirroringAgent(
        username="sandbox",
        flickr_consumer_key=KEY,
        flickr_consumer_secret=SECRET,
        cache_root_path_name=str(cache_path),
        cache_directory_depth=2,
        image_only=False,
        info_level=1,
        info_only=True,
        caching_strategy=CachingStrategy.FIFO,
        api_url=box.url,
    )
    mirroring_agent.run()
    photo = box.photostream.photos[0]
    assert (cache_path / place_of(f"{digest_of(photo)}.json", depth=2)).is_file()


@pytest.mark.parametrize(
    "options",
    [
        {"image_only": True, "info_only": True},
        {"image_only": True, "info_level": 1},
        {"image_only": True, "info_level": 2},
        {"info_level": -1},
        {"info_level": flickr.HIGHEST_INFO_LEVEL + 1},
        {"info_level": "2"},
        {"info_level": None},
        {"cache_directory_depth": -1},
        {"cache_directory_depth": 33},
        {"cache_directory_depth": "4"},
        {"username": " "},
        {"username": "\t\n"},
        {"jobs": 0},
        {"jobs": 65},
        {"calls_per_hour": 0},
        {"per_page": 0},
        {"per_page": 501},
        {"verify_image": True, "info_only": True},
    ],
    ids=str,
)
def test_arguments_that_contradict_or_make_no_sense_are_an_error_before_any_request(
    box, agent, cache_path, options
):
    with pytest.raises(ValueError):
        agent(box, **options)
    assert box.requests == []
    assert not cache_path.exists()


def test_an_empty_username_is_an_error(box):
    with pytest.raises(ValueError, match="username"):
        FlickrUserPhotostreamMirroringAgent("", KEY, SECRET, api_url=box.url)


@pytest.mark.parametrize("strategy", [1, 2, "FIFO", "fifo", None, CachingStrategy])
def test_a_strategy_of_another_type_is_a_type_error_before_any_request(box, agent, strategy):
    with pytest.raises(TypeError):
        agent(box, caching_strategy=strategy)
    assert box.requests == []


def test_an_unknown_user_is_an_error_and_leaves_nothing(box, agent, cache_path):
    with pytest.raises(flickr.FlickrError) as caught:
        agent(box, "Elena Shumilova").run()
    assert str(caught.value) == "User not found"
    assert not cache_path.exists()


# ------------------------------------------------------------------- photos that are gone


@pytest.mark.parametrize(
    "options", [{"image_only": True}, {"info_level": 2}], ids=["images", "all"]
)
def test_photos_that_are_gone_are_reported_and_the_others_mirrored(
    sandbox, agent, cache_path, told, options
):
    box = sandbox(wordless(7))
    gone = box.photostream.photos[2]  # one with comments
    gone.gone = True
    result = agent(box, clock=HeldClock(), **options).run()
    assert not result.complete
    assert set(result.unavailable) == {gone.id}
    assert any(gone.id in line for line in told("Photo "))
    expected = expected_images(box.photostream)
    del expected[place_of(f"{digest_of(gone)}.jpg")]
    assert mirrored_images(cache_path) == expected


def test_the_picture_that_says_unavailable_is_never_kept_as_the_photo(sandbox, agent, cache_path):
    # It is a GIF: only where the photo's own image is one too could it pass for it.
    photos = [SandboxPhoto("1001", original_format="gif", width=1300), SandboxPhoto("1002")]
    box = sandbox(Photostream(photos=photos))
    box.faults.always("/img/", "unavailable")
    result = agent(box, image_only=True, clock=HeldClock()).run()
    assert mirrored(cache_path) == {}
    assert set(result.unavailable) == {"1001", "1002"}


@pytest.mark.parametrize("fault", ["404", "410", "unavailable"])
def test_a_photo_without_image_keeps_its_information(sandbox, agent, cache_path, fault):
    faults = Faults()
    box = sandbox(wordless(3), faults=faults)
    photo = box.photostream.photos[0]
    faults.always(f"/{photo.id}_", fault)
    result = agent(box, clock=HeldClock()).run()
    assert set(result.unavailable) == {photo.id}
    assert mirrored_info(cache_path, photo) == info_of(photo, 0)
    assert len(mirrored_images(cache_path)) == 2


def test_a_photo_that_goes_wrong_for_now_is_fetched_by_the_next_run(sandbox, agent, cache_path):
    faults = Faults()
    box = sandbox(Photostream.generated(5), faults=faults)
    photo = box.photostream.photos[1]
    faults.always(f"/{photo.id}_", "500")
    result = agent(box, image_only=True, clock=HeldClock()).run()
    assert set(result.failed) == {photo.id}
    assert len(mirrored(cache_path)) == 4
    faults.clear()
    assert agent(box, image_only=True).run().images == 1
    assert mirrored(cache_path) == expected_images(box.photostream)


@pytest.mark.parametrize("fault", ["reset", "cut", "lying_length_long", "html", "garbage", "503"])
def test_trouble_that_passes_leaves_no_trace_in_the_mirror(sandbox, agent, cache_path, fault):
    box = sandbox(Photostream.generated(4))
    for photo in box.photostream.photos:
        box.faults.script(f"/{photo.id}_", fault, fault)
    assert agent(box, image_only=True, clock=HeldClock()).run().complete
    assert mirrored(cache_path) == expected_images(box.photostream)
    assert box.images == 12


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(0, 9),
    per_page=st.integers(1, 5),
    strategy=st.sampled_from(CachingStrategy),
    added=st.integers(0, 5),
)
def test_every_photostream_is_mirrored_whole_whatever_the_pages(
    tmp_path_factory, count, per_page, strategy, added
):
    stream = Photostream.generated(count)
    root = tmp_path_factory.mktemp("mirror")
    with Sandbox(stream) as box:
        for _ in range(2):
            mirroring_agent = FlickrUserPhotostreamMirroringAgent(
                "sandbox", KEY, SECRET, root, image_only=True, caching_strategy=strategy,
                per_page=per_page, api_url=box.url, jobs=2,
            )  # fmt: skip
            assert mirroring_agent.run().complete
            assert mirrored(root) == expected_images(stream)
            stream.add(added)
