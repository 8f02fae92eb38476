"""Order, lease and proof as pure functions."""

import uuid
from collections import Counter
from datetime import UTC, datetime

from labelhub.assignments.rules import (
    display_order,
    is_proof,
    lease_end,
    new_token,
    parse_token,
    shuffle_key,
)


def test_the_order_shows_every_answer_once() -> None:
    assert sorted(display_order(7, 1, [11, 12, 13, 14])) == [11, 12, 13, 14]


def test_the_order_stays_whatever_order_the_database_gives() -> None:
    assert display_order(7, 1, [11, 12, 13, 14]) == display_order(7, 1, [14, 12, 11, 13])


def test_the_order_never_changes_between_releases() -> None:
    # Positions are stored with rankings: an upgrade must not shuffle a page that is open.
    # By hand: `for a in 1 2 3 4; do printf "1:1:$a" | sha256sum; done`, sorted.
    assert display_order(1, 1, [1, 2, 3, 4]) == [3, 2, 1, 4]
    assert display_order(1, 2, [1, 2, 3, 4]) == [1, 2, 4, 3]


def test_each_answer_stands_in_each_place_equally_often() -> None:
    # 2,400 pages of 4 answers: 600 are expected in each place. The standard deviation is
    # sqrt(2400 · 1/4 · 3/4) = 21, so 500 to 700 is nearly five of them.
    first = Counter(display_order(slot, 5, [1, 2, 3, 4])[0] for slot in range(2400))
    last = Counter(display_order(3, annotator, [1, 2, 3, 4])[3] for annotator in range(2400))
    assert all(500 < first[answer] < 700 for answer in (1, 2, 3, 4))
    assert all(500 < last[answer] < 700 for answer in (1, 2, 3, 4))


def test_the_shuffle_key_fits_its_column_and_spreads() -> None:
    keys = [shuffle_key(answer_set, n) for answer_set in range(300) for n in range(3)]
    assert 0 <= min(keys) < 2**31 // 50
    assert 2**31 - 2**31 // 50 < max(keys) < 2**31
    assert len(set(keys)) == 900


def test_a_lease_lasts_a_quarter_of_an_hour() -> None:
    now = datetime(2026, 5, 1, 23, 50, tzinfo=UTC)
    assert lease_end(now) == datetime(2026, 5, 2, 0, 5, tzinfo=UTC)
    assert lease_end(now, minutes=1) == datetime(2026, 5, 1, 23, 51, tzinfo=UTC)


def test_a_token_proves_for_whom_and_what_it_was_made() -> None:
    token = new_token("key", 7, 1)
    assert is_proof(token, "key", 7, 1)
    assert not is_proof(token, "key", 8, 1)
    assert not is_proof(token, "key", 7, 2)
    assert not is_proof(token, "another key", 7, 1)
    assert not is_proof(uuid.uuid4(), "key", 7, 1)


def test_two_leases_have_two_tokens() -> None:
    assert new_token("key", 7, 1) != new_token("key", 7, 1)


def test_a_token_is_read_from_a_form_or_not_at_all() -> None:
    token = uuid.uuid4()
    assert parse_token(token) == token
    assert parse_token(str(token)) == token
    assert [parse_token(value) for value in ("", "slot 7", None, 7)] == [None] * 4
