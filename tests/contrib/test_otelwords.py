"""Steps in the words of the semantic conventions; the names are those of OpenTelemetry's package."""

from __future__ import annotations

import pytest
from opentelemetry.semconv._incubating.attributes import (
    http_attributes,
    messaging_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind

from aiopatterns.contrib.otelspan import NAMES
from aiopatterns.contrib.otelwords import in_words_of_otel, is_failure
from aiopatterns.core.tracing import Endpoint, Messages, Request, Step

KNOWN = {
    value
    for module in (
        error_attributes,
        http_attributes,
        messaging_attributes,
        server_attributes,
        url_attributes,
    )
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}

EVERYTHING: list[Step] = [
    Messages(
        "process",
        "stream",
        "orders.7",
        "process",
        "order",
        id="m1",
        template="orders.*",
        group="g",
        correlation="r1",
        batch=2,
        attempt=3,
    ),
    Messages("send", "jobs", "mails", "enqueue"),
    Messages("request", "broker", "price", "request"),
    Request("server", "GET", "/a", "https", "shop", 443),
    Request("client", "FETCH", "/a", "http", "10.0.0.1", None),
    Endpoint("users", "10.0.0.1", 80),
]


@pytest.mark.parametrize("step", EVERYTHING)
def test_every_attribute_is_one_of_the_conventions_or_ours(step):
    words = in_words_of_otel(step)
    names = {*words.attributes, *words.labels, *NAMES.values(), "error.type"}
    assert {each for each in names if not each.startswith("aiopatterns.")} <= KNOWN


@pytest.mark.parametrize(
    ("step", "name", "kind"),
    list(
        zip(
            EVERYTHING,
            ["process orders.*", "enqueue mails", "request price", "GET", "HTTP", "call users"],
            [
                SpanKind.CONSUMER,
                SpanKind.PRODUCER,
                SpanKind.CLIENT,
                SpanKind.SERVER,
                SpanKind.CLIENT,
                SpanKind.CLIENT,
            ],
            strict=True,
        )
    ),
)
def test_names_and_kinds(step, name, kind):
    assert in_words_of_otel(step)[:2] == (name, kind)


def test_a_metric_has_no_ids_and_no_paths():
    for step in EVERYTHING:
        labels = set(in_words_of_otel(step).labels)
        assert not labels & {"messaging.message.id", "url.path", "url.full", "aiopatterns.attempt"}
    words = in_words_of_otel(EVERYTHING[0])
    assert words.labels["messaging.destination.name"] == "orders.*"
    assert words.attributes["messaging.destination.name"] == "orders.7"


def test_methods_that_nobody_knows_are_one_value():
    words = in_words_of_otel(EVERYTHING[4])
    assert words.labels["http.request.method"] == "_OTHER"
    assert words.attributes["http.request.method_original"] == "FETCH"
    assert words.attributes["url.full"] == "http://10.0.0.1/a"
    assert words.labels["server.address"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("step", "status", "failed"),
    [
        (Request("server", "GET", "/"), 499, False),
        (Request("server", "GET", "/"), 500, True),
        (Request("client", "GET", "/"), 399, False),
        (Request("client", "GET", "/"), 404, True),
        (Endpoint("users", "h", 1), 500, False),
    ],
)
def test_which_answers_are_errors(step, status, failed):
    assert is_failure(step, status) is failed
