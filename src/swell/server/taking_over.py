"""What a server takes over when it begins: every place that answers, and the others once they do."""

from swell.control.fleet import Fleet
from swell.ports.store import Store
from swell.server.draining import left_out_words
from swell.server.parts import Providers
from swell.server.store_marks import answered_places, mark_answered
from swell.server.troubles import Troubles
from swell.server.writer import Writer

_ALWAYS = frozenset({"process", "external"})  # places that are never away


async def take_over(fleet: Fleet, providers: Providers, store: Store, writer: Writer, troubles: Troubles) -> None:
    """Adopt what runs, and say which places cannot be asked. Raises SwellError.

    A place that no server has ever reached must answer: a mistake is likelier than an outage then.
    """
    places = sorted(providers.by_name.keys() - _ALWAYS)
    known = await writer.call(lambda: answered_places(store, places))
    await fleet.adopt(known)
    # One that is awaited though it is not known has a replica in the store, so that some server has reached it.
    fresh = [each for each in places if each not in known and each not in fleet.left_out]
    if fresh:
        await writer.call(lambda: mark_answered(store, fresh))
    for sentence in left_out_words({**providers.left_out, **fleet.left_out}):
        troubles.say(sentence)
    troubles.look((), fleet.awaited)
