"""Message versioning: an order written years ago is read by the program of today."""

from __future__ import annotations

from aiopatterns.messaging import Message, Upcasters

upcasters = Upcasters()
upcasters.step("order", 1, lambda order: order | {"currency": "EUR"})
upcasters.step("order", 2, lambda order: order | {"lines": [order["item"]]})


def main() -> None:
    old = Message(type="order", version=1, payload={"id": 17, "item": "tea"})
    new = upcasters.upcast_message(old)
    assert (new.type, new.version, new.id) == ("order", 3, old.id)
    assert new.payload == {"id": 17, "item": "tea", "currency": "EUR", "lines": ["tea"]}
    print(f"version {old.version} read as version {new.version}: {new.payload}")


if __name__ == "__main__":
    main()
