"""Templates of keys: checked when made, and no two calls have one key by accident."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.template import Parameters, Template


def call(user_id, /, order, *more, region="eu", **rest): ...


PARAMETERS = Parameters(signature(call))


@dataclass
class Order:
    id: int
    customer: str = "c"


def render(template, *args, **kwargs):
    return Template("key", template, PARAMETERS).render(args, kwargs)


def test_fields_are_filled_from_the_call():
    assert render("user:{user_id}", 7, 1) == "user:7"
    assert render("{order}", 7, 1) == "1"
    assert render("{order}!", 7, order="x") == "x!"
    assert render("{user_id}/{region}", 7, 1) == "7/eu"
    assert render("{user_id}/{region}", 7, 1, region="us") == "7/us"
    assert render("everything", 7, 1) == "everything"
    assert render("{{{user_id}}}", 7, 1) == "{7}"
    assert render("{order.id}-{order.customer}", 7, Order(3)) == "3-c"
    assert render("{order.customer}", 7, Order(3)) == "c"


def test_only_what_stands_between_two_fields_is_escaped():
    assert render("user:{user_id}", "user:%") == "user:user:%"
    assert render("user:{user_id}:{region}!", "user:%!", 1, region="eu") == "user:user%3a%25!:eu!"


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "unique.key must be a non-empty string"),
        ("{nobody}", r"unique.key names 'nobody', .* \(it has: user_id, order, region\)"),
        ("{}", "unique.key names ''"),
        ("{0}", "unique.key names '0'"),
        ("{more}", "unique.key names 'more'"),
        ("{rest}", "unique.key names 'rest'"),
        ("{user_id", "unique.key must be a template such as"),
        ("user_id}", "unique.key must be a template such as"),
        ("{user_id!r}", "plain fields only, no format"),
        ("{user_id:>10}", "plain fields only, no format"),
        ("{user_id}{order}", "needs text between two fields"),
        ("{order.__class__}", "may name public attributes"),
        ("{order._x}", "may name public attributes"),
        ("{order.}", "unique.key may name public attributes|names"),
        ("{order[id]}", "unique.key names 'order\\[id\\]'"),
        ("{order.a-b}", "may name public attributes"),
    ],
)
def test_what_is_no_template_is_refused(template, message):
    with pytest.raises(ValueError, match=message):
        Template("unique.key", template, PARAMETERS)


def test_a_signature_without_parameters_says_so():
    with pytest.raises(ValueError, match="it has: none"):
        Template("key", "{x}", Parameters(signature(lambda: None)))


def test_an_attribute_that_is_not_there_is_an_error_of_the_call():
    for template in ("{order.nothing}", "{user_id}:{order.nothing.more}"):
        message = f"'{template}' does not fit the arguments of this call: .*'nothing'"
        with pytest.raises(ValueError, match=message) as caught:
            render(template, 1, Order(3))
        assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.promise("jobs-keys")
@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_two_calls_have_one_key_only_if_their_fields_are_equal(one, other):
    template = Template("key", "a:{user_id}:{order}b", PARAMETERS)
    same = template.render(one, {}) == template.render(other, {})
    assert same == (one == other)


@given(st.text(alphabet=":%{}b", max_size=6), st.text(alphabet=":%{}b", max_size=6))
def test_the_text_of_the_template_cannot_be_faked(left, right):
    template = Template("key", "{user_id}:{order}", PARAMETERS)
    assert template.render((f"{left}:{right}", ""), {}) != template.render((left, right), {})


@given(st.text(max_size=500))
def test_a_long_key_is_cut_and_still_its_own(value):
    key = render("user:{user_id}", value, 1)
    assert len(key) <= 200
    assert len(render("user:{user_id}", "x" * 1_000, 1)) == 200
    assert render("user:{user_id}", "x" * 1_000, 1) != render("user:{user_id}", "x" * 999, 1)
