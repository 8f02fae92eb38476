"""A real browser against a real server: `open_page(ann)` is a fresh window with ann signed in.

A test fails if any page of it wrote an error to the console, a refused script or style included.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from labelhub.accounts.models import User
from tests.browser import launch_options

PATIENCE_MS = 15_000  # two busy cores
CLOSING_SECONDS = 20
# The browser says so itself when a form is refused (422, 409) or a test cuts the line: those are no
# errors of the page.
EXPECTED = tuple(
    f"Failed to load resource: {why}"
    for why in (
        "the server responded with a status of 4",
        "net::ERR_INTERNET_DISCONNECTED",
        "net::ERR_FAILED",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is end to end."""
    for item in items:
        if "/e2e/" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file; each page has a window of its own."""
    options = launch_options()
    # Playwright keeps an event loop in this thread: Django would take the tests for async code, and
    # those of other files could have no loop of their own beside it. So it ends with the file (a
    # folder without __init__.py is no package to pytest, whose scope would be the whole session).
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(**options)
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


class _StillOpen(Exception):
    """A window was asked to close and did not answer."""


def close_in_time(context: BrowserContext) -> None:
    """Close a window, or go on without: about once in a thousand Chromium never answers.

    That says nothing about the page, and would cost the test its five minutes and its result.
    """

    def give_up(*_: object) -> None:
        raise _StillOpen

    before = signal.signal(signal.SIGALRM, give_up)
    left, _ = signal.setitimer(signal.ITIMER_REAL, CLOSING_SECONDS)
    try:
        context.close()
    except _StillOpen:
        sys.stderr.write(f"A window was still open after {CLOSING_SECONDS} s.\n")
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def open_page(
    browser: Browser, live_server: Any, sign_in: Callable[[User], Client]
) -> Iterator[Callable[..., Page]]:
    """`open_page(ann, viewport=…)` opens a window with ann's session; paths are the server's."""
    contexts, errors = [], []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(EXPECTED):
            errors.append(message.text)

    def open_window(user: User | None = None, **options: Any) -> Page:
        context = browser.new_context(base_url=live_server.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        if user is not None:
            context.add_cookies([_session(sign_in(user), live_server.url)])
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield open_window
    for context in contexts:
        close_in_time(context)
    assert errors == []


def _session(client: Client, url: str) -> dict[str, str]:
    return {
        "name": settings.SESSION_COOKIE_NAME,
        "value": client.cookies[settings.SESSION_COOKIE_NAME].value,
        "domain": urlsplit(url).hostname or "localhost",
        "path": "/",
    }
