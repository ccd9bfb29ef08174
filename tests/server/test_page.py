"""The files of the chat page, how they are sent, and the rendering for it."""

import re
from pathlib import Path

import pytest

from sambay.server import page

DIRECTORY = Path(page.__file__).parent / "static"
STATIC = {one.name for one in DIRECTORY.iterdir()}


def rendered(client, *parts, **options):
    return client.post("/page/render", json={"parts": list(parts)}, **options)


def test_the_page_and_its_files(tiny):
    index = tiny.get("/")
    assert index.status_code == 200
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:href|src)="([^"#]+)', index.text))
    assert {one for one in named if not one.startswith("static/")} == {"tutor"}
    named.remove("tutor")
    kinds = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
    for name in STATIC - {one for one in STATIC if one.endswith(".html")}:
        answer = tiny.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kinds[name[name.index(".") :]]
    assert {one.removeprefix("static/") for one in named} <= STATIC
    assert tiny.head("/").status_code == 200


def test_every_module_that_is_imported_is_there(tiny):
    for name in STATIC:
        if name.endswith(".js"):
            imported = re.findall(r'from "\./([^"]+)"', tiny.get(f"/static/{name}").text)
            assert set(imported) <= STATIC


def test_files_are_of_a_size_to_be_read():
    lengths = {name: len((DIRECTORY / name).read_text(encoding="utf-8").splitlines()) for name in STATIC}
    assert {name: length for name, length in lengths.items() if length > 600} == {}


def test_nothing_is_loaded_from_elsewhere():
    for name in STATIC:
        text = (DIRECTORY / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.findall(r"https?:(//)", text), name
        for dangerous in ("innerHTML", "insertAdjacentHTML", "outerHTML", "document.write", "eval(", "new Function"):
            assert text.count(dangerous) == (name == "markdown.js" and dangerous == "innerHTML"), (name, dangerous)


@pytest.mark.parametrize("path", ["/", "/static/base.css", "/static/main.js"])
def test_headers(tiny, path):
    headers = tiny.get(path).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_what_a_browser_has_is_not_sent_again(tiny):
    tag = tiny.get("/static/base.css").headers["etag"]
    again = tiny.get("/static/base.css", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert tiny.get("/static/base.css", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "..%2f__init__.py",
        "%2e%2e/__init__.py",
        "../__init__.py",
        "..%5c__init__.py",
        "%00",
        "base.css%00",
        "",
        ".",
    ],
)
def test_no_other_file_has_a_name(tiny, name):
    assert tiny.get(f"/static/{name}").status_code == 404


def test_rendering(tiny):
    whole, growing = rendered(tiny, {"text": "**a**\n\nb"}, {"text": "𝔸\n\n\\(x", "growing": True}).json()["parts"]
    assert whole == {"blocks": ["<p><strong>a</strong></p>\n", "<p>b</p>\n"], "open": "", "rest": 8}
    assert growing["blocks"] == []
    assert 'class="pending"' in growing["open"]
    assert rendered(tiny).json() == {"parts": []}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"parts": None}, {"parts": "x"}, {"parts": [1]}, {"parts": [{}]}, {"parts": [{"text": 1}]},
        {"parts": [{"text": "x", "growing": 1}]}, {"parts": [{"text": "x" * 400_001}]}, [],
    ],
)  # fmt: skip
def test_what_cannot_be_rendered_is_refused(tiny, body):
    answer = tiny.post("/page/render", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_a_key_is_needed_for_what_costs(serve, tiny_llm):
    with serve(("tiny", tiny_llm), keys=("secret",)) as client:
        assert client.get("/").status_code == client.get("/static/main.js").status_code == 200
        assert rendered(client, {"text": "x"}).status_code == 401
        assert rendered(client, {"text": "x"}, headers={"Authorization": "Bearer secret"}).status_code == 200


def test_pages_and_their_rendering_do_not_count_as_requests(serve, tiny_llm):
    with serve(("tiny", tiny_llm), rate_limit=1) as client:
        for _ in range(5):
            assert client.get("/static/main.js").status_code == 200
            assert rendered(client, {"text": "x"}).status_code == 200
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models").status_code == 429
