"""Certificates read again on SIGHUP, while the server goes on. The edge: a signal.

A service manager, if there is one, is told when that begins and when it is over.
"""

from __future__ import annotations

import select
import signal
from typing import TYPE_CHECKING

from alphabet.journal import entries
from alphabet.network.waker import Waker
from alphabet.thread import start_thread

if TYPE_CHECKING:
    from alphabet.journal.journal import Journal
    from alphabet.network.certificates import Certificates
    from alphabet.service.service_manager import ServiceManager


def hear_hangups(*, is_reloaded: bool) -> Waker | None:
    """Give what each SIGHUP wakes, one that waited since the start too.

    None where nothing is to be reloaded: it ends the process then, unless whoever
    started that said otherwise. To be called in the main thread.
    """
    waker = Waker() if is_reloaded else None
    if waker is not None:
        # It may interrupt any lock's holder, so it takes none: it only wakes.
        signal.signal(signal.SIGHUP, lambda *_: waker.wake())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    return waker


def reload_on_hangup(
    waker: Waker,
    certificates: Certificates | None,
    journal: Journal,
    manager: ServiceManager,
) -> None:
    """Read the files again at each wake, those before this call too.

    A manager takes the end of it for being ready: so not to be called before that.
    """
    start_thread("renewal", lambda: _serve(waker, certificates, journal, manager))


def _serve(
    waker: Waker,
    certificates: Certificates | None,
    journal: Journal,
    manager: ServiceManager,
) -> None:
    while True:
        select.select([waker], [], [])
        waker.clear()
        with manager.reloading():
            if certificates is None:
                journal.say(entries.nothing_to_renew())
            else:
                _reload(certificates, journal)


def _reload(certificates: Certificates, journal: Journal) -> None:
    from alphabet.network.tls import TlsFileError

    try:
        certificates.reload()
    except TlsFileError as error:
        journal.say(entries.certificates_kept(cause=str(error)))
    else:
        journal.say(entries.certificates_renewed())
