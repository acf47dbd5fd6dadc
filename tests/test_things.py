"""Flickr's things: users, sizes, photos (waypoints 2, 3, 6, 7 and 11)."""

import re

import pytest

import flickr
from flickr import FlickrPhoto, FlickrPhotoSize, FlickrUser, Label, Locale

TITLE = "SAIGON 1974 - Rạch Bến Nghé, Bến Chương Dương"

USER_PAYLOAD = {
    "id": "13476480@N07",
    "nsid": "13476480@N07",
    "username": {"_content": "manhhai"},
}

PHOTO_PAYLOAD = {
    "id": "49510908217",
    "owner": "13476480@N07",
    "secret": "6f78f65cfd",
    "server": "65535",
    "farm": 66,
    "title": TITLE,
    "ispublic": 1,
    "isfriend": 0,
    "isfamily": 0,
}

# flickr.photos.getSizes of photo 49499525286, as the specification prints it.
SIZES_PAYLOAD = [
    ("Square", 75, 75, "e6f0b9d940_s", "sq"),
    ("Large Square", "150", "150", "e6f0b9d940_q", "q"),
    ("Thumbnail", 96, 100, "e6f0b9d940_t", "t"),
    ("Small", "230", "240", "e6f0b9d940_m", "s"),
    ("Small 320", "307", "320", "e6f0b9d940_n", "n"),
    ("Small 400", "383", "400", "e6f0b9d940_w", "w"),
    ("Medium", "479", "500", "e6f0b9d940", "m"),
    ("Medium 640", "613", "640", "e6f0b9d940_z", "z"),
    ("Medium 800", "767", "800", "e6f0b9d940_c", "c"),
    ("Large", "981", "1024", "e6f0b9d940_b", "l"),
    ("Large 1600", "1533", "1600", "aaee644fd2_h", "h"),
    ("Original", "1533", "1600", "7df8ab7063_o", "o"),
]


def size_payload(label, width, height, name, suffix, media="photo"):
    """A row of a getSizes answer."""
    return {
        "label": label,
        "width": width,
        "height": height,
        "source": f"https://live.staticflickr.com/65535/49499525286_{name}.jpg",
        "url": f"https://www.flickr.com/photos/13476480@N07/49499525286/sizes/{suffix}/",
        "media": media,
    }


def size(label, width, height, url="https://live.staticflickr.com/1/1_a.jpg", **options):
    return FlickrPhotoSize(label, width, height, url, **options)


def photo_with(*sizes):
    photo = FlickrPhoto("1", "")
    photo.sizes = list(sizes)
    return photo


# --------------------------------------------------------------------------------- users


def test_a_user_has_an_id_and_a_name():
    user = FlickrUser("13476480@N07", "manhhai")
    assert user.user_id == "13476480@N07"
    assert user.username == "manhhai"


def test_a_user_is_read_from_flickrs_payload():
    user = FlickrUser.from_json(USER_PAYLOAD)
    assert user.user_id == "13476480@N07"
    assert user.username == "manhhai"


def test_the_id_of_a_user_is_the_user_id():
    user = FlickrUser("13476480@N07", "manhhai")
    assert user.id == user.user_id == "13476480@N07"


@pytest.mark.parametrize("name", ["id", "user_id", "username"])
def test_a_user_can_not_be_changed(name):
    user = FlickrUser("13476480@N07", "manhhai")
    with pytest.raises(AttributeError):
        setattr(user, name, "other")


def test_a_user_shows_as_in_the_specification():
    user = FlickrUser("13476480@N07", "manhhai")
    assert repr(user) == f"<FlickrUser object at {hex(id(user))}>"


@pytest.mark.parametrize("username", ["Elena Shumilova", "Phạm Mạnh Hải", "../..", "", "7"])
def test_a_username_may_be_anything(username):
    payload = {**USER_PAYLOAD, "username": {"_content": username}}
    assert FlickrUser.from_json(payload).username == username


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "manhhai",
        {},
        {"username": {"_content": "manhhai"}},
        {"id": None, "nsid": None, "username": {"_content": "manhhai"}},
        {"id": ["13476480@N07"], "username": {"_content": "manhhai"}},
        {**USER_PAYLOAD, "username": ["manhhai"]},
        {**USER_PAYLOAD, "username": {"_content": ["manhhai"]}},
    ],
)
def test_what_describes_no_user_is_an_error(payload):
    with pytest.raises(ValueError):
        FlickrUser.from_json(payload)


# -------------------------------------------------------------------------------- photos


def test_a_photo_has_an_id():
    assert FlickrPhoto("49510908217", TITLE).id == "49510908217"


def test_a_photo_is_read_from_flickrs_payload():
    photo = FlickrPhoto.from_json(PHOTO_PAYLOAD)
    assert photo.id == "49510908217"
    assert photo.title.content == TITLE


def test_the_title_of_a_photo_is_a_label_whose_language_is_detected():
    photo = FlickrPhoto("49510908217", TITLE)
    assert re.fullmatch("<Label object at 0x[0-9a-f]+>", repr(photo.title))
    assert photo.title.content == TITLE
    assert repr(photo.title.locale) == "vie"


def test_the_title_of_a_photo_may_be_given_as_a_label():
    # The text is as much Vietnamese as French: the label has the last word.
    label = Label("Huế 1920-1929 - Chez un grand mandarin : avant le repas", Locale("ltz"))
    photo = FlickrPhoto("49674775373", label)
    assert photo.title is label
    assert repr(photo.title.locale) == "ltz"


def test_the_language_of_a_title_is_detected_on_first_use_only(monkeypatch):
    looked_at = []
    detect = flickr.detect_locale
    monkeypatch.setattr(
        flickr, "detect_locale", lambda text: looked_at.append(text) or detect(text)
    )
    photo = FlickrPhoto("1", TITLE)
    photo.description = "une description"
    photo.comments = ["un commentaire"]
    assert looked_at == []
    assert photo.title.locale == photo.title.locale == Locale("vie")
    assert looked_at == [TITLE]


def test_description_and_comments_are_not_known_before_they_are_set():
    photo = FlickrPhoto.from_json(PHOTO_PAYLOAD)
    assert photo.description is None
    assert photo.comments is None


def test_the_description_is_set_as_text_and_read_as_a_label():
    description = (
        "Giờ thể dục của học sinh trường Thiếu sinh quân\n"
        "Binh Duong – Thu Dau Mot\n    Date : 1920-1929"
    )
    photo = FlickrPhoto("49515206006", "THU DAU MOT - Ecole des enfants de troupe")
    photo.description = description
    assert re.fullmatch("<Label object at 0x[0-9a-f]+>", repr(photo.description))
    assert photo.description.content == description
    assert str(photo.description.locale) == "vie"


def test_an_empty_description_is_an_empty_english_label():
    photo = FlickrPhoto("1", "")
    photo.description = ""
    assert photo.description.content == ""
    assert str(photo.description.locale) == "eng"


def test_the_comments_are_set_as_texts_and_read_as_labels():
    first = ".\nnơi này thời Pháp thuộc:\n[http://www.flickr.com/photos/13476480@N07/4722795861/]"
    photo = FlickrPhoto("8967911298", "CHOLON 1950")
    photo.comments = [first, "What a wonderful view! I grew up two streets from here."]
    assert all(type(comment) is Label for comment in photo.comments)
    assert re.fullmatch(
        r"\[<Label object at 0x\w+>, <Label object at 0x\w+>\]", repr(photo.comments)
    )
    assert photo.comments[0].content == first
    assert repr(photo.comments[0].locale) == "vie"
    assert repr(photo.comments[1].locale) == "eng"


def test_comments_may_be_set_to_none_at_all():
    photo = FlickrPhoto("1", "")
    photo.comments = []
    assert photo.comments == []


@pytest.mark.parametrize("name", ["id", "title", "best_size", "image_filename"])
def test_read_only_properties_of_a_photo_are_read_only(name):
    photo = FlickrPhoto("1", "")
    with pytest.raises(AttributeError):
        setattr(photo, name, "other")


def test_a_photo_read_with_extras_has_what_they_tell():
    photo = FlickrPhoto.from_json(
        {
            **PHOTO_PAYLOAD,
            "description": {"_content": "Une <b>vieille</b> maison au bord de la rivière"},
            "count_comments": "3",
            "media": "photo",
            "url_o": "https://live.staticflickr.com/1/49510908217_b_o.png",
            "width_o": "800",
            "height_o": 600,
            "url_sq": "https://live.staticflickr.com/1/49510908217_a_s.jpg",
            "width_sq": 75,
            "height_sq": "75",
        }
    )
    assert photo.description.content == "Une <b>vieille</b> maison au bord de la rivière"
    assert str(photo.description.locale) == "fra"
    assert [(each.label, each.width, each.height) for each in photo.sizes] == [
        ("Square", 75, 75),
        ("Original", 800, 600),
    ]
    assert photo.best_size.url.endswith("_b_o.png")
    assert photo.comments is None  # the listing has their number, not their texts


def test_sizes_from_extras_come_in_flickrs_order_whatever_the_payloads():
    suffixes = ["o", "6k", "4k", "3k", "k", "h", "l", "c", "z", "m", "w", "n", "s", "t", "q", "sq"]
    extras = {f"url_{each}": f"https://live.staticflickr.com/1/1_{each}.jpg" for each in suffixes}
    photo = FlickrPhoto.from_json({**PHOTO_PAYLOAD, **extras})
    assert [each.label for each in photo.sizes] == [
        "Square", "Large Square", "Thumbnail", "Small", "Small 320", "Small 400", "Medium",
        "Medium 640", "Medium 800", "Large", "Large 1600", "Large 2048", "X-Large 3K",
        "X-Large 4K", "X-Large 6K", "Original",
    ]  # fmt: skip


@pytest.mark.parametrize("url", ["", None, 0, []])
def test_a_size_without_address_is_no_size(url):
    # 94 of the British Library's 5,000 records have an empty url_m.
    photo = FlickrPhoto.from_json({**PHOTO_PAYLOAD, "url_o": url, "width_o": 9, "height_o": 9})
    assert photo.best_size is None
    assert photo.image_filename.endswith(".jpg")


def test_a_title_may_come_as_flickrs_other_methods_wrap_it():
    payload = {**PHOTO_PAYLOAD, "title": {"_content": TITLE}}
    assert FlickrPhoto.from_json(payload).title.content == TITLE


def test_an_id_that_comes_as_a_number_is_the_text_of_it():
    assert FlickrPhoto.from_json({**PHOTO_PAYLOAD, "id": 49510908217}).id == "49510908217"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "49510908217",
        {},
        {"title": TITLE},
        {**PHOTO_PAYLOAD, "id": None},
        {**PHOTO_PAYLOAD, "id": ""},
        {**PHOTO_PAYLOAD, "id": True},
        {**PHOTO_PAYLOAD, "id": "../../etc/passwd"},
        {**PHOTO_PAYLOAD, "id": ["49510908217"]},
        {**PHOTO_PAYLOAD, "title": ["no text"]},
        {**PHOTO_PAYLOAD, "description": ["no text"]},
    ],
)
def test_what_describes_no_photo_is_an_error(payload):
    with pytest.raises(ValueError):
        FlickrPhoto.from_json(payload)


# --------------------------------------------------------------------------------- sizes


def test_a_size_tells_label_width_height_and_address():
    each = FlickrPhotoSize("Large 1600", 1522, 1600, "https://live.staticflickr.com/1/1_h.jpg")
    assert (each.label, each.width, each.height) == ("Large 1600", 1522, 1600)
    assert each.url == "https://live.staticflickr.com/1/1_h.jpg"


@pytest.mark.parametrize("name", ["label", "width", "height", "url"])
def test_a_size_can_not_be_changed(name):
    with pytest.raises(AttributeError):
        setattr(size("Small", 240, 180), name, 1)


def test_sizes_are_read_from_flickrs_payload_numbers_as_text_included():
    sizes = [FlickrPhotoSize.from_json(size_payload(*row)) for row in SIZES_PAYLOAD]
    shown = [f"- {each.label}: {each.width}x{each.height} ({each.url})" for each in sizes]
    address = "https://live.staticflickr.com/65535/49499525286"
    assert shown[0] == f"- Square: 75x75 ({address}_e6f0b9d940_s.jpg)"
    assert shown[1] == f"- Large Square: 150x150 ({address}_e6f0b9d940_q.jpg)"
    assert shown[-1] == f"- Original: 1533x1600 ({address}_7df8ab7063_o.jpg)"
    assert all(type(each.width) is int and type(each.height) is int for each in sizes)


@pytest.mark.parametrize("unknown", [None, "", "abc", "-1"])
def test_a_width_that_flickr_does_not_know_is_none(unknown):
    each = FlickrPhotoSize.from_json(size_payload("700", unknown, unknown, "v", "v", "video"))
    assert each.width is None
    assert each.height is None


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "Large",
        {},
        {"label": "Large", "width": 1, "height": 1},
        {"label": "Large", "width": 1, "height": 1, "source": None},
        {"label": ["Large"], "width": 1, "height": 1, "source": "https://example.org/1.jpg"},
    ],
)
def test_what_describes_no_size_is_an_error(payload):
    with pytest.raises(ValueError):
        FlickrPhotoSize.from_json(payload)


def test_the_best_size_is_the_specifications():
    photo = FlickrPhoto("49499525286", "")
    photo.sizes = [FlickrPhotoSize.from_json(size_payload(*row)) for row in SIZES_PAYLOAD]
    assert photo.best_size.width == 1533
    assert photo.best_size.height == 1600
    assert photo.best_size.url == (
        "https://live.staticflickr.com/65535/49499525286_aaee644fd2_h.jpg"
    )
    assert photo.best_size.label == "Large 1600"


def test_the_best_size_has_most_pixels_wherever_it_stands():
    small, large, medium = size("Small", 240, 180), size("Original", 800, 600), size("M", 500, 375)
    assert photo_with(small, large, medium).best_size is large
    assert photo_with(large, small, medium).best_size is large


def test_pixels_count_and_not_the_longer_side():
    assert photo_with(size("A", 1000, 10), size("B", 200, 200)).best_size.label == "B"


def test_of_sizes_with_equal_pixels_the_first_is_the_best():
    first, second = size("Large 1600", 1522, 1600), size("Original", 1600, 1522)
    assert photo_with(size("Square", 75, 75), first, second).best_size is first


def test_pixels_are_compared_as_numbers_even_where_they_came_as_text():
    rows = [("Medium", "900", "900", "m", "m"), ("Original", "1000", "1000", "o", "o")]
    photo = photo_with(*(FlickrPhotoSize.from_json(size_payload(*row)) for row in rows))
    assert photo.best_size.label == "Original"


def test_a_photo_has_no_best_size_while_none_is_known():
    assert FlickrPhoto("1", "").best_size is None
    assert FlickrPhoto("1", "").sizes == []


def test_the_sizes_of_a_photo_are_those_that_were_set():
    sizes = [size("Small", 240, 180), size("Original", 800, 600)]
    photo = FlickrPhoto("1", "")
    photo.sizes = sizes
    assert photo.sizes == sizes


@pytest.mark.parametrize("unknown", [None, ""])
def test_a_videos_files_without_dimensions_never_win(unknown):
    rows = [
        size_payload("Thumbnail", "100", "75", "t", "t"),
        size_payload("700", unknown, unknown, "v", "v", "video"),
        size_payload("Video Original", unknown, unknown, "w", "w", "video"),
        size_payload("Half known", "9000", unknown, "x", "x", "video"),
    ]
    photo = photo_with(*map(FlickrPhotoSize.from_json, rows))
    assert photo.best_size.label == "Thumbnail"


def test_the_video_player_page_never_wins():
    rows = [
        size_payload("Thumbnail", "100", "75", "t", "t"),
        size_payload("Video Player", "640", "480", "p", "p", "video"),
    ]
    photo = photo_with(*map(FlickrPhotoSize.from_json, rows))
    assert photo.best_size.label == "Thumbnail"
    assert photo.films == []


def test_a_photo_of_which_only_sizes_without_dimensions_are_known_has_no_best_one():
    assert photo_with(size("700", None, None, media="video")).best_size is None


@pytest.mark.parametrize(
    ("labels", "films"),
    [
        (["360p", "1080p", "720p"], ["1080p", "720p", "360p"]),
        (["Video Player", "Video Original", "iphone_wifi", "700"], ["700", "iphone_wifi"]),
        (["Video Player", "Video Original"], []),
    ],
)
def test_the_films_of_a_video_are_those_that_anybody_may_have_best_first(labels, films):
    sizes = [size(label, None, None, media="video") for label in labels]
    photo = photo_with(size("Thumbnail", 100, 75), *sizes)
    assert [film.label for film in photo.films] == films


# ---------------------------------------------------------------------------- file names


def test_an_image_is_named_after_the_md5_digest_of_its_photo():
    title = Label("Huế 1920-1929 - Chez un grand mandarin : avant le repas", Locale("fra"))
    photo = FlickrPhoto("49674775373", title)
    assert photo.image_filename == "fb2e16023f14649810da65b5fcbea02e.jpg"
    address = "https://live.staticflickr.com/65535/49674775373_689e7ad3a2_3k.jpg"
    photo.sizes = [size("X-Large 3K", 3072, 2042, address)]
    assert photo.best_size.url == address
    assert photo.image_filename == "fb2e16023f14649810da65b5fcbea02e.jpg"


@pytest.mark.parametrize(
    ("address", "extension"),
    [
        ("https://live.staticflickr.com/1/49674775373_a_o.png", ".png"),
        ("https://live.staticflickr.com/1/49674775373_a_o.gif", ".gif"),
        ("https://live.staticflickr.com/1/49674775373_a_o.jpg?zz=1", ".jpg"),
        ("https://live.staticflickr.com/1/49674775373_a_o.png#top", ".png"),
        ("https://live.staticflickr.com/1/49674775373_a_o.PNG", ".png"),
        ("https://live.staticflickr.com/1.5/49674775373_a_o", ".jpg"),
        ("https://live.staticflickr.com", ".jpg"),
        ("https://live.staticflickr.com/1/49674775373_a_o?next=/z.png", ".jpg"),
    ],
)
def test_the_extension_of_an_image_is_that_of_its_best_sizes_address(address, extension):
    photo = FlickrPhoto("49674775373", "")
    photo.sizes = [
        size("Small", 240, 160, "https://x.org/s.bmp"),
        size("Original", 9, 9999, address),
    ]
    assert photo.image_filename == f"fb2e16023f14649810da65b5fcbea02e{extension}"


def test_the_information_stands_beside_the_image_as_json():
    photo = FlickrPhoto("49674775373", "")
    assert photo.info_filename == "fb2e16023f14649810da65b5fcbea02e.json"


# ---------------------------------------------------------------------------- strategies


def test_the_caching_strategies_show_as_in_the_specification():
    assert repr(flickr.CachingStrategy) == "<enum 'CachingStrategy'>"
    assert repr(flickr.CachingStrategy.FIFO) == "<CachingStrategy.FIFO: 1>"
    assert repr(flickr.CachingStrategy.LIFO) == "<CachingStrategy.LIFO: 2>"
    assert list(flickr.CachingStrategy) == [
        flickr.CachingStrategy.FIFO,
        flickr.CachingStrategy.LIFO,
    ]
