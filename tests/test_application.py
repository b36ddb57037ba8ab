import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from runs import save_run
from served import Served, ask, names_of, person, png, write_shop

from san_jax import model as models
from san_jax.data import crops
from san_jax.serving import application, queries


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A shop without cameras, and a street with cameras and times, in which everybody is grey."""
    folder = tmp_path_factory.mktemp("served")
    model = models.load(save_run(folder / "run", mode="baseline"))
    street = write_shop(folder / "street", colours=["grey"], each=4)
    listed = [
        crops.Crop(crops.Frame(path), path.stem, camid=str(number % 2), time=f"2026-11-28T14:0{number}:00")
        for number, path in enumerate(sorted(street.iterdir()))
    ]
    sources = write_shop(folder / "shop"), (street, lambda: crops.Crops(str(street), tuple(listed)))
    return Served(model, folder, *sources, threshold=0.05).look()


@pytest.fixture
def client(built):
    return built.client()


@pytest.fixture
def red(client):
    return ask(client, png(person("red", seed=99)), params={"name": "wanted.png"})


def id_of(client, red, name):
    found = client.post("/api/search", json={"queries": [red], "top": 20}).json()["found"]
    return next(hit["id"] for hit in found if hit["name"] == name)


def test_page_and_its_files_come_from_the_package(client):
    assert "<title>Find a person</title>" in client.get("/").text
    for path, kind in (("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


def test_page_loads_nothing_from_elsewhere_and_has_no_code_in_it(client):
    text = "".join(client.get(path).text for path in ("/", "/page.css", "/page.js"))
    assert "http:" not in text
    assert "https:" not in text
    assert "<script>" not in text
    assert "style=" not in text
    assert "innerHTML" not in text


def test_galleries_tell_how_far_they_are(client):
    told = client.get("/api/galleries").json()
    shop, street = told["galleries"]
    assert (shop["name"], shop["state"]) == ("shop", "watching")
    assert (shop["pictures"], shop["done"], shop["searchable"]) == (9, 9, 9)
    assert (street["name"], street["searchable"], street["unreadable"], street["trouble"]) == ("street", 4, 0, "")
    assert told["cameras"] == [{"camera": "0", "pictures": 2}, {"camera": "1", "pictures": 2}]
    assert told["with_times"] == 4
    assert (told["first_time"], told["last_time"]) == ("2026-11-28T14:00:00", "2026-11-28T14:03:00")
    assert told["threshold"] == 0.05


def test_nearest_pictures_are_found_with_camera_time_and_threshold(client, red):
    answer = client.post("/api/search", json={"queries": [red], "top": 13})
    found = answer.json()["found"]
    assert {hit["name"] for hit in found[:3]} == {"red_0.png", "red_1.png", "red_2.png"}
    assert [hit["distance"] for hit in found] == sorted(hit["distance"] for hit in found)
    assert [hit["within"] for hit in found] == [hit["distance"] <= 0.05 for hit in found]
    assert answer.json()["searched"] == 13
    grey = next(hit for hit in found if hit["name"] == "grey_2")
    assert (grey["camera"], grey["time"], grey["gallery"]) == ("0", "2026-11-28T14:02:00", 1)
    assert answer.headers["server-timing"].startswith("search;dur=")


def test_search_can_be_for_a_found_picture_which_is_then_not_found(client, red):
    blue = id_of(client, red, "blue_1.png")
    names = names_of(client, like=[blue], top=2)
    assert set(names) == {"blue_0.png", "blue_2.png"}


def test_right_pictures_refine_the_query_to_their_mean(built, client, red):
    ids = [id_of(client, red, f"blue_{number}.png") for number in range(3)]
    answer = client.post("/api/search", json={"queries": [red], "right": ids, "top": 13}).json()
    _, shown, _ = built.watch.find(ids[0])
    feats = np.stack([built.queries.get(red).feats, *(shown.feats[shown.rows[key]] for key in ids)])
    far = np.square(shown.feats - feats.mean(axis=0)).sum(axis=1)
    mine = {hit["id"]: hit["distance"] for hit in answer["found"] if hit["gallery"] == 0}
    np.testing.assert_allclose([mine[key] for key in shown.ids.tolist()], far, atol=1e-4)
    assert answer["threshold"] is None, "the known one holds for single pictures"
    assert all(hit["within"] is None for hit in answer["found"])


def test_wrong_pictures_are_left_out(client, red):
    wrong = id_of(client, red, "red_1.png")
    names = names_of(client, queries=[red], wrong=[wrong], top=20)
    assert "red_1.png" not in names
    assert len(names) == 12


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"cameras": ["1"]}, {"grey_1", "grey_3"}),
        ({"from": "2026-11-28T14:02"}, {"grey_2", "grey_3"}),
        ({"to": "2026-11-28T14:00:00"}, {"grey_0"}),
        ({"from": "2026-11-28T14:01", "to": "2026-11-28T14:02", "cameras": ["0"]}, {"grey_2"}),
        ({"galleries": [1]}, {"grey_0", "grey_1", "grey_2", "grey_3"}),
        ({"cameras": ["none"]}, set()),
    ],
)
def test_search_keeps_to_cameras_times_and_galleries(wanted, names, client, red):
    assert set(names_of(client, queries=[red], top=20, **wanted)) == names


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ([], "the request is no JSON object"),
        ({}, "there is nothing to search for"),
        ({"queries": "red"}, "queries is no list of words"),
        ({"like": ["../etc/passwd"]}, "like is no list of numbers"),
        ({"right": [True]}, "right is no list of numbers"),
        ({"like": [1], "top": 0}, "top is 0; give a number from 1 to 500"),
        ({"like": [1], "top": 501}, "top is 501"),
        ({"like": [1], "from": "yesterday"}, "from is 'yesterday'; give a time such as"),
        ({"like": [1], "to": 5}, "to is 5; give a time such as"),
        ({"like": [1], "only_right": 1}, "only_right is neither true nor false"),
        ({"like": [1], "paths": ["/etc"]}, "there is no field 'paths'"),
        ({"like": list(range(1001))}, "like has more than 1000 entries"),
    ],
)
def test_invalid_searches_are_errors_of_one_line(wanted, error, client):
    answer = client.post("/api/search", json=wanted)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)


def test_pictures_and_queries_that_are_gone_are_said_to_be(client):
    answer = client.post("/api/search", json={"like": [10**9]})
    assert (answer.status_code, answer.json()["error"][:38]) == (404, "the pictures that are searched for are")
    answer = client.post("/api/search", json={"queries": ["unknown"]})
    assert (answer.status_code, answer.json()["error"]) == (404, "this picture is not kept any more; choose it again")


def test_request_that_is_no_json_is_an_error_of_one_line(client):
    for content in (b"", b"{", b"[" * 50_000, "ä".encode("latin-1")):
        answer = client.post("/api/search", content=content)
        assert (answer.status_code, answer.json()["error"]) == (400, "the request is no JSON; see docs/search.md")


def test_pictures_are_shown_by_number_at_the_height_that_is_asked_for(client, red):
    key = id_of(client, red, "red_0.png")
    answer = client.get(f"/api/pictures/{key}?height=32")
    assert answer.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.size == (16, 32)
        assert np.asarray(picture).mean(axis=(0, 1))[0] > 200
    assert client.get(f"/api/pictures/{key}?height=32").content == answer.content


@pytest.mark.parametrize(
    "path",
    [
        *("/api/pictures/../shop/red_0.png", "/api/pictures/..%2F..%2Fetc%2Fpasswd", "/api/pictures/%2Fetc%2Fpasswd"),
        *("/api/pictures/red_0.png", "/api/pictures/-1", "/api/pictures/999999", "/api/pictures/1%00"),
        *("/api/pictures/¹", "/api/pictures/1?height=5"),
        *("/api/pictures/1?height=9999", "/api/pictures/1?height=x", "/../pyproject.toml"),
        *("/page/index.html", "/..%2fapplication.py", "/api/queries/../../x", "/api/pictures/99999999999999999999999"),
    ],
)
def test_no_path_leads_out_of_the_galleries(path, client):
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert b"root" not in answer.content
    if path.startswith("/api/pictures"):
        assert "error" in answer.json()


def test_a_file_that_is_gone_is_an_error_of_one_line(built, client, tmp_path):
    shop = write_shop(tmp_path / "shop", each=1)
    other = Served(built.watch._model, tmp_path, shop).look()
    key = int(other.watch.galleries[0].shown.ids[0])
    for path in shop.iterdir():
        path.unlink()
    answer = other.client().get(f"/api/pictures/{key}")
    assert (answer.status_code, "gone from its gallery" in answer.json()["error"]) == (404, True)


def test_box_of_an_upload_is_searched_for(client):
    picture = Image.new("RGB", (80, 60), "grey")
    picture.paste(person("blue", seed=99), (10, 20))
    answer = client.post("/api/queries", content=png(picture), params=dict(x=10, y=20, w=16, h=32)).json()
    assert (answer["width"], answer["height"], answer["box"]) == (80, 60, [10, 20, 16, 32])
    assert {name[:4] for name in names_of(client, queries=[answer["id"]], top=3)} == {"blue"}
    whole = client.post(f"/api/queries/{answer['id']}/box", json={"box": None}).json()
    assert whole["box"] is None
    again = client.post(f"/api/queries/{whole['id']}/box", json={"box": [10, 20, 16, 32]}).json()
    assert again["box"] == [10, 20, 16, 32]


@pytest.mark.parametrize(
    "box", [[1, 2, 3], "box", [0, 0, "x", 9], [0, 0, 1e999, 9], [0, 0, 9, None], {"x": 1}, [70, 0, 30, 30], 5]
)
def test_boxes_that_are_none_are_errors_of_one_line(box, client, red):
    answer = client.post(f"/api/queries/{red}/box", content=json.dumps({"box": box}))
    assert answer.status_code in (400, 422)
    assert "error" in answer.json()


def test_upload_is_shown_and_can_be_forgotten(client, red):
    with Image.open(io.BytesIO(client.get(f"/api/queries/{red}").content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (16, 32))
    assert client.delete(f"/api/queries/{red}").status_code == 204
    assert client.get(f"/api/queries/{red}").status_code == 404


def test_uploads_leave_no_file(client, built, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    folder = built.watch.galleries[0].source.place.parent
    before = sorted(folder.rglob("*"))
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    ask(client, png(Image.fromarray(noise)))  # 2 MB, which some libraries would spool
    assert sorted(folder.rglob("*")) == before
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("content", [b"", b"no picture", png(person("red"))[:150]])
def test_broken_picture_is_an_error_of_one_line(content, client):
    answer = client.post("/api/queries", content=content)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("this picture cannot be read (")
    assert "\n" not in answer.json()["error"]


def test_too_large_an_upload_is_refused_by_its_length_or_while_it_is_read(client, monkeypatch):
    monkeypatch.setattr(queries, "MOST_BYTES", 1000)
    line = "this has more than 0.001 MB; give a smaller one"
    answer = client.post("/api/queries", content=bytes(1001))
    assert (answer.status_code, answer.json()["error"]) == (413, line)
    read = []

    def parts():
        for _ in range(100):
            read.append(400)
            yield bytes(400)

    answer = client.post("/api/queries", content=parts())
    assert (answer.status_code, answer.json()["error"]) == (413, line)


def test_too_many_uploads_at_a_time_are_refused(client, monkeypatch):
    monkeypatch.setattr(application, "MOST_WAITING", 0)
    answer = client.post("/api/queries", content=png(person("red")))
    assert (answer.status_code, answer.json()["error"][:33]) == (503, "too many pictures are being uploa")


def test_csv_has_the_columns_of_the_command(client, red):
    answer = client.post("/api/exports/csv", json={"queries": [red], "top": 13})
    assert answer.headers["content-disposition"] == 'attachment; filename="found.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert list(rows[0]) == ["query", "rank", "path", "camid", "time", "distance"]
    assert [int(row["rank"]) for row in rows] == list(range(1, 14))
    assert {row["query"] for row in rows} == {"wanted.png"}
    grey = next(row for row in rows if row["path"].endswith("grey_2.png"))
    assert (grey["camid"], grey["time"]) == ("0", "2026-11-28T14:02:00")


def test_only_right_pictures_can_be_saved(client, red):
    key = id_of(client, red, "red_0.png")
    wanted = {"queries": [red], "right": [key], "only_right": True}
    rows = list(csv.DictReader(io.StringIO(client.post("/api/exports/csv", json=wanted).text)))
    assert [row["path"].rpartition("/")[2] for row in rows] == ["red_0.png"]
    answer = client.post("/api/exports/csv", json=wanted | {"right": []})
    assert (answer.status_code, answer.json()["error"][:29]) == (409, "there is no picture to save; ")


@pytest.mark.parametrize("by", ["queries", "like"])
def test_contact_sheet_shows_the_query_and_what_was_found(by, client, red):
    wanted = {"queries": [red]} if by == "queries" else {"like": [id_of(client, red, "red_0.png")]}
    answer = client.post("/api/exports/sheet", json=wanted | {"top": 12})
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[1] > 10 * 96
    assert pixels.std() > 20


def test_names_of_uploads_are_cut_to_what_can_be_printed(client):
    name = "C:\\x\\../a\n\x1b[31mb" + 200 * "c"
    answer = client.post("/api/queries", content=png(person("red")), params={"name": name})
    assert answer.json()["name"] == ("a[31mb" + 200 * "c")[:100]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/api/search", 405)])
def test_unknown_addresses_and_methods_are_errors_of_one_line(method, path, status, client):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert "see docs/search.md" in answer.text
