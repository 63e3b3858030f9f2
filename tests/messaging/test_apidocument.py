"""AsyncAPI: the document of services; every reference in it leads somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

from aiopatterns import Service
from aiopatterns.messaging import Context, asyncapi


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


@dataclass
class Item:
    name: str
    amount: Annotated[int, msgspec.Meta(gt=0)]


@dataclass
class Order:
    id: int
    items: list[Item]
    parent: Order | None = None


class Foreign:
    pass


def orders() -> Service:
    service = Service("orders", version="1.2.0")

    @service.command("order.create")
    async def create(ctx: Context, order: Order) -> dict[str, int]:
        """Create an order."""
        return {"id": order.id}

    @service.query("order.list")
    async def everything() -> list[Order]:
        return []

    @service.event("order.*.paid")
    async def paid(number: Annotated[int, msgspec.Meta(ge=1)]) -> None: ...

    @service.event("audit.>")
    def audit(anything): ...

    @service.event("audit.>")
    def foreign(it: Foreign | Callable[[], int]) -> Foreign:
        return Foreign()

    @service.event("binary")
    async def extension(it: msgspec.msgpack.Ext) -> None: ...

    @service.every(30)
    async def tidy() -> None: ...

    return service


def references(of: object) -> Iterator[str]:
    """Give all references in a document."""
    if isinstance(of, dict):
        for key, value in of.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(of, list):
        for value in of:
            yield from references(value)


def followed(document: Any, reference: str) -> Any:
    """Return where a reference leads."""
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


@pytest.mark.promise("messaging-service-asyncapi")
def test_every_reference_leads_somewhere_and_every_key_is_allowed():
    mail = Service("mail")
    mail.event("order.created")(lambda payload: None)
    mail.event("audit.rest")(lambda payload: None)
    document = json.loads(json.dumps(asyncapi(orders(), mail)))
    found = set(references(document))
    assert len(found) > 15
    for each in found:
        assert followed(document, each)
    for group in ("channels", "operations"):
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", key) for key in document[group])
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]  # its messages are those of its channel
        assert all(each["$ref"].startswith(f"{channel}/") for each in operation["messages"])


@pytest.mark.promise("messaging-service-asyncapi")
def test_what_it_says_of_a_command():
    document = asyncapi(orders())
    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": "orders", "version": "1.2.0"}
    operation = document["operations"]["orders.create"]
    assert (operation["action"], operation["description"]) == ("receive", "Create an order.")
    assert followed(document, operation["channel"]["$ref"])["address"] == "order.create"
    message = followed(document, followed(document, operation["messages"][0]["$ref"])["$ref"])
    schema = followed(document, message["payload"]["$ref"])
    assert schema["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Item"}
    reply = followed(document, operation["reply"]["messages"][0]["$ref"])
    assert followed(document, reply["$ref"])["payload"] == {
        "type": "object",
        "additionalProperties": {"type": "integer"},
    }
    assert followed(document, operation["reply"]["channel"]["$ref"])["address"] is None


@pytest.mark.promise("messaging-service-asyncapi")
def test_wildcards_are_parameters_and_timers_no_operations():
    document = asyncapi(orders(), title="Shop", version="3")
    assert document["info"] == {"title": "Shop", "version": "3"}
    by_address = {each["address"]: each for each in document["channels"].values()}
    assert set(by_address["order.{token2}.paid"]["parameters"]) == {"token2"}
    assert set(by_address["audit.{rest}"]["parameters"]) == {"rest"}
    assert len(by_address["audit.{rest}"]["messages"]) == 2  # one channel for a topic
    assert "reply" not in document["operations"]["orders.paid"]
    assert not any("tidy" in key for key in document["operations"])
    messages = document["components"]["messages"]
    assert messages["orders.paid"]["payload"] == {"type": "integer", "minimum": 1}
    assert "payload" not in messages["orders.audit"]
    assert "payload" not in messages["orders.foreign"]
    assert "payload" not in messages["orders.everything"]
    assert "payload" not in messages["orders.extension"]  # has no words in JSON Schema


@pytest.mark.promise("messaging-service-asyncapi")
def test_topics_that_look_alike_have_channels_of_their_own():
    service = Service("a")
    for topic in ("x.*", "x._token2_", "x.{token2}"):
        service.event(topic)(lambda payload: None)
    document = asyncapi(service)
    assert len(document["channels"]) == 3


@pytest.mark.promise("messaging-bad-input")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="services must be one service or several"):
        asyncapi()
    with pytest.raises(ValueError, match="services must be one service or several"):
        asyncapi(orders(), orders())
    with pytest.raises(TypeError, match="services must be Services"):
        asyncapi(wrong("orders"))
    with pytest.raises(ValueError, match="title"):
        asyncapi(orders(), title="")


@pytest.mark.promise("messaging-service-asyncapi")
def test_a_topic_that_is_called_as_a_reply_has_a_channel_of_its_own():
    service = Service("users")

    @service.event("users.get.reply")
    async def hear(name: str) -> None: ...

    @service.query("user.get")
    async def get(number: int) -> None: ...

    document = asyncapi(service)
    channels, operations = document["channels"], document["operations"]
    assert channels["users.get.reply"]["address"] == "users.get.reply"
    assert [*channels["users.get.reply"]["messages"]] == ["users.hear"]
    reply = operations["users.get"]["reply"]["channel"]["$ref"].removeprefix("#/channels/")
    assert channels[reply]["address"] is None


# What AsyncAPI 3.0.0 knows of each object, and what of it has to be there.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "document": (
        {"asyncapi", "info"},
        {"id", "servers", "defaultContentType", "channels", "operations", "components"},
    ),
    "info": (
        {"title", "version"},
        {"description", "termsOfService", "contact", "license", "tags", "externalDocs"},
    ),
    "channel": (
        {"address", "messages"},  # ours always have both
        {"title", "summary", "description", "servers", "parameters", "tags", "bindings"},
    ),
    "parameter": (set(), {"enum", "default", "description", "examples", "location"}),
    "operation": (
        {"action", "channel", "messages"},
        {"title", "summary", "description", "security", "tags", "bindings", "traits", "reply"},
    ),
    "reply": ({"channel", "messages"}, {"address"}),
    "message": (
        {"name"},
        {"title", "summary", "description", "headers", "payload", "correlationId", "contentType"},
    ),
    "tag": ({"name"}, {"description", "externalDocs"}),
}


def held_to(kind: str, found: dict[str, Any]) -> None:
    """Hold the fields of an object to what the specification says."""
    needed, more = FIELDS[kind]
    assert needed <= found.keys() <= needed | more, (kind, found)


def hold_to_the_specification(document: dict[str, Any]) -> None:
    """Hold a document to the structure of AsyncAPI 3.0.0."""
    held_to("document", document)
    held_to("info", document["info"])
    assert document["asyncapi"] == "3.0.0"
    assert all(isinstance(each, str) and each for each in document["info"].values())
    channels, operations = document["channels"], document["operations"]
    for channel in channels.values():
        held_to("channel", channel)
        parameters = channel.get("parameters", {})
        assert set(re.findall(r"{(\w+)}", channel["address"] or "")) == parameters.keys()
        for each in parameters.values():
            held_to("parameter", each)
    for each in document["components"]["messages"].values():
        held_to("message", each)
    used, said = set[str](), set[str]()
    for operation in operations.values():
        held_to("operation", operation)
        assert operation["action"] in ("send", "receive")
        for each in operation["tags"]:
            held_to("tag", each)
        ends = [operation]
        if "reply" in operation:
            held_to("reply", operation["reply"])
            ends.append(operation["reply"])
        for end in ends:
            place = end["channel"]["$ref"]
            used.add(place)
            for each in end["messages"]:
                assert each["$ref"].startswith(f"{place}/messages/")
                said.add(followed(document, each["$ref"])["$ref"])
    assert used == {f"#/channels/{name}" for name in channels}  # each is somebody's
    assert said == {f"#/components/messages/{name}" for name in document["components"]["messages"]}
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    referred = set(references(document))
    assert schemas <= referred
    for each in referred:
        followed(document, each)
    assert json.loads(json.dumps(document)) == document


def odd() -> Service:
    """Topics and handlers whose names have to be changed in a document."""
    service = Service("odd-one")

    @service.query("a+b.c")
    async def get(payload: Order | None) -> Item:
        return Item("tea", 1)

    @service.event("*.x.*.>")
    async def first(payload: Item) -> None: ...

    @service.event("a/b.c")
    def again() -> None: ...

    service.event("a+b.c")(again)
    return service


@pytest.mark.promise("messaging-service-asyncapi")
@pytest.mark.parametrize(
    "make",
    [
        lambda: asyncapi(Service("empty")),
        lambda: asyncapi(orders()),
        lambda: asyncapi(odd(), title="Odd"),
        lambda: asyncapi(orders(), odd(), title="Both", version="2"),
    ],
    ids=["empty", "orders", "odd", "both"],
)
def test_documents_have_the_structure_that_the_specification_asks_for(make):
    hold_to_the_specification(make())
