"""Latency profiles and prices that ship with Swell, and the user's own in their place.

Two small tables, `tables/profiles.csv` and `tables/prices.csv`, with a source in every row. They are read when first
asked for. A user's file (CSV with the same columns, or YAML with a list of mappings) adds to them and replaces.

Profiles. Coefficients are least-squares fits with relative weights; L4 rows are the roofline times 1.4, since nobody
has measured its operators. What the KV cache holds follows from memory:

    kv_tokens = (0.9 · memory - used) · count / (2 · layers · kv_heads · head_size · 2 bytes)

with the memory of one accelerator (80 GiB of an A100-80GB, 79.6 H100, 140.4 H200, 45 L40S, 22.5 L4) and what weights
and activations use on it. `max_sequences` is as far as the fits go; `chunk_tokens` is what vLLM takes by default.

Prices are those of an instance, and dated. A replica that needs fewer accelerators than an instance has pays its share
where the instance divides evenly, since a fleet fills instances up. Amounts are kept in nano-dollars; what is searched
and optimised here goes by the nearest floats, and no bill is made of those.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from swell.errors import UserError
from swell.state.catalogue_rows import Price, listed_names, nearest_name, read_rows, shipped_rows, write_rows
from swell.state.scaling import LatencyProfile, Market, Pool

__all__ = [
    "Price",
    "add_prices",
    "add_profile",
    "cheapest",
    "default_pool",
    "find_profile",
    "load_prices",
    "load_profiles",
    "matching",
    "plain_model",
    "pools_for",
    "prices",
    "profiles",
]

DEFAULT_MODEL = "llama-3.1-8b"
DEFAULT_ACCELERATOR = "A100-80GB"
DEFAULT_START_SECONDS = 120.0
# Spot capacity lasts about four hours: of nine AWS zones recorded for 45 days (V100, 2023; "Can't Be Late", NSDI'24)
# the median zone kept it for 4.3 h on average, the others for 0.7 to 10.4 h.
DEFAULT_HAZARD_PER_HOUR = 0.25


# What ships


@lru_cache(maxsize=1)
def profiles() -> Mapping[str, LatencyProfile]:
    """Every profile that ships, by its name."""
    return MappingProxyType({profile.name: profile for profile in shipped_rows(LatencyProfile, "profiles.csv")})


@lru_cache(maxsize=1)
def prices() -> tuple[Price, ...]:
    """Every price that ships."""
    return tuple(shipped_rows(Price, "prices.csv"))


# A user's own


def load_profiles(path: Path, *, extend: bool = True) -> Mapping[str, LatencyProfile]:
    """The profiles in a file, with those that ship where `extend`; on equal names the file's count. UserError."""
    own = {profile.name: profile for profile in read_rows(LatencyProfile, path)}
    return MappingProxyType({**profiles(), **own} if extend else own)


def load_prices(path: Path, *, extend: bool = True) -> tuple[Price, ...]:
    """The prices in a file, with those that ship where `extend`. UserError.

    A price of the file replaces what ships for the same instance in its zone, or region, or cloud, whatever it names.
    """
    own = tuple(read_rows(Price, path))
    if not extend:
        return own
    kept = (price for price in prices() if not any(_replaces(new, price) for new in own))
    return (*own, *kept)


def add_profile(path: Path, profile: LatencyProfile) -> None:
    """Put a profile into a user's file, new or not, in place of one of that name; the rest stays. UserError."""
    there = read_rows(LatencyProfile, path) if path.exists() else []
    write_rows(path, [*(row for row in there if row.name != profile.name), profile])


def add_prices(path: Path, new: Sequence[Price]) -> int:
    """Put prices into a user's file, new or not, in place of those of the same instances in the same places.

    How many of the file's prices stay as they were. UserError.
    """
    there = read_rows(Price, path) if path.exists() else []
    places = {_place(price) for price in new}
    stay = [price for price in there if _place(price) not in places]
    write_rows(path, [*stay, *new])
    return len(stay)


def _place(price: Price) -> tuple[str, ...]:
    return tuple(name.casefold() for name in (price.cloud, price.instance, price.region, price.zone))


def _replaces(new: Price, old: Price) -> bool:
    return (
        (new.cloud.casefold(), new.instance.casefold()) == (old.cloud.casefold(), old.instance.casefold())
        and new.region in ("", old.region)
        and new.zone in ("", old.zone)
    )


# Finding


def find_profile(
    model: str, accelerator: str, count: int | None = 1, among: Mapping[str, LatencyProfile] | None = None
) -> LatencyProfile:
    """The profile of a model on so many accelerators; None takes the fewest that there is a profile for.

    A model may be named as its publisher does, such as `meta-llama/Llama-3.1-8B-Instruct`. UserError names the nearest.
    """
    known = profiles() if among is None else among
    wanted, kind = plain_model(model), accelerator.casefold()
    fits = [p for p in known.values() if plain_model(p.model) == wanted and p.accelerator.casefold() == kind]
    exact = [profile for profile in fits if count in (None, profile.accelerator_count)]
    if exact:
        return min(exact, key=lambda profile: profile.accelerator_count)
    asked = f"{wanted}@{f'{count}x' if count and count > 1 else ''}{accelerator}"
    same_model = [p.name for p in known.values() if plain_model(p.model) == wanted]
    near = fits[0].name if fits else nearest_name(asked, same_model or list(known))
    hint = f"did you mean {near}?" if near else f"known are {listed_names(same_model or list(known))}."
    raise UserError(f"there is no latency profile of {asked}; {hint} Measure one with: swell profile --write FILE")


def plain_model(name: str) -> str:
    """`meta-llama/Meta-Llama-3.1-8B-Instruct@main` as `llama-3.1-8b`: what decides its speed, without who tuned it."""
    plain = name.rsplit("/", 1)[-1].partition("@")[0].casefold()
    plain = plain.removesuffix(".gguf").removeprefix("meta-").replace("_", "-")
    plain = re.sub(r"\.i?q\d[-\w]*$", "", plain)  # a quantised file
    return re.sub(r"-(?:instruct|chat|it|hf|base)(?:-\d{4})?(?=$|-fp8$)", "", plain)


def cheapest(
    accelerator: str,
    count: int = 1,
    market: Market = Market.ON_DEMAND,
    *,
    clouds: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    whole: bool = False,
    among: Iterable[Price] | None = None,
) -> Price:
    """Where a replica of `count` accelerators costs least.

    With `whole` only instances that it fills count. UserError where nothing of that kind is listed.
    """
    found = _offers(accelerator, count, market, clouds, regions, prices() if among is None else among)
    fitting = [(usd, price) for usd, price in found if not whole or price.accelerator_count == count]
    if fitting:
        return min(fitting, key=lambda offer: (offer[0], offer[1].region, offer[1].zone))[1]
    listed = prices() if among is None else among
    kinds = sorted({price.accelerator for price in listed})
    near = nearest_name(accelerator, kinds)
    if accelerator.casefold() in {kind.casefold() for kind in kinds}:
        hint = "name other clouds, regions or counts, or add a row to your own prices"
    else:
        hint = f"did you mean {near}?" if near else f"listed are {listed_names(kinds)}"
    raise UserError(f"no {market.value.replace('_', '-')} price of {count} x {accelerator} is listed; {hint}")


def matching(
    *,
    accelerators: Sequence[str] | None = None,
    clouds: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    model: str | None = None,
    market: Market | None = None,
    among: Iterable[Price] | None = None,
    known_profiles: Mapping[str, LatencyProfile] | None = None,
) -> list[Price]:
    """The prices that meet every condition; an accelerator is `H100`, or `8xH100` for instances with eight.

    `model` keeps what it has a latency profile for, `market` what is sold so, spot at a discount. UserError names the
    nearest to a name that is not listed.
    """
    found = list(prices() if among is None else among)
    kinds = None if accelerators is None else [_accelerator(text) for text in accelerators]
    _refuse_unknown("accelerator", [kind for kind, _ in kinds or ()], {p.accelerator for p in found})
    _refuse_unknown("cloud", clouds or (), {p.cloud for p in found})
    _refuse_unknown("region", regions or (), {p.region for p in found})
    if kinds is not None:
        asked = {(kind.casefold(), count) for kind, count in kinds}
        found = [p for p in found if asked & {(p.accelerator.casefold(), n) for n in (None, p.accelerator_count)}]
    found = [p for p in found if is_there(p, clouds, regions)]
    if model is not None:
        known, wanted = profiles() if known_profiles is None else known_profiles, plain_model(model)
        fits = [profile for profile in known.values() if plain_model(profile.model) == wanted]
        fits = fits or [find_profile(model, DEFAULT_ACCELERATOR, None, known)]  # which refuses, with the nearest name
        needs = {(profile.accelerator.casefold(), profile.accelerator_count) for profile in fits}
        found = [
            p for p in found if any(k == p.accelerator.casefold() and not p.accelerator_count % n for k, n in needs)
        ]
    if market is Market.SPOT:
        return [p for p in found if p.has_discount]
    return [p for p in found if market is None or p.on_demand_usd_nanos_per_hour is not None]


def is_there(price: Price, clouds: Sequence[str] | None, regions: Sequence[str] | None) -> bool:
    """Whether something is sold in one of these, in any case of letters; a price without a region holds in each."""
    is_cloud = clouds is None or price.cloud.casefold() in {cloud.casefold() for cloud in clouds}
    return is_cloud and (regions is None or price.region.casefold() in {"", *(r.casefold() for r in regions)})


def _refuse_unknown(what: str, asked: Iterable[str], listed: set[str]) -> None:
    for name in asked:
        if name.casefold() not in {each.casefold() for each in listed}:
            names = sorted(listed - {""})
            near = nearest_name(name, names)
            hint = f"did you mean {near}?" if near else f"listed are {listed_names(names)}"
            raise UserError(f"no price of the {what} {name!r} is listed; {hint}")


def pools_for(
    model: str,
    accelerators: Sequence[str],
    *,
    markets: Sequence[Market] = (Market.ON_DEMAND,),
    clouds: Sequence[str] | None = None,
    regions: Sequence[str] | None = None,
    start_seconds: float = DEFAULT_START_SECONDS,
    hazard_per_hour: float = DEFAULT_HAZARD_PER_HOUR,
    known_profiles: Mapping[str, LatencyProfile] | None = None,
    known_prices: Iterable[Price] | None = None,
) -> tuple[Pool, ...]:
    """Every way to get a replica of `model` on `accelerators`, such as `L4` or `4xH100`.

    On-demand is one pool, where it is cheapest; spot is a pool per zone, where it is cheaper than on-demand. Without a
    number it is the fewest accelerators that there is a profile for. UserError where profile or prices are missing.
    """
    listed = tuple(prices() if known_prices is None else known_prices)
    found: list[Pool] = []
    for text in accelerators:
        kind, count = _accelerator(text)
        profile = find_profile(model, kind, count, known_profiles)
        kind, count = profile.accelerator, profile.accelerator_count
        label = profile.name.rpartition("@")[2]
        if Market.ON_DEMAND in markets:
            price = cheapest(kind, count, clouds=clouds, regions=regions, among=listed)
            usd = price.usd_per_hour(Market.ON_DEMAND, count)
            found.append(Pool(label, profile, usd or 0.0, start_seconds, zone=price.zone or price.region))
        if Market.SPOT in markets:
            found += [
                Pool(f"{label}/spot/{zone}", profile, usd, start_seconds, Market.SPOT, zone, hazard_per_hour)
                for zone, usd in _spot_zones(_offers(kind, count, Market.SPOT, clouds, regions, listed)).items()
            ]
    if not found:
        raise UserError(f"no price of {listed_names(accelerators)} is listed; name other markets, clouds or regions")
    return tuple(found)


def default_pool(start_seconds: float = DEFAULT_START_SECONDS) -> Pool:
    """What `swell simulate` takes where nothing is said: Llama-3.1-8B on one A100-80GB, on demand."""
    price = cheapest(DEFAULT_ACCELERATOR, 1, whole=True)
    usd = price.usd_per_hour(Market.ON_DEMAND, 1)
    return Pool(DEFAULT_ACCELERATOR, find_profile(DEFAULT_MODEL, DEFAULT_ACCELERATOR), usd or 0.0, start_seconds)


def _offers(
    accelerator: str,
    count: int,
    market: Market,
    clouds: Sequence[str] | None,
    regions: Sequence[str] | None,
    listed: Iterable[Price],
) -> list[tuple[float, Price]]:
    offers = []
    for price in listed:
        usd = price.usd_per_hour(market, count)
        if (
            usd is not None
            and price.accelerator.casefold() == accelerator.casefold()
            and is_there(price, clouds, regions)
            and (market is Market.ON_DEMAND or price.has_discount)
        ):
            offers.append((usd, price))
    return offers


def _spot_zones(offers: Iterable[tuple[float, Price]]) -> dict[str, float]:
    """The cheapest spot price of each zone, cheapest zone first."""
    zones: dict[str, float] = {}
    for usd, price in sorted(offers, key=lambda offer: (offer[0], offer[1].zone, offer[1].region)):
        zones.setdefault(price.zone or price.region or price.cloud, usd)
    return zones


def _accelerator(text: str) -> tuple[str, int | None]:
    """`4xH100` is four of them; `H100` is as many as needed."""
    match = re.fullmatch(r"(\d{1,3})x(.+)", text.strip())
    return (match[2], int(match[1])) if match else (text.strip(), None)
