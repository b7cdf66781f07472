"""What stands at the page's addresses, and what its policies let it do."""

import re

import pytest
import requests


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/icons.svg", "image/svg+xml"),
        ("/page/viewer.html", "text/html; charset=utf-8"),
    ],
)
def test_files_and_their_policies(served, path, kind):
    answer = requests.get(served + path, timeout=60)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = answer.headers["Content-Security-Policy"]
    if path == "/page/viewer.html":
        assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    else:
        assert policy.startswith("default-src 'self';") and "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import""", answer.text)


@pytest.mark.parametrize(
    "path", ["/page/", "/page/index.html", "/page/../app.py", "/page/%2e%2e/app.py"]
)
def test_nothing_else_is_given(served, path):
    session = requests.Session()
    request = requests.Request("GET", served).prepare()
    request.url = served + path  # as it is: requests would tidy it up
    assert session.send(request, timeout=60).status_code == 404
