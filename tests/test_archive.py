"""Videos, originals, level 3, dry runs and the library: what an archivist asks for (issue 6).

Where the language of a text does not matter, texts are digits, which take no time to tell.
"""

import doctest
import json
import os
import re
import threading
from pathlib import Path

import pytest
from conftest import ROOT, bytes_of, calls, digest_of, files_in, info_of, path_of, run_python
from sandbox import Photostream, SandboxPhoto, image_of, video_sizes_of

import flickr

SMALL = {"title": "1", "description": "2", "width": 64, "height": 64}


def photo_of(number, **fields):
    return SandboxPhoto(str(1_000_000 + 7 * number), **(SMALL | fields))


def video_of(number, **fields):
    return photo_of(number, media="video", **fields)


def labels_of(video):
    """The labels of a video's playable files, best first."""
    return [label for label, _, _ in video_sizes_of(video)]


def new_video(**fields):
    """A video that comes as 1080p, 720p and 360p."""
    candidates = (video_of(number, width=1920, height=1080, **fields) for number in range(99))
    return next(each for each in candidates if labels_of(each) == ["1080p", "720p", "360p"])


def old_video(dimension):
    """A video that comes as 700 and iphone_wifi, whose width and height are "" or null."""
    return next(
        each
        for each in map(video_of, range(99))
        if video_sizes_of(each) == [("700", dimension, dimension)] + video_sizes_of(each)[1:]
    )


def files_of(cache_path, photo):
    """The suffixes of the files of a photo."""
    names = [path.name for path in files_in(cache_path)]
    return sorted(name[32:] for name in names if name.startswith(digest_of(photo)))


def image_paths(box):
    return [request.path for request in box.requests if request.kind == "image"]


# ---------------------------------------------------------------------------------- videos


def test_a_video_is_its_best_film_and_its_poster_under_one_digest(sandbox, run, cache_path):
    video = new_video()
    assert run(sandbox(Photostream(photos=[video]))).complete
    assert files_of(cache_path, video) == [".jpg", ".json", ".mp4"]
    assert path_of(cache_path, video, ".mp4").read_bytes() == image_of(video, "1080p")[1]
    assert path_of(cache_path, video, ".jpg").read_bytes() == bytes_of(video)


@pytest.mark.parametrize("dimension", [None, ""])
def test_a_film_whose_dimensions_flickr_does_not_tell_is_mirrored(
    sandbox, run, cache_path, dimension
):
    video = old_video(dimension)
    assert run(sandbox(Photostream(photos=[video]))).complete
    assert path_of(cache_path, video, ".mp4").read_bytes() == image_of(video, "700")[1]


@pytest.mark.parametrize("fault", ["404", "410", "html", "unavailable", "empty", "garbage"])
def test_where_the_best_film_is_none_the_next_one_is_taken(sandbox, run, cache_path, fault):
    video = new_video()
    box = sandbox(Photostream(photos=[video]))
    box.faults.always("/play/1080p/", fault)
    assert run(box).complete
    assert path_of(cache_path, video, ".mp4").read_bytes() == image_of(video, "720p")[1]


def test_where_only_the_last_film_is_one_it_is_taken(sandbox, run, cache_path):
    video = new_video()
    box = sandbox(Photostream(photos=[video]))
    box.faults.always("/play/1080p/", "html")
    box.faults.always("/play/720p/", "404")
    assert run(box).complete
    assert path_of(cache_path, video, ".mp4").read_bytes() == image_of(video, "360p")[1]


def test_the_films_are_tried_in_the_order_of_their_ranking(sandbox, run):
    video = new_video()
    box = sandbox(Photostream(photos=[video]))
    box.faults.always("/play/", "404")
    run(box)
    played = [path.split("/play/")[1].split("/")[0] for path in image_paths(box) if "play" in path]
    assert played == ["1080p", "720p", "360p"]


def test_a_best_film_that_fails_for_now_is_waited_for(sandbox, run, cache_path):
    """A smaller film would stay in the mirror for ever."""
    video = new_video()
    box = sandbox(Photostream(photos=[video]))
    box.faults.always("/play/1080p/", "500")
    assert list(run(box).failed) == [video.id]
    assert not path_of(cache_path, video, ".mp4").exists()
    box.faults.clear()
    assert run(box).complete
    assert path_of(cache_path, video, ".mp4").read_bytes() == image_of(video, "1080p")[1]


def test_the_flash_player_and_the_owners_own_file_are_never_asked_for(sandbox, run):
    videos = [video_of(number) for number in range(12)]
    box = sandbox(Photostream(photos=videos))
    box.faults.always("/play/", "404")
    result = run(box)
    assert len(result.unavailable) == 12
    assert not [each.path for each in box.requests if "stewart" in each.path]
    assert not [path for path in image_paths(box) if "/play/orig/" in path]


def test_a_video_without_any_film_is_told_and_not_asked_for_again(sandbox, run, cache_path):
    video = new_video()
    box = sandbox(Photostream(photos=[video]))
    box.faults.always("/play/", "404")
    assert list(run(box).unavailable) == [video.id]
    assert path_of(cache_path, video, ".jpg").read_bytes() == bytes_of(video)
    run(box)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0


# ------------------------------------------------------------------------------ photos only


@pytest.fixture
def mixed():
    """Six photos and videos by turns."""
    return Photostream(
        photos=[photo_of(each, media="video" if each % 2 else "photo") for each in range(6)]
    )


def test_photos_only_leaves_out_videos_poster_film_and_texts(sandbox, run, cache_path, mixed):
    result = run(sandbox(mixed), photos_only=True)
    assert result.complete
    assert (result.images, result.infos) == (3, 3)
    for photo in mixed.photos:
        files = [] if photo.media == "video" else [".jpg", ".json"]
        assert files_of(cache_path, photo) == files


def test_videos_that_are_left_out_cost_no_api_call(sandbox, run, mixed):
    box = sandbox(mixed)
    run(box, photos_only=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


@pytest.mark.parametrize(
    ("options", "suffixes"),
    [
        ({}, {".jpg", ".mp4", ".json"}),
        ({"info_level": 2}, {".jpg", ".mp4", ".json"}),
        ({"image_only": True}, {".jpg", ".mp4"}),
        ({"info_only": True}, {".json"}),
    ],
)
def test_a_later_run_without_photos_only_fetches_the_videos(
    sandbox, run, cache_path, mixed, options, suffixes
):
    box = sandbox(mixed)
    run(box, photos_only=True, per_page=2, **options)
    result = run(box, per_page=2, **options)
    assert result.complete
    assert {result.images, result.infos} - {0} == {3}
    for photo in mixed.photos:
        expected = suffixes if photo.media == "video" else suffixes - {".mp4"}
        assert set(files_of(cache_path, photo)) == expected


@pytest.mark.parametrize("options", [{}, {"info_level": 2}, {"info_only": True}])
def test_a_mirror_of_photos_that_is_up_to_date_costs_two_calls(sandbox, run, mixed, options):
    box = sandbox(mixed)
    run(box, photos_only=True, per_page=2, **options)
    run(box, photos_only=True, per_page=2, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0


def test_a_mirror_that_had_its_videos_fetched_later_is_up_to_date(sandbox, run, mixed):
    box = sandbox(mixed)
    run(box, photos_only=True, per_page=2)
    run(box, per_page=2)
    for options in ({}, {"photos_only": True}):
        run(box, per_page=2, **options)
        assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def test_videos_that_are_mirrored_stay_through_a_run_for_photos_only(
    sandbox, run, cache_path, mixed
):
    box = sandbox(mixed)
    run(box)
    before = list(files_in(cache_path))
    run(box, photos_only=True)
    run(box, photos_only=True, refresh=True)
    assert list(files_in(cache_path)) == before


def test_photos_only_is_an_option_of_the_program(sandbox, mirror, cache_path, mixed):
    run = mirror(sandbox(mixed), "--photos-only")
    assert run.returncode == 0
    assert "3 new images and 3 new information files" in run.stdout
    assert list(cache_path.rglob("*.mp4")) == []


# -------------------------------------------------------------------------- prefer original


def sizes_asked(box):
    """The ends of the addresses of the images asked for: "b.jpg", "o.png"."""
    return [path.rpartition("_")[2] for path in image_paths(box)]


@pytest.mark.parametrize(
    ("options", "asked", "key"), [({}, "b.jpg", "l"), ({"prefer_original": True}, "o.jpg", "o")]
)
def test_of_equal_sizes_the_first_is_taken_unless_the_original_is_preferred(
    sandbox, run, cache_path, options, asked, key
):
    photo = photo_of(1, width=1024, height=768)
    box = sandbox(Photostream(photos=[photo]))
    run(box, **options)
    assert sizes_asked(box) == [asked]
    assert path_of(cache_path, photo, ".jpg").read_bytes() == image_of(photo, key)[1]


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_preferred_original_keeps_its_own_extension(sandbox, run, cache_path, kind):
    photo = photo_of(1, width=1024, height=768, original_format=kind)
    run(sandbox(Photostream(photos=[photo])), prefer_original=True)
    assert files_of(cache_path, photo) == sorted([f".{kind}", ".json"])
    assert path_of(cache_path, photo, f".{kind}").read_bytes() == image_of(photo, "o")[1]


def test_an_original_that_is_kept_back_leaves_the_largest_other_size(sandbox, run, cache_path):
    photo = photo_of(1, width=1024, height=768, original_hidden=True)
    assert run(sandbox(Photostream(photos=[photo])), prefer_original=True).complete
    assert path_of(cache_path, photo, ".jpg").read_bytes() == image_of(photo, "l")[1]


def test_an_original_is_not_preferred_to_a_larger_size(sandbox, run):
    record = {
        f"{field}_{key}": value
        for key, name, side in (("l", "7_abc_b.jpg", 1024), ("o", "7_abc_o.jpg", 800))
        for field, value in (
            ("url", f"https://live.staticflickr.com/1/{name}"),
            ("width", side),
            ("height", side),
        )  # fmt: skip
    }
    box = sandbox(Photostream(photos=[SandboxPhoto("7", title="1", record=record)]))
    run(box, prefer_original=True)
    assert sizes_asked(box) == ["b.jpg"]


def test_best_size_keeps_its_meaning_where_originals_are_preferred(sandbox, run):
    box = sandbox(Photostream(photos=[photo_of(1, width=1024, height=768)]))
    photos = []
    run(box, prefer_original=True, on_photo=lambda photo, _: photos.append(photo))
    assert photos[0].best_size.label == "Large"
    assert photos[0].best_original.label == "Original"


@pytest.mark.parametrize("plain", [False, True])
def test_preferred_originals_cost_no_api_call_and_are_fetched_once(sandbox, run, plain):
    photos = [photo_of(each, width=1024, height=768, original_format="png") for each in range(4)]
    box = sandbox(Photostream(photos=photos), plain=plain)
    run(box, prefer_original=True, image_only=True)
    first = calls(box)
    assert first == {"findByUsername": 1, "getPhotos": 1} | ({"getSizes": 4} if plain else {})
    run(box, prefer_original=True, image_only=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0


def test_prefer_original_is_an_option_of_the_program(sandbox, mirror, cache_path):
    photo = photo_of(1, width=1024, height=768, original_format="png")
    assert mirror(sandbox(Photostream(photos=[photo])), "--prefer-original").returncode == 0
    [image] = cache_path.rglob("*.png")
    assert image.read_bytes() == image_of(photo, "o")[1]


# ---------------------------------------------------------------------------------- level 3

RICH = SandboxPhoto(
    "49674775373",
    title="1",
    description="2",
    comments=["3", "4"],
    width=1600,
    height=1067,
    date_upload=1_584_953_008,
    last_update=1_600_000_000,
    date_taken="1920-05-13 16:53:20",
    tags="huế saigon 1920s",
    machine_tags="geo:country=vn",
    license="4",
    views=1234,
    latitude=16.4637,
    longitude=107.5909,
)


@pytest.fixture
def rich(sandbox):
    return sandbox(Photostream("sandbox", "13476480@N07", [RICH, photo_of(1)]))


def test_level_3_holds_all_that_the_listing_tells(rich, run, cache_path):
    assert run(rich, info_level=3).complete
    assert info_of(cache_path, RICH) == {
        "title": {"content": "1", "locale": "eng"},
        "description": {"content": "2", "locale": "eng"},
        "comments": [{"content": "3", "locale": "eng"}, {"content": "4", "locale": "eng"}],
        "id": "49674775373",
        "url": "https://www.flickr.com/photos/sandbox/49674775373/",
        "owner": {"nsid": "13476480@N07", "username": "sandbox"},
        "dates": {
            "taken": "1920-05-13T16:53:20",
            "taken_granularity": 0,
            "uploaded": "2020-03-23T08:43:28+00:00",
            "last_updated": "2020-09-13T12:26:40+00:00",
        },
        "tags": ["huế", "saigon", "1920s"],
        "machine_tags": ["geo:country=vn"],
        "license": {"number": 4, "name": "Attribution License"},
        "location": {"latitude": 16.4637, "longitude": 107.5909, "accuracy": 16},
        "views": 1234,
        "media": "photo",
        "original": {"format": "jpg", "width": 1600, "height": 1067},
    }


def test_numbers_are_numbers_however_flickr_writes_them(sandbox, run, cache_path):
    """The sandbox, as Flickr does, gives some as JSON numbers and some as strings."""
    photos = [photo_of(each, views=each, latitude=1.5, longitude=-2.5) for each in range(4)]
    run(sandbox(Photostream(photos=photos)), info_level=3, info_only=True)
    for number, photo in enumerate(photos):
        info = info_of(cache_path, photo)
        assert info["views"] == number
        assert info["location"] == {"latitude": 1.5, "longitude": -2.5, "accuracy": 16}
        assert info["original"] == {"format": "jpg", "width": 64, "height": 64}
        assert info["dates"]["taken_granularity"] == 0


def test_there_is_a_location_only_where_there_is_one(rich, run, cache_path):
    run(rich, info_level=3)
    assert "location" not in info_of(cache_path, rich.photostream.photos[1])


def test_lists_of_tags_are_empty_where_there_are_none(rich, run, cache_path):
    run(rich, info_level=3)
    info = info_of(cache_path, rich.photostream.photos[1])
    assert (info["tags"], info["machine_tags"], info["comments"]) == ([], [], [])


def test_the_original_is_nothing_known_where_its_owner_keeps_it_back(sandbox, run, cache_path):
    photo = photo_of(1, original_hidden=True)
    run(sandbox(Photostream(photos=[photo])), info_level=3)
    original = {"format": None, "width": None, "height": None}
    assert info_of(cache_path, photo)["original"] == original


def test_the_page_of_a_user_without_an_address_of_their_own_has_their_nsid(
    sandbox, agent, cache_path
):
    photo = photo_of(1)
    box = sandbox(Photostream("Bảo tàng", "13476480@N07", [photo]))
    agent(box, info_level=3, info_only=True).run()
    [path] = cache_path.rglob("*.json")
    info = json.loads(path.read_text(encoding="utf-8"))
    assert info["url"] == f"https://www.flickr.com/photos/13476480@N07/{photo.id}/"
    assert info["owner"] == {"nsid": "13476480@N07", "username": "Bảo tàng"}


def test_a_video_says_that_it_is_one(sandbox, run, cache_path):
    video = video_of(1)
    run(sandbox(Photostream(photos=[video])), info_level=3, info_only=True)
    assert info_of(cache_path, video)["media"] == "video"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("0", "All Rights Reserved"),
        ("1", "Attribution-NonCommercial-ShareAlike License"),
        ("4", "Attribution License"),
        ("7", "No known copyright restrictions"),
        ("8", "United States Government Work"),
        ("9", "Public Domain Dedication (CC0)"),
        ("10", "Public Domain Mark"),
        ("99", None),
    ],
)
def test_a_licence_is_its_number_and_flickrs_name_of_it(sandbox, run, cache_path, number, name):
    photo = photo_of(1, license=number)
    run(sandbox(Photostream(photos=[photo])), info_level=3, info_only=True)
    assert info_of(cache_path, photo)["license"] == {"number": int(number), "name": name}


def commented():
    """Six photos, of which two have comments, and a video."""
    photos = [photo_of(each, comments=["5"] * (each % 3 == 0)) for each in range(1, 7)]
    return Photostream(photos=[*photos, video_of(7)])


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("options", [{}, {"info_only": True}])
def test_level_3_costs_no_call_more_than_level_2(sandbox, run, tmp_path, plain, options):
    box = sandbox(commented(), plain=plain)
    costs = []
    for level in (2, 3):
        run(box, info_level=level, cache_root_path_name=tmp_path / str(level), **options)
        costs.append(calls(box))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_below_3_holds_and_asks_for_what_it_always_did(rich, run, cache_path, level):
    run(rich, info_level=level, info_only=True)
    keys = ["title", "description", "comments"][: level + 1]
    assert list(info_of(cache_path, RICH)) == keys
    [extras] = {each.params["extras"] for each in rich.requests if "extras" in each.params}
    assert set(extras.split(",")) == {"last_update", "description", "count_comments"} - (
        {"description"} if level < 1 else set()
    ) - ({"count_comments"} if level < 2 else set())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_level_3_fills_in_what_a_lower_level_left_out(rich, run, cache_path, tmp_path, level):
    run(rich, info_level=level)
    result = run(rich, info_level=3)
    assert (result.images, result.infos) == (0, 2)
    run(rich, info_level=3, cache_root_path_name=tmp_path / "new")
    assert info_of(cache_path, RICH) == info_of(tmp_path / "new", RICH)


def test_after_level_2_level_3_costs_the_listing_alone(sandbox, run):
    box = sandbox(commented())
    run(box, info_level=2)
    run(box, info_level=3)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def test_a_lower_level_after_level_3_takes_nothing_away(rich, run, cache_path):
    run(rich, info_level=3)
    before = info_of(cache_path, RICH)
    result = run(rich, info_level=0)
    assert result.calls == 2
    assert info_of(cache_path, RICH) == before


def test_level_3_of_a_flickr_that_tells_nothing_holds_what_is_known(sandbox, run, cache_path):
    box = sandbox(Photostream("sandbox", "13476480@N07", [RICH]), plain=True)
    assert run(box, info_level=3).complete
    info = info_of(cache_path, RICH)
    assert info["title"]["content"] == "1"
    assert [each["content"] for each in info["comments"]] == ["3", "4"]
    assert info["id"] == RICH.id
    assert info["url"] == f"https://www.flickr.com/photos/13476480@N07/{RICH.id}/"
    assert info["dates"] == dict.fromkeys(
        ("taken", "taken_granularity", "uploaded", "last_updated")
    )
    assert (info["tags"], info["views"]) == (None, None)
    assert "location" not in info
    run(box, info_level=3)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def test_level_3_is_a_level_of_the_program(rich, mirror, cache_path):
    assert mirror(rich, "--info-level", 3, "--info-only").returncode == 0
    infos = [json.loads(path.read_text("utf-8")) for path in cache_path.rglob("*.json")]
    assert {info["id"] for info in infos} == {photo.id for photo in rich.photostream.photos}


# ---------------------------------------------------------------------------------- dry runs


def assert_foreseen(box, run, **options):
    """A dry run tells to the number what the real run then does."""
    foreseen = run(box, dry_run=True, **options)
    listing = box.api_calls
    assert set(calls(box)) == {"findByUsername", "getPhotos"}
    assert box.images == 0
    done = run(box, **options)
    assert (foreseen.images, foreseen.infos) == (done.images, done.infos)
    assert box.api_calls == listing + foreseen.calls_ahead
    assert foreseen.photo_count == done.photo_count
    return foreseen


OPTIONS = [
    {},
    {"info_level": 1},
    {"info_level": 2},
    {"info_level": 3},
    {"image_only": True},
    {"info_only": True, "info_level": 2},
    {"photos_only": True, "info_level": 2},
    {"prefer_original": True},
    {"info_level": 2, "per_page": 3},
    {"info_level": 2, "caching_strategy": flickr.CachingStrategy.FIFO, "per_page": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dry_run_foresees_a_first_run(sandbox, run, options):
    foreseen = assert_foreseen(sandbox(commented()), run, **options)
    assert foreseen.images + foreseen.infos > 0


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dry_run_foresees_a_run_on_a_flickr_without_extras(sandbox, run, options):
    photos = [photo for photo in commented().photos if photo.media == "photo"]
    box = sandbox(Photostream(photos=photos), plain=True)
    assert assert_foreseen(box, run, **options).calls_ahead > 0 or options.get("info_only")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_dry_run_on_a_mirror_that_is_up_to_date_foresees_nothing(sandbox, run, options):
    box = sandbox(commented())
    run(box, **options)
    foreseen = run(box, dry_run=True, **options)
    assert (foreseen.images, foreseen.infos, foreseen.calls_ahead, foreseen.calls) == (0, 0, 0, 2)


def test_a_dry_run_foresees_what_is_new(sandbox, run):
    box = sandbox(commented())
    run(box, info_level=2)
    box.photostream.add(3, **SMALL, comments=["1"])
    foreseen = assert_foreseen(box, run, info_level=2)
    assert (foreseen.images, foreseen.infos, foreseen.calls_ahead) == (3, 3, 3)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)])
def test_a_dry_run_foresees_a_higher_level(sandbox, run, low, high, plain):
    photos = [photo for photo in commented().photos if photo.media == "photo"]
    box = sandbox(Photostream(photos=photos), plain=plain)
    run(box, info_level=low)
    foreseen = assert_foreseen(box, run, info_level=high)
    assert (foreseen.images, foreseen.infos) == (0, 6)


def test_a_dry_run_foresees_videos_that_were_left_out(sandbox, run):
    box = sandbox(commented())
    run(box, photos_only=True)
    foreseen = assert_foreseen(box, run)
    assert (foreseen.images, foreseen.infos, foreseen.calls_ahead) == (1, 1, 1)


def test_a_dry_run_foresees_what_failed_and_nothing_of_what_is_gone(sandbox, run):
    box = sandbox(commented())
    box.photostream.photos[0].gone = True
    box.faults.always(f"/{box.photostream.photos[1].id}_", "500")
    result = run(box)
    assert (len(result.unavailable), len(result.failed)) == (1, 1)
    box.faults.clear()
    foreseen = assert_foreseen(box, run)
    assert (foreseen.images, foreseen.infos) == (1, 0)


def test_a_dry_run_writes_nothing_at_all(sandbox, mirror, cache_path):
    run = mirror(sandbox(commented()), "--dry-run", "--info-level", 2)
    assert run.returncode == 0
    assert not cache_path.exists()


def test_a_dry_run_of_several_pages_counts_each_photo_once(sandbox, mirror):
    photos = [photo_of(number, width=8, height=8) for number in range(600)]
    run = mirror(sandbox(Photostream(photos=photos)), "--dry-run")
    assert "would fetch 600 images and 600 information files, of 600 photos" in run.stdout


def test_a_dry_run_leaves_a_mirror_to_the_byte(sandbox, run, cache_path):
    box = sandbox(commented())
    run(box)
    box.photostream.add(2, **SMALL)

    def every_file():
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in cache_path.rglob("*")
            if path.is_file()
        }

    before = every_file()
    run(box, dry_run=True, info_level=2)
    assert every_file() == before


def test_a_dry_run_may_look_at_a_mirror_that_another_run_is_writing(sandbox, agent):
    box = sandbox(commented())
    writer = agent(box)
    with writer.cache.locked():
        assert agent(box, dry_run=True).run().images == 7


def test_a_dry_run_says_what_would_be_done(sandbox, mirror):
    run = mirror(sandbox(commented()), "--dry-run", "--info-level", 2)
    [line] = run.stdout.splitlines()
    assert "would fetch 7 images and 7 information files, of 7 photos" in line
    assert "3 API calls besides (3 s at Flickr's rate)" in line
    assert "Caching" not in run.stderr


def test_a_dry_run_of_several_users_tells_of_each(sandbox, mirror, cache_path):
    box = sandbox(commented(), Photostream("other", "2@N01", [photo_of(99)]))
    run = mirror(box, "--username", "other", "--dry-run")
    assert run.returncode == 0
    assert [line.partition(", of")[0] for line in run.stdout.splitlines()] == [
        "sandbox: would fetch 7 images and 7 information files",
        "other: would fetch 1 image and 1 information file",
    ]
    assert not cache_path.exists()


@pytest.mark.parametrize("option", ["--verify-image", "--refresh", "--watch"])
def test_a_dry_run_foresees_no_more_than_it_says(option, refusal):
    complaint = refusal("--username", "a", "--dry-run", option)
    assert "--dry-run" in complaint and option in complaint


# ----------------------------------------------------------------------------- the library


def test_the_result_of_a_run_counts_what_was_done(sandbox, run, cache_path):
    box = sandbox(commented())
    result = run(box, info_level=2)
    assert result.complete
    assert result.username == "sandbox"
    assert (result.photo_count, result.seen, result.images, result.infos) == (7, 7, 7, 7)
    assert result.calls == box.api_calls == 5
    written = [(cache_path / path).stat().st_size for path in files_in(cache_path)]
    assert result.size == sum(written)
    assert (result.unavailable, result.failed, result.gone) == ({}, {}, [])


@pytest.mark.parametrize("strategy", flickr.CachingStrategy)
def test_a_photo_that_is_listed_twice_is_seen_once(sandbox, run, strategy):
    """The first page is read again at the end of a run that read others."""
    box = sandbox(commented())
    result = run(box, per_page=3, caching_strategy=strategy)
    assert box.calls["flickr.people.getPhotos"] > 3
    assert (result.seen, result.photo_count) == (7, 7)
    assert run(box, per_page=3, refresh=True).seen == 7


def test_the_result_of_a_second_run_counts_that_nothing_was_new(sandbox, run):
    box = sandbox(commented())
    run(box)
    result = run(box)
    assert (result.images, result.infos, result.size, result.calls) == (0, 0, 0, 2)
    assert result.photo_count == result.seen == 7


def test_the_result_says_of_each_photo_that_failed_why(sandbox, run):
    box = sandbox(commented())
    gone, failing = box.photostream.photos[0], box.photostream.photos[1]
    gone.gone = True
    box.faults.always(f"/{failing.id}_", "500")
    result = run(box)
    assert not result.complete
    assert list(result.unavailable) == [gone.id]
    assert "unavailable" in result.unavailable[gone.id]
    assert list(result.failed) == [failing.id]
    assert "HTTP 500" in result.failed[failing.id]
    assert (result.images, result.infos) == (5, 7)


def test_the_result_counts_attempts_that_failed_as_calls(sandbox, run):
    box = sandbox(commented())
    box.faults.script("getPhotos", "500", "500")
    assert run(box).calls == box.api_calls


def test_each_mirrored_photo_is_reported_with_the_files_that_are_there(sandbox, run, cache_path):
    box = sandbox(commented())
    reports = []

    def report(photo, paths):
        reports.append((photo, paths, [Path(path).is_file() for path in paths]))

    run(box, info_level=2, on_photo=report)
    assert sorted(photo.id for photo, _, _ in reports) == [
        each.id for each in box.photostream.photos
    ]
    for photo, paths, there in reports:
        suffixes = [".jpg", ".json"] + [".mp4"] * (photo.media == "video")
        assert sorted(path.suffix for path in paths) == suffixes
        assert {path.name[:32] for path in paths} == {photo.digest}
        assert all(there)
    assert {path for _, paths, _ in reports for path in paths} == {
        cache_path / path for path in files_in(cache_path)
    }


def test_a_reported_photo_knows_its_texts(sandbox, run):
    box = sandbox(commented())
    titles = {}
    run(box, info_level=2, on_photo=lambda photo, _: titles.update({photo.id: photo}))
    third = box.photostream.photos[2]
    assert titles[third.id].title.content == "1"
    assert [comment.content for comment in titles[third.id].comments] == ["5"]


def test_photos_are_reported_in_the_thread_that_runs_the_mirror(sandbox, run):
    threads = set()
    run(sandbox(commented()), on_photo=lambda *_: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


def test_a_photo_of_which_nothing_is_new_is_not_reported(sandbox, run):
    box = sandbox(commented())
    run(box)
    reported = []
    run(box, on_photo=lambda photo, _: reported.append(photo.id))
    assert reported == []
    [new] = box.photostream.add(1, **SMALL)
    run(box, on_photo=lambda photo, _: reported.append(photo.id))
    assert reported == [new.id]


@pytest.mark.parametrize("slow", ["api", "image"])
def test_a_photo_of_which_one_part_failed_is_reported_with_the_other(sandbox, run, slow):
    """Whichever of the two comes last."""
    photo = photo_of(1, comments=["1"])
    box = sandbox(Photostream(photos=[photo]), **{f"{slow}_delay": 0.2})
    box.faults.always("getList", "404")
    reports = []
    result = run(box, info_level=2, on_photo=lambda _, paths: reports.append(paths))
    assert (result.images, result.infos) == (1, 0)
    assert [[path.suffix for path in paths] for paths in reports] == [[".jpg"]]


@pytest.mark.parametrize("first", ["image_only", "info_only"])
def test_a_photo_of_which_one_part_was_there_is_reported_with_the_other(sandbox, run, first):
    box = sandbox(commented())
    run(box, **{first: True})
    reports = []
    result = run(box, on_photo=lambda photo, _: reports.append(photo.id))
    assert result.images + result.infos == 7
    assert sorted(reports) == [each.id for each in box.photostream.photos]


def test_a_refresh_reports_what_changed_and_nothing_else(sandbox, run):
    box = sandbox(commented())
    run(box)
    changed, touched = box.photostream.photos[1], box.photostream.photos[3]
    changed.title = "3"
    for photo in (changed, touched):
        photo.last_update += 86_400
    reports = []
    run(box, refresh=True, on_photo=lambda photo, paths: reports.append((photo.id, paths)))
    assert [photo_id for photo_id, _ in reports] == [changed.id]
    assert [path.suffix for path in reports[0][1]] == [".json"]


def test_what_a_callback_raises_ends_the_run_and_reaches_the_caller(sandbox, agent, cache_path):
    box = sandbox(commented())

    def refuse(photo, paths):
        raise KeyError("no room in the catalogue")

    with pytest.raises(KeyError, match="no room in the catalogue"):
        agent(box, on_photo=refuse).run()
    assert agent(box).run().complete
    assert [path for path in cache_path.rglob("*flickr-part")] == []


def test_progress_is_told_up_to_the_last_photo(sandbox, run):
    box = sandbox(commented())
    box.photostream.photos[0].gone = True
    told = []
    run(box, per_page=3, on_progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (7, 7, 1)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert {total for _, total, _ in told} == {7}


def test_the_result_of_the_last_run_stays_with_the_agent(sandbox, agent):
    box = sandbox(commented())
    mirrorer = agent(box)
    assert mirrorer.result is None
    assert mirrorer.run() is mirrorer.result


def test_the_last_line_of_the_program_is_the_result_of_the_library(sandbox, mirror, run, tmp_path):
    box = sandbox(commented())
    line = mirror(box).stdout.splitlines()[-1]
    result = run(box, cache_root_path_name=tmp_path / "library")
    without_time = re.compile(r", \d+ s;")
    assert without_time.sub(";", line) == without_time.sub(";", str(result))


# ------------------------------------------------------- the README's examples of the library

README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY = README[README.index("\n## Use as a library") :].split("\n## ")[1]
PROGRAMS = re.findall(r"```python\n(.*?)```", LIBRARY, re.DOTALL)
PROMPTS = re.findall(r"```pycon\n(.*?)```", LIBRARY, re.DOTALL)


def as_in_the_readme(count):
    return Photostream.generated(count, username="manhhai")


def test_the_readme_has_examples_of_the_library():
    assert PROGRAMS
    assert PROMPTS


def test_the_programs_of_the_readme_run_one_after_another(sandbox, tmp_path):
    """Their paths are taken for ones in the test's folder; they find the sandbox themselves."""
    box = sandbox(as_in_the_readme(5))
    program = "\n".join(PROGRAMS).replace('"/tmp/', f'"{tmp_path}/')
    run = run_python("-c", program, box=box, variables={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    images = sorted(path.read_bytes() for path in tmp_path.rglob("*.jpg"))
    assert images == sorted(map(bytes_of, box.photostream.photos))
    assert "manhhai: 5 new images and 5 new information files" in run.stdout
    for photo in box.photostream.photos:
        assert f"{photo.id} {photo.title} {digest_of(photo)}" in run.stdout


def test_what_the_readme_shows_at_pythons_prompt_is_what_happens(sandbox, monkeypatch):
    box = sandbox(as_in_the_readme(1200))
    monkeypatch.setenv("FLICKR_API_URL", box.url)
    assert os.environ["FLICKR_API_URL"] == box.url
    examples = doctest.DocTestParser().get_doctest("".join(PROMPTS), {}, "README.md", None, 0)
    output = []
    result = doctest.DocTestRunner().run(examples, out=output.append)
    assert result.attempted > 5
    assert result.failed == 0, "".join(output)


# ------------------------------------------------------------------ who does not use it


def test_whoever_uses_none_of_it_pays_no_call_and_no_request_for_it(sandbox, run):
    box = sandbox(commented())
    run(box)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getSizes": 1}
    assert box.images == 9  # a video is asked for twice, of which one is a redirect, and once
    run(box)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0
