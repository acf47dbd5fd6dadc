"""Refresh and dates: what changed on Flickr is mirrored again, and nothing is forgotten (issue 6).

Texts are digits, which take no time to tell the language of.
"""

import datetime
import email.utils
import json
import os
import time
from pathlib import Path

import pytest
from conftest import (
    bytes_of,
    calls,
    digest_of,
    files_in,
    info_of,
    interrupted,
    path_of,
    wait_until,
)
from sandbox import Photostream, SandboxPhoto, image_of, video_sizes_of

import flickr

DAY = 86_400
FIRST_UPLOAD = 1_400_000_000


def photo_of(number, **fields):
    """A small photo, uploaded on a day of its own and left alone ever since."""
    uploaded = FIRST_UPLOAD + number * DAY
    fields = {
        "title": str(number),
        "description": f"{number}00",
        "width": 64,
        "height": 64,
        "date_upload": uploaded,
        "last_update": uploaded,
    } | fields
    return SandboxPhoto(str(1_000_000 + 7 * number), **fields)


@pytest.fixture
def stream():
    """Seven photos; the second and the fifth have two comments each."""
    photos = [photo_of(number) for number in range(1, 8)]
    photos[1].comments = ["21", "22"]
    photos[4].comments = ["51", "52"]
    return Photostream(photos=photos)


@pytest.fixture
def box(sandbox, stream):
    return sandbox(stream)


def edit(photo, days=30, **fields):
    """Change a photo on Flickr, so many days after its last change."""
    for name, value in fields.items():
        setattr(photo, name, value)
    photo.last_update += days * DAY


def old_infos(cache_path, photo):
    """The old information that is kept of a photo, oldest first."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((cache_path / "sandbox").glob(f"{digest_of(photo)}.*.json"))
    ]


def old_images(cache_path, photo):
    """The old images that are kept of a photo, oldest first."""
    paths = sorted((cache_path / "sandbox").glob(f"{digest_of(photo)}.*.jpg"))
    return [path.read_bytes() for path in paths]


def date_of(path):
    return int(path.stat().st_mtime)


def files(cache_path):
    """The bytes and the date of every file of the mirror."""
    return {
        path: ((cache_path / path).read_bytes(), date_of(cache_path / path))
        for path in files_in(cache_path)
    }


def image_statuses(box):
    return [request.status for request in box.requests if request.kind == "image"]


# -------------------------------------------------------------------------------- the dates


@pytest.mark.parametrize(
    ("suffix", "date"), [(".json", "last_update"), (".jpg", "date_upload")], ids=["info", "image"]
)
def test_information_bears_the_date_of_its_last_change_and_an_image_that_of_its_upload(
    box, run, cache_path, suffix, date
):
    box.photostream.photos[3].last_update = 1_500_000_123
    run(box)
    for photo in box.photostream.photos:
        assert date_of(path_of(cache_path, photo, suffix)) == getattr(photo, date)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_an_information_file_bears_its_date_at_every_level(box, run, cache_path, level):
    box.photostream.photos[3].last_update = 1_500_000_123
    run(box, info_level=level, info_only=True)
    assert date_of(path_of(cache_path, box.photostream.photos[3])) == 1_500_000_123


def test_a_film_and_its_poster_bear_the_date_of_their_upload(sandbox, run, cache_path):
    video = photo_of(1, media="video", last_update=1_500_000_123)
    run(sandbox(Photostream(photos=[video])))
    assert date_of(path_of(cache_path, video, ".jpg")) == video.date_upload
    assert date_of(path_of(cache_path, video, ".mp4")) == video.date_upload


def test_where_flickr_tells_no_dates_files_are_of_the_day_they_were_fetched(
    sandbox, run, cache_path, stream
):
    before = int(time.time())
    run(sandbox(stream, plain=True))
    dates = [date for _, date in files(cache_path).values()]
    assert len(dates) == 14
    assert all(before <= date <= time.time() for date in dates)


def test_the_dates_cost_no_api_call(box, run):
    run(box)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


# ------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_refresh_of_a_mirror_where_nothing_changed_costs_the_listing_alone(box, run, level):
    run(box, info_level=level)
    result = run(box, info_level=level, refresh=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0
    assert (result.images, result.infos, result.calls) == (0, 0, 2)


def test_a_refresh_of_a_mirror_where_nothing_changed_touches_no_file(box, run, cache_path):
    run(box, info_level=3)
    before = files(cache_path)
    run(box, info_level=3, refresh=True)
    assert files(cache_path) == before


def test_a_refresh_reads_each_page_of_the_listing_and_the_first_one_again(box, run):
    run(box, per_page=2)
    run(box, per_page=2, refresh=True)
    pages = [int(each.params["page"]) for each in box.requests if "getPhotos" in each.method]
    assert pages == [1, 2, 3, 4, 1]


def test_only_the_photos_that_changed_cost_more(box, run):
    second, fifth = box.photostream.photos[1], box.photostream.photos[4]
    run(box, info_level=2)
    edit(second, comments=["21", "22", "23"])
    edit(fifth, title="5000")
    edit(box.photostream.photos[6], description="7000")
    run(box, info_level=2, refresh=True)
    # Of the three that changed, two have comments to be read.
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getList": 2}
    assert set(image_statuses(box)) == {304}
    assert len(image_statuses(box)) == 3


@pytest.mark.parametrize("level", [0, 1])
def test_a_change_costs_no_api_call_where_the_listing_tells_it(box, run, cache_path, level):
    run(box, info_level=level)
    for photo in box.photostream.photos:
        edit(photo, title=f"{photo.title}000", description="0")
    result = run(box, info_level=level, refresh=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert result.infos == 7
    assert [info_of(cache_path, each)["title"]["content"] for each in box.photostream.photos] == [
        f"{number}000" for number in range(1, 8)
    ]


def test_without_refresh_a_mirror_that_is_up_to_date_costs_two_calls(box, run, cache_path):
    run(box, info_level=2)
    before = files(cache_path)
    for photo in box.photostream.photos:
        edit(photo, title="0", comments=["1"], image_revision=1)
    run(box, info_level=2)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0
    assert files(cache_path) == before


# ---------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("level", "change", "key"),
    [
        (0, {"title": "2000"}, "title"),
        (1, {"description": "2000"}, "description"),
        (2, {"comments": ["21", "22", "23"]}, "comments"),
        (2, {"comments": []}, "comments"),
        (3, {"tags": "harbour"}, "tags"),
        (3, {"license": "4"}, "license"),
    ],
)
def test_what_changed_is_written_again_and_the_old_is_kept(
    box, run, cache_path, level, change, key
):
    photo = box.photostream.photos[1]
    run(box, info_level=level)
    before = info_of(cache_path, photo)
    edit(photo, **change)
    result = run(box, info_level=level, refresh=True)
    after = info_of(cache_path, photo)
    assert after[key] != before[key]
    assert old_infos(cache_path, photo) == [before]
    assert (result.infos, result.images) == (1, 0)


def test_what_is_written_again_is_what_a_new_mirror_would_hold(box, run, cache_path, tmp_path):
    photo = box.photostream.photos[1]
    run(box, info_level=3)
    edit(photo, title="2000", description="", comments=["9"], tags="a b", latitude=1, longitude=2)
    run(box, info_level=3, refresh=True)
    run(box, info_level=3, cache_root_path_name=tmp_path / "new")
    assert path_of(cache_path, photo).read_bytes() == path_of(tmp_path / "new", photo).read_bytes()


def test_the_old_information_bears_its_own_date_in_name_and_file(box, run, cache_path):
    photo = box.photostream.photos[1]
    photo.last_update = 1_584_953_008  # 23 March 2020, 8:43:28
    run(box)
    before = path_of(cache_path, photo).read_bytes()
    edit(photo, title="2000")
    run(box, refresh=True)
    old = path_of(cache_path, photo, ".20200323T084328Z.json")
    assert old.read_bytes() == before
    assert date_of(old) == 1_584_953_008
    assert date_of(path_of(cache_path, photo)) == photo.last_update


def test_every_old_version_is_kept(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    for title in ("2001", "2002", "2"):
        edit(photo, title=title)
        run(box, refresh=True)
    titles = [info["title"]["content"] for info in old_infos(cache_path, photo)]
    assert titles == ["2", "2001", "2002"]
    assert info_of(cache_path, photo)["title"]["content"] == "2"


def test_a_change_is_mirrored_once(box, run, cache_path):
    run(box, info_level=2)
    edit(box.photostream.photos[1], title="2000", image_revision=1)
    run(box, info_level=2, refresh=True)
    before = files(cache_path)
    result = run(box, info_level=2, refresh=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0
    assert (result.infos, result.images) == (0, 0)
    assert files(cache_path) == before


def test_the_files_of_the_other_photos_are_left_alone(box, run, cache_path):
    changed = box.photostream.photos[1]
    run(box, info_level=2)
    before = files(cache_path)
    edit(changed, title="2000", image_revision=1)
    run(box, info_level=2, refresh=True)
    after = files(cache_path)
    others = {path for path in before if not path.name.startswith(digest_of(changed))}
    assert len(others) == 12
    assert {path: after[path] for path in others} == {path: before[path] for path in others}


def test_where_only_the_views_changed_no_old_version_is_kept(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box, info_level=3)
    edit(photo, views=photo.views + 1000)
    result = run(box, info_level=3, refresh=True)
    assert old_infos(cache_path, photo) == []
    assert info_of(cache_path, photo)["views"] == photo.views
    assert date_of(path_of(cache_path, photo)) == photo.last_update
    assert result.infos == 0


def test_a_change_that_the_level_does_not_hold_leaves_the_texts_to_the_byte(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box, info_level=0)
    before = path_of(cache_path, photo).read_bytes()
    edit(photo, tags="harbour")
    run(box, info_level=0, refresh=True)
    assert path_of(cache_path, photo).read_bytes() == before
    assert old_infos(cache_path, photo) == []
    assert date_of(path_of(cache_path, photo)) == photo.last_update


def test_a_place_that_was_added_counts_as_new_information(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box, info_level=3)
    edit(photo, latitude=10.5, longitude=106.7)
    result = run(box, info_level=3, refresh=True)
    assert info_of(cache_path, photo)["location"]["latitude"] == 10.5
    assert result.infos == 1


def test_a_refresh_fills_in_a_higher_level_too(box, run, cache_path):
    changed, unchanged = box.photostream.photos[1], box.photostream.photos[4]
    run(box, info_level=0)
    edit(changed, title="2000")
    run(box, info_level=2, refresh=True)
    for photo in (changed, unchanged):
        assert [each["content"] for each in info_of(cache_path, photo)["comments"]] == (
            photo.comments
        )


@pytest.mark.parametrize("mirrored", [1, 2, 3])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_refresh_at_a_lower_level_takes_nothing_from_a_file(
    box, run, cache_path, tmp_path, mirrored, level
):
    photo = box.photostream.photos[1]
    photo.tags, photo.license, photo.views = "harbour boats", "4", 17
    run(box, info_level=mirrored)
    edit(photo, title="2000")
    run(box, info_level=level, refresh=True)
    run(box, info_level=max(level, mirrored), cache_root_path_name=tmp_path / "new")
    assert info_of(cache_path, photo) == info_of(tmp_path / "new", photo)


def test_new_photos_are_mirrored_by_a_refresh_as_well(box, run, cache_path):
    run(box)
    [new] = box.photostream.add(1, width=64, height=64, title="8")
    result = run(box, refresh=True)
    assert (result.images, result.infos) == (1, 1)
    assert path_of(cache_path, new, ".jpg").read_bytes() == bytes_of(new)


def test_a_refresh_without_a_mirror_is_a_first_run(box, run, cache_path):
    result = run(box, refresh=True)
    assert (result.images, result.infos, result.seen) == (7, 7, 7)
    assert len(files(cache_path)) == 14


def test_what_a_level_added_later_had_changed_meanwhile_is_kept_as_well(box, run, cache_path):
    """An archive forgets nothing: not the title either that level 2 finds changed."""
    photo = box.photostream.photos[1]
    run(box, info_level=0)
    edit(photo, title="2000")
    run(box, info_level=2)
    titles = {info["title"]["content"] for info in old_infos(cache_path, photo)}
    assert titles | {info_of(cache_path, photo)["title"]["content"]} == {"2", "2000"}


# --------------------------------------------------------------------------------- images


def test_a_replaced_image_is_fetched_and_the_old_one_kept(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    before = path_of(cache_path, photo, ".jpg").read_bytes()
    edit(photo, image_revision=1)
    result = run(box, refresh=True)
    after = path_of(cache_path, photo, ".jpg").read_bytes()
    assert after == bytes_of(photo) != before
    assert old_images(cache_path, photo) == [before]
    assert (result.images, result.infos) == (1, 0)
    assert old_infos(cache_path, photo) == []


def test_the_old_image_bears_its_own_date_in_name_and_file(box, run, cache_path):
    photo = box.photostream.photos[1]
    photo.date_upload = 1_584_953_008
    photo.last_update = 1_584_953_008
    run(box)
    edit(photo, image_revision=1)
    run(box, refresh=True)
    assert date_of(path_of(cache_path, photo, ".20200323T084328Z.jpg")) == 1_584_953_008


def test_an_image_that_was_replaced_again_and_again_is_kept_each_time(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    expected = [bytes_of(photo)]
    for revision in (1, 2, 3):
        edit(photo, days=1, image_revision=revision)
        run(box, refresh=True)
        expected.append(bytes_of(photo))
    assert path_of(cache_path, photo, ".jpg").read_bytes() == expected.pop()
    assert old_images(cache_path, photo) == expected


def test_an_image_that_was_not_replaced_costs_no_transfer(sandbox, run, cache_path):
    photos = [photo_of(number) for number in range(1, 8)]
    box = sandbox(Photostream(photos=photos, image_bytes=300_000))
    run(box)
    edit(photos[1], title="2000")
    edit(photos[4], image_revision=1)
    run(box, refresh=True)
    assert sorted(image_statuses(box)) == [200, 304]
    assert 300_000 <= box.bytes_sent < 350_000


def test_the_images_of_photos_that_did_not_change_are_not_even_asked_for(box, run):
    run(box)
    edit(box.photostream.photos[1], image_revision=1)
    run(box, refresh=True)
    assert len(image_statuses(box)) == 1


def test_a_conditional_request_names_the_date_of_the_image(box, run):
    photo = box.photostream.photos[1]
    run(box)
    edit(photo, title="2000")
    run(box, refresh=True)
    [request] = [each for each in box.requests if each.kind == "image"]
    since = email.utils.parsedate_to_datetime(request.headers["if-modified-since"])
    assert since.timestamp() == photo.date_upload


def test_an_image_that_comes_again_the_same_is_not_kept_twice(box, run, cache_path):
    """Some servers know no conditional requests, or touch their files without need."""
    photo = box.photostream.photos[1]
    run(box)
    before = path_of(cache_path, photo, ".jpg").read_bytes()
    # As if the image had been mirrored before the server's date of it.
    os.utime(path_of(cache_path, photo, ".jpg"), (photo.date_upload - DAY,) * 2)
    edit(photo, title="2000")
    result = run(box, refresh=True)
    assert image_statuses(box) == [200]
    assert path_of(cache_path, photo, ".jpg").read_bytes() == before
    assert old_images(cache_path, photo) == []
    assert result.images == 0


@pytest.mark.parametrize("fault", ["cut", "unavailable"])
def test_a_replaced_image_that_comes_damaged_or_as_unavailable_leaves_the_old_one(
    box, run, cache_path, fault
):
    photo = box.photostream.photos[1]
    run(box)
    before = path_of(cache_path, photo, ".jpg").read_bytes()
    edit(photo, image_revision=1)
    box.faults.always(f"/{photo.id}_", fault)
    result = run(box, refresh=True)
    assert not result.complete
    assert path_of(cache_path, photo, ".jpg").read_bytes() == before
    assert old_images(cache_path, photo) == []
    assert [path for path in cache_path.rglob("*flickr-part")] == []


def test_videos_keep_poster_and_film_through_a_refresh(sandbox, run, cache_path):
    video = photo_of(1, media="video")
    box = sandbox(Photostream(photos=[video]))
    run(box)
    before = path_of(cache_path, video, ".mp4").read_bytes()
    edit(video, title="1000")
    result = run(box, refresh=True)
    assert result.infos == 1
    assert path_of(cache_path, video, ".mp4").read_bytes() == before
    assert before == image_of(video, video_sizes_of(video)[0][0])[1]
    assert box.images == 0


# -------------------------------------------------------------- images only, information only


def test_images_alone_can_be_refreshed(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box, image_only=True)
    before = path_of(cache_path, photo, ".jpg").read_bytes()
    edit(photo, image_revision=1, title="2000")
    result = run(box, image_only=True, refresh=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert path_of(cache_path, photo, ".jpg").read_bytes() == bytes_of(photo)
    assert old_images(cache_path, photo) == [before]
    assert (result.images, result.infos) == (1, 0)
    assert list(cache_path.rglob("*.json")) == []


def test_information_alone_can_be_refreshed(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box, info_only=True, info_level=2)
    edit(photo, comments=["23"])
    result = run(box, info_only=True, info_level=2, refresh=True)
    assert [each["content"] for each in info_of(cache_path, photo)["comments"]] == ["23"]
    assert len(old_infos(cache_path, photo)) == 1
    assert (result.images, result.infos) == (0, 1)
    assert box.images == 0


def test_a_refresh_of_images_alone_leaves_the_texts_for_the_next(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    edit(photo, image_revision=1, title="2000")
    run(box, image_only=True, refresh=True)
    assert info_of(cache_path, photo)["title"]["content"] == "2"
    run(box, refresh=True)
    assert info_of(cache_path, photo)["title"]["content"] == "2000"


def test_a_refresh_of_information_alone_leaves_the_images_for_the_next(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    edit(photo, image_revision=1, title="2000")
    run(box, info_only=True, refresh=True)
    run(box, refresh=True)
    assert path_of(cache_path, photo, ".jpg").read_bytes() == bytes_of(photo)


def test_a_higher_level_leaves_replaced_images_for_the_next_refresh(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    edit(photo, image_revision=1)
    run(box, info_level=1)
    run(box, info_level=1, refresh=True)
    assert path_of(cache_path, photo, ".jpg").read_bytes() == bytes_of(photo)


# ------------------------------------------------------------ what failed or was interrupted


@pytest.mark.parametrize("where", ["getList", "/img/"])
def test_a_refresh_that_failed_is_made_up_for_by_the_next(box, run, cache_path, where):
    photo = box.photostream.photos[1]
    run(box, info_level=2)
    edit(photo, image_revision=1, comments=["23"], title="2000")
    box.faults.always(where, "500")
    failed = run(box, info_level=2, refresh=True)
    assert list(failed.failed) == [photo.id]
    assert not failed.complete
    box.faults.clear()
    assert run(box, info_level=2, refresh=True).complete
    assert info_of(cache_path, photo)["title"]["content"] == "2000"
    assert [each["content"] for each in info_of(cache_path, photo)["comments"]] == ["23"]
    assert path_of(cache_path, photo, ".jpg").read_bytes() == bytes_of(photo)
    assert len(old_infos(cache_path, photo)) == 1
    assert len(old_images(cache_path, photo)) == 1


def test_one_photos_failure_does_not_keep_a_refresh_from_the_others(box, run, cache_path):
    second, fifth = box.photostream.photos[1], box.photostream.photos[4]
    run(box, info_level=2)
    edit(second, title="2000")
    edit(fifth, title="5000")
    box.faults.always(f"getList?format=json&nojsoncallback=1&photo_id={second.id}", "500")
    result = run(box, info_level=2, refresh=True)
    assert list(result.failed) == [second.id]
    assert info_of(cache_path, fifth)["title"]["content"] == "5000"


def test_a_refresh_that_was_interrupted_is_made_up_for_by_the_next(box, agent, run, cache_path):
    run(box, info_level=2, per_page=2)
    for photo in box.photostream.photos:
        edit(photo, title=f"{photo.title}000", image_revision=1)
    stopped = agent(box, cache_directory_depth=0, info_level=2, per_page=2, refresh=True, jobs=1)
    box.reset_counts()

    def stop_at_the_third_image(request):
        if box.images == 3:
            stopped.stop()

    box.on_request = stop_at_the_third_image
    with pytest.raises(flickr.Stopped):
        stopped.run()
    box.on_request = None
    assert run(box, info_level=2, per_page=2, refresh=True).complete
    for photo in box.photostream.photos:
        assert info_of(cache_path, photo)["title"]["content"] == photo.title
        assert path_of(cache_path, photo, ".jpg").read_bytes() == bytes_of(photo)
        assert len(old_infos(cache_path, photo)) == 1
        assert len(old_images(cache_path, photo)) == 1


def test_an_interrupted_refresh_ends_with_status_130(sandbox, run, program, cache_path):
    photos = [photo_of(number) for number in range(1, 30)]
    box = sandbox(Photostream(photos=photos))
    run(box)
    for photo in photos:
        edit(photo, image_revision=1)
    box.image_delay = 0.5
    box.reset_counts()
    with program(box, "--refresh", "--cache-directory-depth", 0) as process:
        wait_until(lambda: box.images > 0)
        interrupted(process)
    box.image_delay = 0.0
    assert run(box, refresh=True).complete
    for photo in photos:
        assert path_of(cache_path, photo, ".jpg").read_bytes() == bytes_of(photo)


# ----------------------------------------------------------------------- no longer on Flickr


def test_photos_that_are_no_longer_on_flickr_are_counted_and_stay(box, run, cache_path):
    run(box, info_level=1)
    before = files(cache_path)
    removed = [box.photostream.photos[1], box.photostream.photos[4]]
    for photo in removed:
        box.photostream.remove(photo.id)
    result = run(box, info_level=1, refresh=True)
    assert sorted(result.gone) == sorted(map(digest_of, removed))
    assert files(cache_path) == before
    assert result.complete


def test_the_newest_photo_that_is_no_longer_on_flickr_is_found_as_well(box, run):
    run(box)
    newest = box.photostream.photos[-1]
    box.photostream.remove(newest.id)
    assert run(box, refresh=True).gone == [digest_of(newest)]


def test_photos_that_are_no_longer_on_flickr_are_listed_in_the_output(box, mirror):
    assert mirror(box).returncode == 0
    removed = [box.photostream.photos[1], box.photostream.photos[4]]
    for photo in removed:
        box.photostream.remove(photo.id)
    refreshed = mirror(box, "--refresh")
    assert refreshed.returncode == 0
    assert "; 2 no longer on Flickr;" in refreshed.stdout.splitlines()[-1]
    for photo in removed:
        [line] = [line for line in refreshed.stderr.splitlines() if digest_of(photo) in line]
        assert "no longer on Flickr" in line


def test_where_all_photos_are_still_on_flickr_none_is_said_to_be_gone(box, run, cache_path):
    run(box, info_level=2)
    edit(box.photostream.photos[1], title="2000", image_revision=1)
    result = run(box, info_level=2, refresh=True)
    assert old_infos(cache_path, box.photostream.photos[1])
    assert result.gone == []
    assert "no longer on Flickr" not in str(result)
    assert run(box, refresh=True).gone == []


def test_old_versions_of_photos_that_are_gone_are_not_counted_again(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    edit(photo, title="2000", image_revision=1)
    run(box, refresh=True)
    box.photostream.remove(photo.id)
    assert run(box, refresh=True).gone == [digest_of(photo)]


def test_a_run_without_refresh_says_of_no_photo_that_it_is_gone(box, run):
    run(box)
    box.photostream.remove(box.photostream.photos[1].id)
    assert run(box).gone == []


def test_a_page_that_is_cut_short_is_asked_for_again(sandbox, run, cache_path):
    photos = [photo_of(number) for number in range(1, 10)]
    box = sandbox(Photostream(photos=photos))
    run(box, per_page=3)
    edit(photos[3], title="4000")
    # Of photos 6, 5 and 4 on the second page, only the first is shown, once.
    box.faults.short_page(2, drop=2)
    result = run(box, per_page=3, refresh=True)
    assert result.gone == []
    assert info_of(cache_path, photos[3])["title"]["content"] == "4000"


def test_a_row_that_makes_no_sense_makes_no_photo_gone(box, run):
    run(box)
    box.photostream.photos[1].title = ["not", "a", "text"]
    result = run(box, refresh=True)
    assert len(result.skipped) == 1
    assert result.gone == []


def test_a_photo_that_is_still_listed_but_not_there_is_reported_and_stays(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box, info_level=2)
    before = files(cache_path)
    edit(photo, title="2000", gone=True)
    result = run(box, info_level=2, refresh=True)
    assert list(result.unavailable) == [photo.id]
    assert result.gone == []
    assert files(cache_path) == before


# ---------------------------------------------------------------------- plain servers, output


def test_where_flickr_tells_no_dates_a_refresh_changes_nothing(sandbox, run, cache_path, stream):
    box = sandbox(stream, missing_extras=["last_update"])
    run(box, info_level=2)
    before = files(cache_path)
    edit(stream.photos[1], title="2000", image_revision=1)
    result = run(box, info_level=2, refresh=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert result.complete
    assert files(cache_path) == before


def test_the_output_of_a_refresh_says_what_was_new(box, mirror):
    mirror(box)
    edit(box.photostream.photos[1], title="2000", image_revision=1)
    refreshed = mirror(box, "--refresh")
    assert refreshed.returncode == 0
    assert "1 new image and 1 new information file" in refreshed.stdout.splitlines()[-1]
    digest = digest_of(box.photostream.photos[1])
    assert f"Caching changed information of photo {digest}..." in refreshed.stderr
    assert f"Caching replaced image of photo {digest}..." in refreshed.stderr


def test_the_date_of_an_old_version_is_one_that_can_be_read(box, run, cache_path):
    photo = box.photostream.photos[1]
    run(box)
    edit(photo, title="2000")
    run(box, refresh=True)
    [old] = Path(cache_path, "sandbox").glob(f"{digest_of(photo)}.*.json")
    date = datetime.datetime.strptime(old.name.split(".")[1], "%Y%m%dT%H%M%S%z")
    assert date.timestamp() == photo.date_upload
