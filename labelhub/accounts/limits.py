"""Limits on failed tries at other doors than the sign-in page, counted as it counts them.

The counter is django-axes': so many failures for one name from one address close that pair for a
while. It gets a request that holds nothing but the address and the browser, since it would keep
what was sent, a link's secret or a password in a field that it does not know among it.
"""

from __future__ import annotations

from axes.handlers.proxy import AxesProxyHandler
from django.http import HttpRequest

_KEPT = ("REMOTE_ADDR", "HTTP_X_FORWARDED_FOR", "HTTP_USER_AGENT")


def is_closed(request: HttpRequest, name: str) -> bool:
    """Whether too many tries under this name failed from this address of late."""
    return not AxesProxyHandler.is_allowed(_bare(request), {"username": name})


def count_failure(request: HttpRequest, name: str) -> None:
    """Note one failed try."""
    AxesProxyHandler.user_login_failed(
        sender=__name__, credentials={"username": name}, request=_bare(request)
    )


def _bare(request: HttpRequest) -> HttpRequest:
    bare = HttpRequest()
    bare.META = {name: request.META[name] for name in _KEPT if name in request.META}
    bare.path = bare.path_info = "/"
    # Axes counts only what is sent by POST.
    bare.method = "POST"
    return bare
