"""What a mirror asks of Flickr, over HTTP and read off the sandbox's counters (issue 3).

Most tests list a few photos a page in place of Flickr's 500; some do it in full. Unless a text
matters it is empty or all digits, which takes no time to tell the language of.
"""

import collections
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import KEY, SECRET, HeldClock, calls, digest_of, files_in, program_environment
from sandbox import SIZE_KEYS, Photostream, Sandbox, SandboxPhoto, image_of, sizes_of

import flickr
from flickr import CachingStrategy, FlickrUserPhotostreamMirroringAgent

LIFO, FIFO = CachingStrategy.LIFO, CachingStrategy.FIFO
both_strategies = pytest.mark.parametrize("strategy", [LIFO, FIFO], ids=["LIFO", "FIFO"])

WORDLESS = {"title": "", "description": "", "comments": [], "width": 64, "height": 64}
STATE = ".mirror_flickr.state"


def stream_of(count, comments_every=0, videos_every=0):
    """A photostream of small images, without words."""
    photos = []
    for number in range(1, count + 1):
        fields = dict(WORDLESS)
        if comments_every and number % comments_every == 0:
            fields["comments"] = ["1", "2"]
        if videos_every and number % videos_every == 0:
            fields["media"] = "video"
        photos.append(SandboxPhoto(str(1_000_000 + 7 * number), **fields))
    return Photostream(photos=photos)


def upload(box, count, **fields):
    """Have the user upload photos without words; return them."""
    return box.photostream.add(count, **(WORDLESS | fields))


@pytest.fixture
def run(agent):
    """Run an agent, all counts starting at 0, and be sure that it finds everything."""

    def go(box, **options):
        box.reset_counts()
        result = agent(box, cache_directory_depth=0, **options).run()
        assert result.complete
        return result

    return go


@pytest.fixture
def run_until(agent):
    """Run an agent and stop it at its n-th image request or its n-th listing call."""

    def go(box, *, image=None, listing=None, **options):
        stopped = agent(box, cache_directory_depth=0, **options)

        def look(request):
            if image in (box.images, None) and listing in (listings(box), None):
                stopped.stop()

        box.reset_counts()
        box.on_request = look
        with pytest.raises(flickr.Stopped):
            stopped.run()
        box.on_request = None

    return go


def listings(box):
    """Calls for a page of the photostream."""
    return box.calls["flickr.people.getPhotos"]


def pages_asked(box):
    """The pages of the photostream that were asked for, in order."""
    return [int(each.params["page"]) for each in box.requests if "getPhotos" in each.method]


def photos_asked(box, method):
    """The ids that a method was called with, in order."""
    asked = (request for request in box.requests if request.method.endswith(method))
    return [request.params["photo_id"] for request in asked]


def extras_asked(box):
    """The extras of the calls for the listing; they are the same in all of them."""
    [extras] = {
        each.params.get("extras", "") for each in box.requests if "getPhotos" in each.method
    }
    return sorted(filter(None, extras.split(",")))


def fetched_twice(box):
    """Paths of images that were asked for more than once."""
    asked = collections.Counter(each.path for each in box.requests if each.kind == "image")
    return [path for path, count in asked.items() if count > 1]


def lacking(box, cache_path, extension=".jpg"):
    """Ids of the photos that are listed and not on disk, at depth 0."""
    folder = cache_path / box.photostream.username
    names = set(os.listdir(folder)) if folder.exists() else set()
    rows, _, _ = box.photostream.page(1, 10**6)
    return {photo.id for photo in rows if digest_of(photo) + extension not in names}


def pages_with(box, ids, per_page):
    """The pages that hold any of these photos, as they are numbered now."""
    count = len(box.photostream.photos)
    numbers = [number for number, photo in enumerate(box.photostream.photos) if photo.id in ids]
    return {(count - 1 - number) // per_page + 1 for number in numbers}


def contents(folder):
    """Path and bytes of every file of a mirror, its own hidden ones left out."""
    return {path: (folder / path).read_bytes() for path in files_in(folder)}


# ----------------------------------------------------------- the listing, 500 photos a page

MANY = 1_003  # photos on three pages
COMMENTS_EVERY = 50


@pytest.fixture(scope="module")
def many_mirrored(tmp_path_factory):
    """A mirror of information at level 2, and what the run that made it asked for."""
    cache_path = tmp_path_factory.mktemp("many")
    with Sandbox(stream_of(MANY, COMMENTS_EVERY)) as box:
        FlickrUserPhotostreamMirroringAgent(
            box.photostream.username, KEY, SECRET, cache_path, 0,
            info_only=True, info_level=2, api_url=box.url,
        ).run()  # fmt: skip
        return cache_path, calls(box), photos_asked(box, "getList"), box.requests


@pytest.fixture
def many(many_mirrored, sandbox, cache_path):
    """A sandbox of many photos whose information is mirrored."""
    shutil.copytree(many_mirrored[0], cache_path)
    return sandbox(stream_of(MANY, COMMENTS_EVERY))


@pytest.mark.parametrize("level", [0, 1])
def test_a_first_run_without_comments_costs_the_pages_and_two_calls(
    sandbox, run, cache_path, level
):
    box = sandbox(stream_of(MANY, COMMENTS_EVERY))
    run(box, info_only=True, info_level=level)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 3 + 1}
    assert not lacking(box, cache_path, ".json")


def test_a_first_run_with_comments_costs_one_call_more_for_each_photo_that_has_any(many_mirrored):
    _, asked, with_comments, _ = many_mirrored
    assert asked == {"findByUsername": 1, "getPhotos": 3 + 1, "getList": 20}
    assert sorted(with_comments) == sorted(
        photo.id for photo in stream_of(MANY, COMMENTS_EVERY).photos if photo.comments
    )


def test_the_listing_is_read_500_photos_at_a_time(many_mirrored):
    listed = [request for request in many_mirrored[-1] if "getPhotos" in request.method]
    assert {request.params["per_page"] for request in listed} == {"500"}
    assert [request.params["page"] for request in listed] == ["1", "2", "3", "1"]


@both_strategies
@pytest.mark.parametrize("level", [0, 2])
def test_many_photos_that_are_up_to_date_cost_two_calls(many, run, level, strategy):
    result = run(many, info_only=True, info_level=level, caching_strategy=strategy)
    assert calls(many) == {"findByUsername": 1, "getPhotos": 1}
    assert (result.infos, result.photo_count) == (0, MANY)


@both_strategies
def test_450_new_photos_cost_two_calls_and_what_they_need_themselves(
    many, run, cache_path, strategy
):
    upload(many, 430)
    with_comments = upload(many, 20, comments=["3"])
    result = run(many, info_only=True, info_level=2, caching_strategy=strategy)
    assert calls(many) == {"findByUsername": 1, "getPhotos": 1, "getList": 20}
    assert sorted(photos_asked(many, "getList")) == [photo.id for photo in with_comments]
    assert result.infos == 450
    assert not lacking(many, cache_path, ".json")


def test_the_state_file_of_many_photos_is_one_small_json_file(many, cache_path):
    hidden = {path.name for path in cache_path.rglob(".*")}
    assert hidden == {STATE, ".mirror_flickr.lock"}
    content = (cache_path / "sandbox" / STATE).read_bytes()
    assert len(content) < 10_000
    assert isinstance(json.loads(content), dict)


def test_the_state_file_does_not_grow_with_the_runs(many, run, cache_path):
    sizes = []
    for _ in range(3):
        upload(many, 12)
        run(many, info_only=True)
        sizes.append((cache_path / "sandbox" / STATE).stat().st_size)
    assert max(sizes) < 1_000


@pytest.mark.parametrize(
    ("strategy", "stop_at"),
    [
        # When the third page is asked for, the first one is finished.
        (LIFO, 3),
        # The first call is for the total alone.
        (FIFO, 4),
    ],
    ids=["LIFO", "FIFO"],
)
def test_a_stopped_run_goes_on_with_its_pages_when_500_photos_were_added(
    sandbox, run, run_until, cache_path, strategy, stop_at
):
    options = {"info_only": True, "caching_strategy": strategy}
    box = sandbox(stream_of(MANY))
    run_until(box, listing=stop_at, **options)
    upload(box, 500)
    run(box, **options)
    # Of four pages one is finished: page 2, or page 4 with the three oldest photos.
    assert listings(box) <= 3 + 2
    assert not lacking(box, cache_path, ".json")


# ------------------------------------------------------------ a first run, photos and pages


@both_strategies
@pytest.mark.parametrize("count", [0, 1, 10, 11, 25])
def test_a_first_run_reads_each_page_and_the_first_one_again(
    sandbox, run, cache_path, count, strategy
):
    box = sandbox(stream_of(count))
    run(box, info_level=1, per_page=10, caching_strategy=strategy)
    pages = -(-count // 10)
    again = 1 if pages > 1 else 0
    assert calls(box) == {"findByUsername": 1, "getPhotos": max(1, pages) + again}
    assert box.images == count
    assert not lacking(box, cache_path) | lacking(box, cache_path, ".json")


SIZES = [f"url_{key}" for key in SIZE_KEYS]


@pytest.mark.parametrize(
    ("options", "extras"),
    [
        # The dates are those that the files get.
        ({"image_only": True}, ["media", "date_upload", *SIZES]),
        ({"info_only": True}, ["last_update"]),
        ({"info_only": True, "info_level": 1}, ["last_update", "description"]),
        ({"info_only": True, "info_level": 2}, ["last_update", "description", "count_comments"]),
        ({}, ["media", "date_upload", *SIZES, "last_update"]),
        (
            {"info_level": 2},
            ["media", "date_upload", *SIZES, "last_update", "description", "count_comments"],
        ),
    ],
    ids=["images", "titles", "descriptions", "comments", "images and titles", "all"],
)
def test_the_listing_is_asked_for_what_the_run_needs_and_no_more(sandbox, run, options, extras):
    box = sandbox(stream_of(12))
    run(box, per_page=5, **options)
    assert extras_asked(box) == sorted(extras)


def test_what_a_row_holds_is_not_asked_for_again(sandbox, run):
    box = sandbox(stream_of(12, comments_every=4, videos_every=5))
    run(box, info_level=2)
    photos = box.photostream.photos
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getList": 3, "getSizes": 2}
    assert set(photos_asked(box, "getList")) == {each.id for each in photos if each.comments}
    assert set(photos_asked(box, "getSizes")) == {
        each.id for each in photos if each.media == "video"
    }


@both_strategies
def test_a_video_costs_one_call_for_its_sizes_and_none_ever_after(
    sandbox, run, cache_path, strategy
):
    options = {"image_only": True, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(12, videos_every=2))
    run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4, "getSizes": 6}
    (cache_path / "sandbox" / STATE).unlink()
    run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4}
    assert box.images == 0


@pytest.mark.parametrize(
    ("server", "more"),
    [
        ({"plain": True}, {"getSizes": 12, "getInfo": 12, "getList": 12}),
        ({"missing_extras": ["count_comments"]}, {"getList": 12}),
        ({"missing_extras": ["description"]}, {"getInfo": 12, "getList": 3}),
        ({"missing_extras": SIZES}, {"getSizes": 12, "getList": 3}),
    ],
    ids=["plain", "no comment counts", "no descriptions", "no sizes"],
)
def test_where_a_row_lacks_something_the_photos_own_method_is_called(
    sandbox, run, cache_path, server, more
):
    box = sandbox(stream_of(12, comments_every=4), **server)
    run(box, info_level=2, per_page=5)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4} | more
    assert not lacking(box, cache_path) | lacking(box, cache_path, ".json")
    # And not once more.
    run(box, info_level=2, per_page=5)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def test_on_a_plain_server_only_what_the_run_needs_is_asked_for(sandbox, run):
    box = sandbox(stream_of(12, comments_every=4), plain=True)
    run(box, info_only=True, info_level=0)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    run(box, info_only=True, info_level=1)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getInfo": 12}
    run(box, image_only=True)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1, "getSizes": 12}


# ------------------------------------------------------------------------ up to date


@both_strategies
@pytest.mark.parametrize("added", [0, 1, 9])
def test_new_photos_that_fit_on_a_page_cost_two_calls(sandbox, run, cache_path, added, strategy):
    options = {"info_level": 1, "per_page": 10, "caching_strategy": strategy}
    box = sandbox(stream_of(25))
    run(box, **options)
    upload(box, added)
    result = run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert (result.images, result.infos, box.images) == (added, added, added)
    assert not lacking(box, cache_path)


@both_strategies
@pytest.mark.parametrize("added", [10, 11, 20, 33])
def test_more_new_photos_cost_their_pages_and_two_listing_calls_at_most(
    sandbox, run, cache_path, added, strategy
):
    options = {"image_only": True, "per_page": 10, "caching_strategy": strategy}
    box = sandbox(stream_of(25))
    run(box, **options)
    upload(box, added)
    run(box, **options)
    assert listings(box) <= -(-added // 10) + 2
    assert box.images == added
    assert not lacking(box, cache_path)


def test_switching_the_strategy_costs_nothing_where_all_is_done(sandbox, run):
    box = sandbox(stream_of(25))
    for strategy in (LIFO, FIFO, LIFO):
        run(box, image_only=True, per_page=10, caching_strategy=strategy)
        first = strategy is LIFO and pages_asked(box) == [1, 2, 3, 1]
        assert first or calls(box) == {"findByUsername": 1, "getPhotos": 1}


# ------------------------------------------------------------- a run that stopped goes on


def assert_it_goes_on(box, run, cache_path, unfinished, **options):
    """Run, and see that it fetches what is lacking, at two listing calls more than its pages."""
    to_fetch = lacking(box, cache_path)
    left = pages_with(box, unfinished | to_fetch, options["per_page"])
    run(box, **options)
    assert listings(box) <= len(left) + 2
    assert calls(box) == {"findByUsername": 1, "getPhotos": listings(box)}
    assert box.images == len(to_fetch)
    assert not lacking(box, cache_path)
    # And that was all.
    run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def left_unfinished(box, cache_path, per_page):
    """The ids of all photos on the pages that lack some."""
    pages = pages_with(box, lacking(box, cache_path), per_page)
    return {photo.id for page in pages for photo in box.photostream.page(page, per_page)[0]}


@both_strategies
@pytest.mark.parametrize("added", [0, 4, 9])
@pytest.mark.parametrize("stop_at", [1, 11, 22])
def test_a_stopped_run_goes_on_at_two_listing_calls_more_than_its_pages(
    sandbox, run, run_until, cache_path, stop_at, added, strategy
):
    options = {"image_only": True, "per_page": 4, "jobs": 1, "caching_strategy": strategy}
    box = sandbox(stream_of(24))
    run_until(box, image=stop_at, **options)
    unfinished = left_unfinished(box, cache_path, 4)
    assert len(unfinished) == 24 - (stop_at - 1) // 4 * 4
    upload(box, added)
    assert_it_goes_on(box, run, cache_path, unfinished, **options)


@both_strategies
@pytest.mark.parametrize("added", [0, 3, 8])
def test_the_strategy_may_be_switched_after_a_stop(
    sandbox, run, run_until, cache_path, added, strategy
):
    options = {"image_only": True, "per_page": 4, "jobs": 1}
    box = sandbox(stream_of(24))
    run_until(box, image=14, caching_strategy=strategy, **options)
    unfinished = left_unfinished(box, cache_path, 4)
    upload(box, added)
    other = LIFO if strategy is FIFO else FIFO
    assert_it_goes_on(box, run, cache_path, unfinished, caching_strategy=other, **options)


@both_strategies
def test_a_run_that_is_stopped_again_and_again_goes_on_each_time(
    sandbox, run, run_until, cache_path, strategy
):
    options = {"image_only": True, "per_page": 4, "jobs": 1, "caching_strategy": strategy}
    box = sandbox(stream_of(30))
    unfinished = {photo.id for photo in box.photostream.photos}
    for added in (0, 5, 4):
        unfinished |= {photo.id for photo in upload(box, added)}
        left = pages_with(box, unfinished, 4)
        run_until(box, image=10, **options)
        assert listings(box) <= len(left) + 2
        unfinished &= left_unfinished(box, cache_path, 4)
    assert_it_goes_on(box, run, cache_path, unfinished, **options)


@both_strategies
@pytest.mark.parametrize("stop_at", [1, 2, 4, 6])
def test_a_run_stopped_with_many_images_under_way_fetches_none_twice(
    sandbox, run, run_until, cache_path, stop_at, strategy
):
    options = {"image_only": True, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(24), image_delay=0.005)
    run_until(box, listing=stop_at, **options)
    to_fetch = len(lacking(box, cache_path))
    run(box, **options)
    assert box.images == to_fetch
    assert not lacking(box, cache_path)


# -------------------------------------------------------------- images and information


@both_strategies
def test_images_after_information_read_the_listing_again_and_fetch_images_only(
    sandbox, run, cache_path, strategy
):
    options = {"info_level": 2, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(13, comments_every=5))
    run(box, info_only=True, **options)
    before = contents(cache_path)
    result = run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4}
    assert (result.images, result.infos, box.images) == (13, 0, 13)
    after = contents(cache_path)
    assert {path: after[path] for path in before} == before


@both_strategies
def test_information_after_images_fetches_no_image(sandbox, run, cache_path, strategy):
    options = {"per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(13, comments_every=5))
    run(box, image_only=True, **options)
    result = run(box, info_level=2, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4, "getList": 2}
    assert (result.images, result.infos, box.images) == (0, 13, 0)
    assert not lacking(box, cache_path, ".json")


@both_strategies
@pytest.mark.parametrize(
    ("lower", "higher", "more"), [(0, 1, {}), (0, 2, {"getList": 2}), (1, 2, {"getList": 2})]
)
def test_a_higher_level_reads_the_listing_again_and_fetches_what_is_lacking(
    sandbox, run, lower, higher, more, strategy
):
    options = {"per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(13, comments_every=5))
    run(box, info_level=lower, **options)
    result = run(box, info_level=higher, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4} | more
    assert (result.images, result.infos, box.images) == (0, 13, 0)
    # Then every level is done.
    for level in (higher, lower):
        run(box, info_level=level, **options)
        assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


# --------------------------------------------------------------------- photos that failed


@both_strategies
@pytest.mark.parametrize("unlucky", [0, 17, 34], ids=["oldest", "middle", "newest"])
def test_an_image_that_failed_is_tried_again_at_three_listing_calls(
    sandbox, agent, run, cache_path, unlucky, strategy
):
    options = {"image_only": True, "per_page": 10, "caching_strategy": strategy}
    box = sandbox(stream_of(35))
    photo = box.photostream.photos[unlucky]
    box.faults.always(f"/{photo.id}_", "503")
    for _ in range(2):
        box.reset_counts()
        result = agent(box, cache_directory_depth=0, clock=HeldClock(), **options).run()
        assert set(result.failed) == {photo.id}
        assert lacking(box, cache_path) == {photo.id}
    assert listings(box) <= 3
    assert set(fetched_twice(box)) == {each.path for each in box.requests if each.kind == "image"}
    box.faults.clear()
    run(box, **options)
    assert listings(box) <= 3
    assert box.images == 1
    assert not lacking(box, cache_path)
    run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


@both_strategies
def test_comments_that_failed_are_tried_again_and_no_image_is(sandbox, agent, run, strategy):
    options = {"info_level": 2, "per_page": 10, "caching_strategy": strategy}
    box = sandbox(stream_of(35, comments_every=5))
    photo = box.photostream.photos[14]
    box.faults.always(f"photo_id={photo.id}", "105")
    result = agent(box, cache_directory_depth=0, clock=HeldClock(), **options).run()
    assert set(result.failed) == {photo.id}
    box.faults.clear()
    result = run(box, **options)
    assert listings(box) <= 3
    assert photos_asked(box, "getList") == [photo.id]
    assert (result.images, result.infos, box.images) == (0, 1, 0)


@pytest.mark.parametrize("position", [17, 34], ids=["middle", "newest"])
def test_a_photo_that_is_gone_is_not_asked_for_again(sandbox, agent, position):
    box = sandbox(stream_of(35))
    gone = box.photostream.photos[position]
    gone.gone = True
    options = {"image_only": True, "per_page": 10, "cache_directory_depth": 0}
    assert set(agent(box, **options).run().unavailable) == {gone.id}
    box.reset_counts()
    agent(box, **options).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}
    assert box.images == 0


# ------------------------------------------------------------------ photos that were deleted


@both_strategies
# With 6 added, the newest of the old numbers is that of a new photo, alone on its page.
@pytest.mark.parametrize("added", [2, 6, 16])
@pytest.mark.parametrize("deleted", [0, 9, 17], ids=["oldest", "middle", "newest"])
def test_a_deletion_that_additions_outweigh_is_noticed(
    sandbox, run, cache_path, deleted, added, strategy
):
    options = {"image_only": True, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(18))
    run(box, **options)
    before = contents(cache_path)
    box.photostream.remove(box.photostream.photos[deleted].id)
    upload(box, added)
    run(box, **options)
    assert not lacking(box, cache_path)
    assert box.images == added
    after = contents(cache_path)
    assert {path: after[path] for path in before} == before
    run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


@both_strategies
@pytest.mark.parametrize("added", [0, 1, 7])
def test_a_deletion_while_a_run_is_stopped_loses_nothing(
    sandbox, run, run_until, cache_path, added, strategy
):
    options = {"image_only": True, "per_page": 4, "jobs": 1, "caching_strategy": strategy}
    box = sandbox(stream_of(24))
    run_until(box, image=14, **options)
    for position in (20, 12, 3):
        box.photostream.remove(box.photostream.photos[position].id)
    upload(box, added)
    to_fetch = len(lacking(box, cache_path))
    run(box, **options)
    assert box.images == to_fetch
    assert not lacking(box, cache_path)


# ------------------------------------------------------------------- pages that come short


@both_strategies
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("page", [1, 2, 4])
def test_a_page_that_comes_short_is_asked_for_again(
    sandbox, run, cache_path, page, times, strategy
):
    box = sandbox(stream_of(18))
    box.faults.short_page(page, drop=2, times=times)
    run(box, image_only=True, per_page=5, caching_strategy=strategy)
    assert listings(box) == 4 + 1 + times
    assert box.images == 18
    assert not lacking(box, cache_path)
    run(box, image_only=True, per_page=5, caching_strategy=strategy)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


@both_strategies
def test_a_page_that_stays_short_is_looked_at_by_the_next_run_and_then_believed(
    sandbox, run, cache_path, strategy
):
    options = {"image_only": True, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(18))
    box.faults.short_page(2, drop=2, times=None)
    run(box, **options)
    assert pages_asked(box).count(2) == 1 + 3
    assert listings(box) == 4 + 1 + 3
    assert len(lacking(box, cache_path)) == 2
    run(box, **options)
    assert pages_asked(box).count(2) == 1
    assert listings(box) <= 3
    run(box, **options)
    assert pages_asked(box) == [1]
    assert box.images == 0


@both_strategies
def test_a_page_that_is_whole_again_gives_the_next_run_what_it_had_kept_back(
    sandbox, run, cache_path, strategy
):
    options = {"image_only": True, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(18))
    box.faults.short_page(2, drop=2, times=4)
    run(box, **options)
    assert len(lacking(box, cache_path)) == 2
    run(box, **options)
    assert listings(box) <= 3
    assert box.images == 2
    assert not lacking(box, cache_path)


@both_strategies
def test_a_photo_that_flickr_counts_and_does_not_show_costs_two_runs_and_no_more(
    sandbox, run, cache_path, strategy
):
    options = {"image_only": True, "per_page": 5, "caching_strategy": strategy}
    box = sandbox(stream_of(18))
    box.photostream.hidden = {box.photostream.photos[9].id}
    costs = []
    for _ in range(3):
        run(box, **options)
        costs.append(listings(box))
    assert costs[0] == 4 + 1 + 3
    assert costs[1] <= 3
    assert costs[2] == 1
    assert not lacking(box, cache_path)


# -------------------------------------------------------- a photostream that moves meanwhile


@both_strategies
@pytest.mark.parametrize("added", [1, 7])
@pytest.mark.parametrize("at", [{2}, {3}, {1, 2, 3, 4}], ids=str)
def test_photos_that_slide_to_the_next_page_are_neither_lost_nor_fetched_twice(
    sandbox, run, cache_path, at, added, strategy
):
    def grow(request):
        if "getPhotos" in request.method and listings(box) in at:
            upload(box, added)

    # The images take their time, so that those of two pages are under way.
    box = sandbox(stream_of(18), image_delay=0.01, on_request=grow)
    run(box, image_only=True, per_page=5, jobs=4, caching_strategy=strategy)
    assert fetched_twice(box) == []
    box.on_request = None
    # What was uploaded after the last look is left to the next run.
    missing = len(lacking(box, cache_path))
    assert missing in (0, added)
    assert box.images == len(box.photostream.photos) - missing
    run(box, image_only=True, per_page=5, caching_strategy=strategy)
    assert box.images == missing
    assert not lacking(box, cache_path)


@both_strategies
@pytest.mark.parametrize("at", [2, 3, 4])
def test_photos_that_slide_back_because_others_are_deleted_are_not_lost(
    sandbox, agent, cache_path, at, strategy
):
    def shrink(request):
        if "getPhotos" in request.method and listings(box) == at:
            for position in (15, 8, 0):
                box.photostream.remove(box.photostream.photos[position].id)

    box = sandbox(stream_of(18), on_request=shrink)
    # Not `run`: what was listed and then deleted may be reported as gone.
    agent(
        box, cache_directory_depth=0, image_only=True, per_page=5, caching_strategy=strategy
    ).run()
    assert fetched_twice(box) == []
    assert not lacking(box, cache_path)


# ------------------------------------------------ without a state file, or with another one


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b'{"images": [[1, 2',
        b"\xff\x00\xfe",
        b"[]",
        b"null",
        b'{"version": 0, "nsid": "12345678@N01", "pages_done": [1, 2], "page_length": 100}',
        b'{"images": {"first": 1}, "infos": [], "short": 0, "anchors": 0}',
        b"[" * 100_000,
    ],
    ids=["missing", "empty", "cut", "binary", "list", "null", "older", "another", "deep"],
)
def test_without_its_state_file_a_mirror_costs_a_look_at_the_listing_and_nothing_else(
    sandbox, run, cache_path, content
):
    options = {"info_level": 2, "per_page": 5}
    box = sandbox(stream_of(13, comments_every=5, videos_every=6))
    run(box, **options)
    before = contents(cache_path)
    state = cache_path / "sandbox" / STATE
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    result = run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4}
    assert (result.images, result.infos, box.images) == (0, 0, 0)
    assert contents(cache_path) == before
    run(box, **options)
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


def test_a_cache_that_an_older_program_made_is_adopted(sandbox, agent, cache_path):
    box = sandbox(stream_of(25))
    for photo in box.photostream.photos[5:20]:
        name = f"{digest_of(photo)}.jpg"
        path = cache_path.joinpath("sandbox", *name[:4], name)
        path.parent.mkdir(parents=True)
        best = max(sizes_of(photo), key=lambda size: size.width * size.height)
        path.write_bytes(image_of(photo, best.key)[1])
        info = {"title": {"content": "", "locale": "eng"}}
        path.with_suffix(".json").write_text(json.dumps(info))
    before = contents(cache_path)
    result = agent(box, per_page=10).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 4}
    assert (result.images, result.infos, box.images) == (10, 10, 10)
    after = contents(cache_path)
    assert {path: after[path] for path in before} == before
    assert len(after) == 50
    box.reset_counts()
    agent(box, per_page=10).run()
    assert calls(box) == {"findByUsername": 1, "getPhotos": 1}


@pytest.mark.parametrize("state", ["there", "missing"])
def test_another_depth_than_the_mirror_was_made_with_is_refused(
    sandbox, agent, mirror, cache_path, state
):
    box = sandbox(stream_of(3))
    agent(box).run()
    if state == "missing":
        (cache_path / "sandbox" / STATE).unlink()
    before = contents(cache_path)
    box.reset_counts()
    run = mirror(box, "--cache-directory-depth", "2")
    assert run.returncode == 2
    assert run.stdout == ""
    [line] = run.stderr.splitlines()
    assert "--cache-directory-depth 4, not 2" in line
    assert str(cache_path / "sandbox") in line
    assert (listings(box), box.images) == (0, 0)
    assert contents(cache_path) == before


def test_in_the_library_another_depth_is_an_error_of_its_own(sandbox, agent):
    box = sandbox(stream_of(3))
    agent(box, cache_directory_depth=1).run()
    with pytest.raises(flickr.MirrorError, match="was made with --cache-directory-depth 1") as told:
        agent(box, cache_directory_depth=0).run()
    assert told.value.status == 2


def test_what_a_finished_page_holds_is_known_even_after_the_program_was_killed(
    sandbox, run, cache_path
):
    program = (
        "from flickr import *\n"
        f"FlickrUserPhotostreamMirroringAgent('sandbox', {KEY!r}, {SECRET!r}, {str(cache_path)!r},"
        " 0, image_only=True, caching_strategy=CachingStrategy.FIFO, per_page=5, jobs=1).run()"
    )

    def kill(request):
        if box.images == 13:
            os.kill(process.pid, signal.SIGKILL)

    box = sandbox(stream_of(23), on_request=kill)
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(
        command, env=program_environment(box), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.wait(timeout=30) == -signal.SIGKILL
    box.on_request = None
    to_fetch = len(lacking(box, cache_path))
    assert to_fetch == 23 - 12
    run(box, image_only=True, per_page=5, caching_strategy=FIFO)
    # The third page could be asked for only when the first to be read, page 5, was finished.
    assert 5 not in pages_asked(box)
    assert box.images == to_fetch
    assert not lacking(box, cache_path)
    leftovers = [path for path in cache_path.rglob(".*") if path.name.endswith("part")]
    assert leftovers == []


@both_strategies
def test_the_state_file_is_written_whenever_a_page_is_finished(sandbox, run, cache_path, strategy):
    states = []

    def look(request):
        path = cache_path / "sandbox" / STATE
        if request.kind == "image" and path.exists():
            # Whenever it is looked at, it is a whole JSON object.
            states.append(json.loads(path.read_bytes()))

    box = sandbox(stream_of(20), on_request=look)
    run(box, image_only=True, per_page=5, jobs=1, caching_strategy=strategy)
    different = [state for state, _ in itertools.groupby(states)]
    assert len(states) == 20
    assert len(different) >= 3


def test_no_language_is_detected_of_what_is_on_disk(
    sandbox, agent, cache_path, tmp_path, monkeypatch
):
    box = sandbox(Photostream.generated(30))
    options = {"info_only": True, "info_level": 1, "per_page": 5}
    agent(box, **options).run()
    before = contents(cache_path)
    box.photostream.remove(box.photostream.photos[0].id)
    started = tmp_path / "started"
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(flickr.sys, "executable", str(program))
    box.reset_counts()
    assert agent(box, **options).run().complete
    assert listings(box) >= 6, "all pages are looked at again"
    assert contents(cache_path) == before
    assert not started.exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_folder_that_can_not_be_looked_into_is_told_of(sandbox, agent, cache_path, dry_run):
    box = sandbox(stream_of(3))
    agent(box, image_only=True).run()
    box.reset_counts()
    (cache_path / "sandbox" / STATE).unlink()
    for path in (cache_path / "sandbox").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
            path.symlink_to(path.name)  # which leads round in circles, for root too
    with pytest.raises(flickr.MirrorError, match=f"cannot mirror: .*{cache_path}"):
        agent(box, image_only=True, dry_run=dry_run).run()
    assert box.images == 0


# ------------------------------------------------------------------------- the last line


def test_the_last_line_says_what_was_done(sandbox, mirror, cache_path):
    box = sandbox(stream_of(12, comments_every=4))
    box.photostream.photos[3].gone = True
    run = mirror(box, "--info-level", "2")
    assert run.returncode == 1
    size = sum(len(content) for content in contents(cache_path).values())
    line = re.compile(
        r"sandbox: 11 new images and 11 new information files, ([0-9.]+) kB, of 12 photos;"
        r" (\d+) API calls, \d+ s; 1 unavailable"
    )
    told = line.fullmatch(run.stdout.splitlines()[-1])
    assert float(told[1]) == round(size / 1000, 1)
    assert int(told[2]) == box.api_calls == 5
    again = mirror(box, "--info-level", "2")
    assert again.returncode == 0
    assert again.stdout.endswith("; 1 unavailable as before; nothing failed\n")


def test_the_result_of_a_run_is_its_last_line(sandbox, agent):
    box = sandbox(stream_of(12))
    photos = box.photostream.photos
    box.faults.always(f"/{photos[5].id}_", "503")
    clock = HeldClock()
    first = agent(box, image_only=True, per_page=5, clock=clock).run()
    assert first.seconds == clock.now() > 10
    seconds = flickr.span_of(first.seconds)
    assert str(first) == (
        f"sandbox: 11 new images and 0 new information files, {flickr.size_of(first.size)},"
        f" of 12 photos; 5 API calls, {seconds}; 1 failed"
    )
    box.faults.clear()
    box.reset_counts()
    second = agent(box, per_page=5, clock=HeldClock()).run()
    assert second.calls == box.api_calls
    assert str(second) == (
        "sandbox: 1 new image and 12 new information files,"
        f" {flickr.size_of(second.size)}, of 12 photos; {box.api_calls} API calls, 0 s;"
        " nothing failed"
    )


def test_an_agent_that_runs_again_tells_of_its_second_run_alone(sandbox, agent):
    box = sandbox(stream_of(12))
    again = agent(box, info_only=True, per_page=5)
    assert again.run().calls == box.api_calls == 5
    box.reset_counts()
    upload(box, 2)
    result = again.run()
    # Its user is known to it.
    assert calls(box) == {"getPhotos": 1}
    assert (result.calls, result.infos, result.photo_count) == (1, 2, 14)
