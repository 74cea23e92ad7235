"""What is wrong with a configuration, in words: msgspec's messages with the key, the value and what is permitted."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta

_AT: Final = re.compile(r"(?P<what>.*) - at (?P<key>`key` in )?`(?P<path>\$.*)`$", re.DOTALL)
_STEPS: Final = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_UNKNOWN: Final = re.compile(r"unknown field `(.+)`")


class _Place(NamedTuple):
    """A place in the configuration: its path, the type it should have, the value that is there."""

    path: str
    kind: Any
    value: Any

    def step(self, name: str, position: str) -> "_Place":
        """What lies under a field's name or a list's position; `...` is a key that the user chose."""
        kind = _plain(_alternative(self.kind, self.value))
        if position == "...":
            _, inner = get_args(kind)
            key = _wrong_key(self.value, inner)
            return _Place(f"{self.path}.{key}", inner, _item(self.value, key))
        if position:
            return _Place(f"{self.path}[{position}]", get_args(kind)[0], _item(self.value, int(position)))
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        return _Place(f"{self.path}.{name}", fields[name], _item(self.value, name))


def explain(message: str, tree: Mapping[str, Any], root: type[msgspec.Struct]) -> str:
    """The message of msgspec's ValidationError for `tree` as a `root`, in words for who wrote the tree."""
    found = _AT.match(message) or re.match(r"(?P<what>.*)(?P<key>)(?P<path>)$", message, re.DOTALL)
    assert found is not None
    place = _Place("$", root, tree)
    for name, position in _STEPS.findall(found["path"] or ""):
        place = place.step(name, position)
    if unknown := _UNKNOWN.search(found["what"]):
        known = [field.encode_name for field in msgspec.structs.fields(_plain(place.kind))]
        near = near_to(unknown[1], known)
        return f"configuration: {found['what']} - at `{place.path}`{near or ': known are ' + ', '.join(known)}"
    if found["key"]:
        key_kind, _ = get_args(_plain(_alternative(place.kind, place.value)))
        place = _Place(place.path, key_kind, _wrong_key(dict.fromkeys(place.value, 0), int, key_kind))
    wanted = _wanted(found["what"], place)
    where = f"`{place.path}`"
    return f"{place.path[2:]}: {wanted} - at {where}" if wanted else f"configuration: {found['what']} - at {where}"


def near_to(value: object, known: Iterable[object]) -> str:
    """`: did you mean `x`?` for the known value that is nearest to a wrong one; empty if none is near."""
    near = difflib.get_close_matches(str(value), [str(one) for one in known], 1)
    return f": did you mean `{near[0]}`?" if near else ""


def _wanted(what: str, place: _Place) -> str:
    """What is permitted at a place and what was there; empty where msgspec's own words say it."""
    if permitted := _permitted(place.kind):
        listed = ", ".join(str(one) for one in permitted)
        return f"one of {listed}, was {place.value!r}{near_to(place.value, permitted)}"
    if what.startswith("Expected `array`, got"):
        return f"a list such as {[place.value]}, was {place.value!r}"
    if about := _description(place.kind):
        return f"{about}, was {place.value!r}"
    return f"{what[:1].lower()}{what[1:]}, was {place.value!r}" if what.startswith("Expected") else ""


def _permitted(kind: Any) -> Sequence[object]:
    """The values of a Literal, none for other types."""
    plain = _plain(kind)
    return get_args(plain) if get_origin(plain) is Literal else ()


def _description(kind: Any) -> str:
    """What the type says of itself in its Meta."""
    metas = getattr(_without_none(kind), "__metadata__", ())
    return next((meta.description for meta in metas if isinstance(meta, Meta) and meta.description), "")


def _plain(kind: Any) -> Any:
    """The type itself, without None and without bounds."""
    kind = _without_none(kind)
    return _plain(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _alternative(kind: Any, value: Any) -> Any:
    """Of the types that a place may have, the one for a table, a list or else that was given; the type where it is one.

    A union's bounds are not its alternatives'.
    """
    plain = _plain(kind)
    wanted = {dict: Mapping, tuple: list}
    for each in get_args(plain) if get_origin(plain) is Union else ():
        if isinstance(value, wanted.get(get_origin(_plain(each)) or each, str)):
            return each
    return kind


def _without_none(kind: Any) -> Any:
    parts = [part for part in get_args(kind) if part is not type(None)]
    return parts[0] if type(None) in get_args(kind) and len(parts) == 1 else kind


def _item(container: Any, key: str | int) -> Any:
    if isinstance(container, Mapping):
        return container.get(str(key))
    return container[key] if isinstance(container, Sequence) and isinstance(key, int) else None


def _wrong_key(table: Any, kind: Any, key_kind: Any = str) -> str:
    """The first key that is not of its kind, or whose value is not; empty if there is none."""
    for key, value in table.items() if isinstance(table, Mapping) else ():
        try:
            msgspec.convert({key: value}, dict[key_kind, kind], strict=False)
        except msgspec.ValidationError:
            return str(key)
    return ""
