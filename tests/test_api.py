"""FlickrApi, over real HTTP against the sandbox (waypoints 1, 2, 5, 6 and 7)."""

import inspect
import itertools

import pytest
import requests
from conftest import KEY, SECRET, HeldClock
from sandbox import DESCRIPTIONS, Faults, Photostream, sizes_of

import flickr
from flickr import FlickrApi, FlickrError, FlickrPhoto, FlickrPhotoSize, FlickrUser

NSID = "13476480@N07"


def photostream(count=7, **options):
    return Photostream.generated(count, username="manhhai", nsid=NSID, **options)


@pytest.fixture
def box(sandbox):
    """A sandbox with manhhai's seven photos; every third has comments."""
    return sandbox(photostream())


@pytest.fixture
def api(box):
    """A FlickrApi on it, with a clock that does not wait."""
    return FlickrApi(KEY, SECRET, url=box.url, web=flickr.Web(HeldClock()))


# ------------------------------------------------------------------------------ the keys


@pytest.mark.parametrize("name", ["consumer_key", "consumer_secret"])
def test_the_keys_are_private(name):
    flickr_api = FlickrApi("0123456789abcdef0123456789abcdef", "0123456789abcdef")
    with pytest.raises(AttributeError) as caught:
        getattr(flickr_api, name)
    assert str(caught.value) == f"'FlickrApi' object has no attribute '{name}'"


def test_the_keys_show_in_no_repr():
    shown = repr(FlickrApi(KEY, SECRET)) + str(FlickrApi(KEY, SECRET))
    assert KEY not in shown
    assert SECRET not in shown


def test_further_settings_are_keyword_only():
    with pytest.raises(TypeError):
        FlickrApi(KEY, SECRET, "http://127.0.0.1/")
    parameters = list(inspect.signature(FlickrApi).parameters.values())
    assert [each.name for each in parameters[:2]] == ["consumer_key", "consumer_secret"]
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters[2:])


def test_nothing_is_asked_before_there_is_a_question(box, api):
    assert box.requests == []


def test_the_key_is_sent_and_the_secret_never(box, api):
    user = api.find_user("manhhai")
    photos, _, _ = api.get_photos(user.id)
    api.get_photo_sizes(photos[0].id)
    api.get_photo_info(photos[0].id)
    assert len(box.requests) == 5
    for request in box.requests:
        assert request.params["api_key"] == KEY
        assert SECRET not in repr((request.path, request.params, request.headers))


def test_a_key_that_flickr_does_not_know_is_refused_in_flickrs_words(sandbox):
    box = sandbox(photostream(), api_keys=["another"])
    with pytest.raises(FlickrError) as caught:
        FlickrApi(KEY, SECRET, url=box.url).find_user("manhhai")
    assert str(caught.value) == "Invalid API Key (Key has invalid format)"
    assert caught.value.code == 100
    assert box.api_calls == 1


# ------------------------------------------------------------------------------- finding


def test_a_user_is_found_by_name(box, api):
    user = api.find_user("manhhai")
    assert type(user) is FlickrUser
    assert user.username == "manhhai"
    assert user.user_id == user.id == NSID
    assert box.calls == {"flickr.people.findByUsername": 1}


@pytest.mark.parametrize("name", ["Elena Shumilova", "Phạm Mạnh Hải", "a&b=c#d", "50% +1", "名前"])
def test_a_name_may_hold_any_characters(sandbox, name):
    box = sandbox(Photostream(name, NSID))
    assert FlickrApi(KEY, SECRET, url=box.url).find_user(name).username == name


def test_a_user_who_is_not_there_is_an_exception_with_flickrs_message(box, api):
    with pytest.raises(Exception, match="^User not found$") as caught:
        api.find_user("Elena Shumilova")
    assert type(caught.value) is FlickrError
    assert caught.value.code == 1
    assert box.api_calls == 1  # Flickr's last word: it is not asked again


# ------------------------------------------------------------------------------- listing


def test_a_page_of_photos_comes_with_two_counts(api):
    photos, page_count, photo_count = api.get_photos(NSID, page=2, per_page=3)
    assert all(type(photo) is FlickrPhoto for photo in photos)
    assert len(photos) == 3
    assert (page_count, photo_count) == (3, 7)
    assert type(page_count) is int
    assert type(photo_count) is int


def test_the_photos_come_newest_first_with_ids_and_titles(box, api):
    photos = itertools.chain(*(api.get_photos(NSID, page, 3)[0] for page in (1, 2, 3)))
    assert [(photo.id, photo.title.content) for photo in photos] == [
        (photo.id, photo.title) for photo in reversed(box.photostream.photos)
    ]


def test_a_page_is_of_100_photos_and_the_first_unless_said_otherwise(sandbox):
    box = sandbox(photostream(101))
    photos, page_count, photo_count = FlickrApi(KEY, SECRET, url=box.url).get_photos(NSID)
    assert (len(photos), page_count, photo_count) == (100, 2, 101)
    [request] = box.requests
    assert request.params["per_page"] == "100"
    assert request.params["page"] == "1"
    assert request.params["user_id"] == NSID


def test_counts_are_numbers_however_flickr_writes_them(box, api):
    # The sandbox writes the total as text on odd pages and as a number on even ones.
    for page in (1, 2, 3, 4):
        _, page_count, photo_count = api.get_photos(NSID, page=page, per_page=2)
        assert (page_count, photo_count) == (4, 7)
        assert (type(page_count), type(photo_count)) == (int, int)


def test_an_empty_photostream_has_no_pages(sandbox):
    box = sandbox(photostream(0))
    assert FlickrApi(KEY, SECRET, url=box.url).get_photos(NSID) == ([], 0, 0)


@pytest.mark.parametrize("per_page", [1, 500])
def test_the_limits_of_a_page_are_allowed(box, api, per_page):
    photos, _, _ = api.get_photos(NSID, per_page=per_page)
    assert len(photos) == min(7, per_page)
    assert box.requests[0].params["per_page"] == str(per_page)


@pytest.mark.parametrize("per_page", [0, -1, 501, 10_000])
def test_a_length_of_page_that_flickr_does_not_have_is_an_error_before_any_request(
    box, api, per_page
):
    with pytest.raises(ValueError, match=str(per_page)):
        api.get_photos(NSID, per_page=per_page)
    assert box.requests == []


@pytest.mark.parametrize("page", [0, -1])
def test_a_page_before_the_first_is_an_error_before_any_request(box, api, page):
    with pytest.raises(ValueError, match=str(page)):
        api.get_photos(NSID, page=page)
    assert box.requests == []


def test_the_listing_of_an_unknown_user_is_refused_in_flickrs_words(api):
    with pytest.raises(FlickrError) as caught:
        api.get_photos("0@N00")
    assert str(caught.value) == "Unknown user"
    assert caught.value.code == 2


# --------------------------------------------------------------------------------- sizes


def test_the_sizes_of_a_photo_are_flickrs_in_its_order(box, api):
    photo = box.photostream.photos[0]
    sizes = api.get_photo_sizes(photo.id)
    assert all(type(each) is FlickrPhotoSize for each in sizes)
    assert [(each.label, each.width, each.height, each.url) for each in sizes] == [
        (each.label, each.width, each.height, f"{box.base}/img/{each.server}/{each.name}")
        for each in sizes_of(photo)
    ]


def test_widths_and_heights_are_numbers_however_flickr_writes_them(box, api):
    sizes = [size for photo in box.photostream.photos for size in api.get_photo_sizes(photo.id)]
    assert {type(number) for size in sizes for number in (size.width, size.height)} == {int}


def test_the_best_size_follows_from_the_sizes(box, api):
    photos, _, _ = api.get_photos(NSID)
    photo = photos[0]
    assert photo.best_size is None
    photo.sizes = api.get_photo_sizes(photo.id)
    best = max(sizes_of(box.photostream.get(photo.id)), key=lambda each: each.width * each.height)
    assert (photo.best_size.label, photo.best_size.width) == (best.label, best.width)


def test_a_videos_sizes_come_with_unknown_ones_as_none(sandbox):
    box = sandbox(photostream(12, videos_every=1))
    api = FlickrApi(KEY, SECRET, url=box.url)
    sizes = [size for photo in box.photostream.photos for size in api.get_photo_sizes(photo.id)]
    assert {type(size.width) for size in sizes} == {int, type(None)}
    assert {size.media for size in sizes} == {"photo", "video"}


@pytest.mark.parametrize(
    "ask", ["get_photo_sizes", "get_photo_description", "get_photo_comments", "get_photo_info"]
)
def test_a_photo_that_is_gone_is_refused_in_flickrs_words(box, api, ask):
    box.photostream.photos[0].gone = True
    with pytest.raises(FlickrError) as caught:
        getattr(api, ask)(box.photostream.photos[0].id)
    assert str(caught.value) == "Photo not found"
    assert caught.value.code == 1
    assert box.api_calls == 1


# --------------------------------------------------------------------------------- texts


def test_the_description_of_a_photo_is_text_to_the_letter(box, api):
    for photo, description in zip(box.photostream.photos, DESCRIPTIONS, strict=False):
        photo.description = description
        assert api.get_photo_description(photo.id) == description
    assert set(box.calls) == {"flickr.photos.getInfo"}


def test_the_comments_on_a_photo_are_texts_oldest_first(box, api):
    photo = box.photostream.photos[2]
    photo.comments = [".\nnơi này thời Pháp thuộc:\n[http://x.org/]", "&quot;b&quot;", "", "a"]
    assert api.get_photo_comments(photo.id) == photo.comments
    assert box.calls == {"flickr.photos.comments.getList": 1}


def test_a_photo_without_comments_gives_an_empty_list(box, api):
    photo = box.photostream.photos[0]
    assert photo.comments == []
    assert api.get_photo_comments(photo.id) == []


def test_the_info_of_a_photo_is_its_description_and_its_comments(box, api):
    photo = box.photostream.photos[2]
    photo.description = ""
    assert len(photo.comments) > 1
    description, comments = api.get_photo_info(photo.id)
    assert description == ""
    assert comments == photo.comments
    assert box.calls == {"flickr.photos.getInfo": 1, "flickr.photos.comments.getList": 1}


def test_an_id_that_is_none_is_refused_in_flickrs_words(api):
    with pytest.raises(FlickrError) as caught:
        api.get_photo_description("none")
    assert str(caught.value) == 'Photo "none" not found (invalid ID)'


# ------------------------------------------------------------------------------ the web


def test_calls_ask_for_bare_json(box, api):
    api.find_user("manhhai")
    params = box.requests[0].params
    assert (params["format"], params["nojsoncallback"]) == ("json", "1")


def test_the_user_agent_names_the_program_and_its_version(box, api):
    api.find_user("manhhai")
    agent = box.requests[0].headers["user-agent"]
    assert agent.split()[0] == f"mirror-flickr/{flickr.__version__}"


def test_all_calls_go_over_one_connection_that_is_kept(box, api):
    for photo in box.photostream.photos:
        api.get_photo_info(photo.id)
    assert box.api_calls == 14
    assert box.connections == 1


def test_the_environment_may_name_another_endpoint(box, monkeypatch):
    monkeypatch.setenv("FLICKR_API_URL", box.url)
    assert FlickrApi(KEY, SECRET).find_user("manhhai").id == NSID
    assert box.api_calls == 1


def test_an_endpoint_that_is_given_counts_more_than_the_environments(box, monkeypatch):
    monkeypatch.setenv("FLICKR_API_URL", "http://nowhere.invalid/services/rest/")
    assert FlickrApi(KEY, SECRET, url=box.url).find_user("manhhai").id == NSID


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_the_environments_proxy_is_used(box, monkeypatch, variable):
    # No name server knows flickr.invalid: only a proxy, here the sandbox, answers for it.
    monkeypatch.setenv(variable, box.base)
    api = FlickrApi(KEY, SECRET, url="http://flickr.invalid/services/rest/")
    assert api.find_user("manhhai").id == NSID
    assert box.requests[0].headers["host"] == "flickr.invalid"


def test_the_environments_exceptions_from_the_proxy_are_honoured(box, sandbox, monkeypatch):
    proxy = sandbox(photostream())
    monkeypatch.setenv("HTTP_PROXY", proxy.base)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert FlickrApi(KEY, SECRET, url=box.url).find_user("manhhai").id == NSID
    assert (proxy.requests, len(box.requests)) == ([], 1)


@pytest.mark.parametrize(
    "path, asked",
    [
        ("/img/a~b.-_/1.jpg", "/img/a~b.-_/1.jpg"),
        ("/img/1 2.jpg", "/img/1%202.jpg"),
        ("/img/Huế.jpg", "/img/Hu%E1%BA%BF.jpg"),
        ("/img/100%.jpg", "/img/100%25.jpg"),
        ("/img/1%202.jpg", "/img/1%202.jpg"),
        ("/img/1.jpg?s=a b", "/img/1.jpg?s=a%20b"),
        ("/img/../1.jpg", "/1.jpg"),
        ("/img/./1.jpg", "/img/1.jpg"),
        ("", "/"),
    ],
)
def test_an_odd_address_is_asked_for_as_requests_does(box, path, asked):
    with flickr.Web().get(box.base + path) as response:
        assert response.request.url == box.base + asked
    with requests.get(box.base + path, timeout=5) as response:
        assert response.request.url == box.base + asked
    ours, theirs = box.requests
    assert ours.identity == theirs.identity


def test_no_password_from_netrc_is_sent_not_even_where_a_server_leads_on(
    box, tmp_path, monkeypatch
):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    photo = box.photostream.photos[0]
    photo.gone = True  # its image's address leads to the "unavailable" picture
    size = sizes_of(photo)[0]
    with flickr.Web().get(f"{box.base}/img/{size.server}/{size.name}") as response:
        assert response.history
    assert len(box.requests) == 2
    for request in box.requests:
        assert "authorization" not in request.headers
        assert request.headers["user-agent"].startswith("mirror-flickr/")


@pytest.mark.parametrize("fault", ["reset", "cut", "503", "html", "empty", "garbage", "105", "0"])
def test_trouble_that_passes_is_got_over(sandbox, fault):
    faults = Faults()
    faults.script("findByUsername", fault, fault)
    box = sandbox(photostream(), faults=faults)
    clock = HeldClock()
    api = FlickrApi(KEY, SECRET, url=box.url, web=flickr.Web(clock))
    assert api.find_user("manhhai").id == NSID
    assert box.api_calls == 3
    assert api.calls == 3
    assert len(clock.sleeps) == 2


def test_trouble_that_does_not_pass_is_a_flickr_error_in_the_end(sandbox):
    faults = Faults()
    faults.always("findByUsername", "502")
    box = sandbox(photostream(), faults=faults)
    api = FlickrApi(KEY, SECRET, url=box.url, web=flickr.Web(HeldClock()))
    with pytest.raises(FlickrError) as caught:
        api.find_user("manhhai")
    assert "502" in str(caught.value)
    assert KEY not in str(caught.value)


def test_no_answer_at_all_is_a_flickr_error_that_does_not_show_the_key(sandbox):
    box = sandbox(photostream())
    box.stop()
    api = FlickrApi(KEY, SECRET, url=box.url, web=flickr.Web(HeldClock()))
    with pytest.raises(FlickrError) as caught:
        api.find_user("manhhai")
    assert "127.0.0.1" in str(caught.value)
    assert KEY not in str(caught.value)
