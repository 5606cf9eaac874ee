from __future__ import annotations

import pytest

from tuner.addresses import go_past_proxies, joins, place
from tuner.contract import InputError


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        (None, None, None),
        (None, "", None),
        (None, "  ", None),
        (None, "local", None),
        (None, "auto", "auto"),
        (None, " 10.0.0.1:6379\n", "10.0.0.1:6379"),
        ("local", "10.0.0.1:6379", None),
        ("auto", "10.0.0.1:6379", "auto"),
        (" ", "10.0.0.1:6379", "10.0.0.1:6379"),
        ("head.cluster.local:6379", None, "head.cluster.local:6379"),
        ("[::1]:6379", None, "[::1]:6379"),
    ],
)
def test_the_forms_of_an_address(
    monkeypatch: pytest.MonkeyPatch, given: str | None, environment: str | None, found: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert joins(given) == found


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        ("ray://head:10001", "does not run through a Ray client", "submit --address http://head:8265"),
        ("http://head:8265", "is the address of a dashboard", "submit --address http://head:8265"),
        ("https://head", "is the address of a dashboard", "submit --address https://head"),
        ("head", "is no address of a Ray cluster", "ray status"),
        ("head:0", "is no address", "ray status"),
        ("head:70000", "is no address", "ray status"),
        ("head:port", "is no address", "ray status"),
        ("::1:6379", "is no address", "ray status"),
        ("head:6379/x", "is no address", "ray status"),
        ("redis://head:6379", "is no address", "ray status"),
    ],
)
def test_what_is_no_address_of_a_cluster_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str, what: str, remedy: str
) -> None:
    for name, where in (("run.address", "run.address"), ("RAY_ADDRESS", "RAY_ADDRESS")):
        if name == "RAY_ADDRESS":
            monkeypatch.setenv(name, given)
        with pytest.raises(InputError, match=what) as caught:
            joins(given if name == "run.address" else None)
        assert caught.value.where == where and remedy in caught.value.remedy


def test_host_and_port() -> None:
    assert place("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert place("[fe80::1%eth0]:6379") == ("fe80::1%eth0", 6379)


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_was_to_go_past_the_proxy_still_does(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "a.example, b.example")
    go_past_proxies("head")
    go_past_proxies("head")
    import os

    expected = "a.example,b.example,localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal,head"
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (expected, expected)
    assert "no_grpc_proxy" not in os.environ
    monkeypatch.setenv("no_proxy", "*")
    go_past_proxies("other")
    assert os.environ["no_proxy"] == "*"
