"""Where things are: spotting text, grounding, pointing, counting."""

from __future__ import annotations

from typing import Any

from vlfleet.client import AsyncClient, ModelInfo
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import KNOWN_FAMILIES, Family, PixelLimits
from vlfleet.tasks.dialogue import Dialogue, Reply
from vlfleet.tasks.numbers import read_count
from vlfleet.tasks.picture import Picture
from vlfleet.tasks.places import Place, read_places
from vlfleet.tasks.prompt import filled, prompts_for
from vlfleet.tasks.result import Box, Count, Located, Point
from vlfleet.tasks.space import Space


async def spot(client: AsyncClient, /, image: Any, *, lang: str = "en", family: str = "", **fields: Any) -> Located:
    """Every line of text with its box; the text is the box's label.

    `family` is a model_type such as "qwen2_5_vl", for servers that do not say what they serve.

    Raises:
        VlfleetError: a bad picture, the server's error, or nothing tells the model's family.
    """
    return await _located(client, "spot", image, "", lang, family, fields)


async def ground(
    client: AsyncClient, /, image: Any, thing: str, *, lang: str = "en", family: str = "", **fields: Any
) -> Located:
    """A box around every `thing`: a noun or a description, several divided by commas.

    Raises:
        VlfleetError: see `spot`.
    """
    return await _located(client, "ground", image, thing, lang, family, fields)


async def point(
    client: AsyncClient, /, image: Any, thing: str, *, lang: str = "en", family: str = "", **fields: Any
) -> Located:
    """A point on every `thing`.

    Raises:
        VlfleetError: see `spot`.
    """
    return await _located(client, "point", image, thing, lang, family, fields)


async def count(
    client: AsyncClient, /, image: Any, thing: str, *, lang: str = "en", family: str = "", **fields: Any
) -> Count:
    """How many `thing` there are. Large models are asked to show each, which counts better and can be looked at.

    Raises:
        VlfleetError: see `spot`; or the answer says no number.
    """
    info = await client.model_info()
    prompt = prompts_for(served_name(client, info, fields), lang).of("count")
    if prompt.counts == "boxes":
        located = await _located(client, "count", image, thing, lang, family, fields)
        return Count(len(located.boxes) + len(located.points), located, located.reply)
    dialogue = await Dialogue.about(client, "count", [image], lang=lang, **fields)
    reply = await dialogue.ask(filled(dialogue.prompt.user, thing=thing))
    number = read_count(reply.text)
    if number is None:
        raise VlfleetError(f"the answer says no number: {reply.text.strip()[:80]!r}", "ask for something simpler")
    return Count(number, None, reply)


def served_name(client: AsyncClient, info: ModelInfo, fields: dict[str, Any]) -> str:
    """The name of the model that will answer."""
    return str(fields.get("model") or client.model or info.id)


async def _located(
    client: AsyncClient, task: str, image: Any, thing: str, lang: str, family: str, fields: dict[str, Any]
) -> Located:
    picture = await Picture.of(image)
    space = await space_of(client, picture, family, fields)
    dialogue = await Dialogue.about(client, task, [picture.content], lang=lang, **fields)
    reply = await dialogue.ask(filled(dialogue.prompt.user, thing=thing))
    return located(reply, space)


async def space_of(client: AsyncClient, picture: Picture, family: str, fields: dict[str, Any]) -> Space:
    """The coordinates in which the server's model speaks of `picture`.

    Raises:
        VlfleetError: exit code 2; nothing tells the family, whose convention is never guessed from an answer.
    """
    info = await client.model_info()
    name = served_name(client, info, fields)
    known, taught = _family(info, family, name), prompts_for(name)
    own = PixelLimits.of(known)
    smallest = info.min_pixels or taught.min_pixels or own.min_pixels
    limits = PixelLimits(smallest, info.max_pixels or taught.max_pixels or own.max_pixels)
    try:
        limits = limits.under(fields.get("mm_processor_kwargs") or {})
    except ValueError as error:
        cause = f"mm_processor_kwargs: {error}"
        raise VlfleetError(cause, "give min_pixels and max_pixels as whole numbers", ExitCode.USAGE) from None
    return Space.of(known, limits, picture.width, picture.height)


def _family(info: ModelInfo, given: str, name: str) -> Family:
    if given:
        if given in KNOWN_FAMILIES:
            return KNOWN_FAMILIES[given]
        raise VlfleetError(f"{given!r} is no family", f"use one of {', '.join(KNOWN_FAMILIES)}", ExitCode.USAGE)
    if info.family is not None:
        return info.family
    if own := prompts_for(name).family:
        return KNOWN_FAMILIES[own]
    cause = f"the server does not say of which family {name!r} is, and boxes differ between families"
    raise VlfleetError(cause, f"say it with --family: {', '.join(KNOWN_FAMILIES)}", ExitCode.USAGE)


def located(reply: Reply, space: Space) -> Located:
    """An answer's places in original pixels. Pure."""
    found = read_places(reply.text)
    boxes, points, outside = list[Box](), list[Point](), 0
    for place in found.places:
        if place.point is not None:
            points.append(Point(*space.point(*place.point), place.label, place.attributes))
        elif (box := _box(place, space)) is not None:
            boxes.append(box)
        else:
            outside += 1
    complete = found.complete and not reply.cut_off and not outside
    return Located(tuple(boxes), tuple(points), space.width, space.height, complete, reply)


def _box(place: Place, space: Space) -> Box | None:
    corners = space.box(place.box) if place.box else None
    return Box(*corners, place.label, place.attributes) if corners else None
