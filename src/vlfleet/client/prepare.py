"""Pictures and videos made ready to travel, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from vlfleet.client import images as pictures
from vlfleet.client.images import UNFITTED_LIMITS, Elsewhere, Part, Picture
from vlfleet.client.model import ModelInfo
from vlfleet.client.prefit import fit_of, fitted
from vlfleet.client.video import Taken, read_videos
from vlfleet.media.fit import Fit
from vlfleet.media.header import GATEWAY_LIMITS, MediaLimits


@dataclass(frozen=True)
class Preparation:
    """What one client does to media. `local`: the server is on this machine."""

    model_info: Callable[[], Awaitable[ModelInfo]]
    fit: bool
    local: bool

    async def image_parts(self, images: Any, *, here: bool = False) -> list[Part]:
        """Content parts. With `here` no part is a URL, whoever could fetch it.

        Raises:
            VlfleetError: exit code 2; one line for the first that cannot be sent.
        """
        return [pictures.image_part(url) for url in await self._images(images, here=here)]

    async def video_parts(self, videos: Any) -> list[Part]:
        """Content parts.

        Raises:
            VlfleetError: exit code 2; one line for the first that cannot be sent.
        """
        info = await self.model_info()
        frames = info.vision.sampling.num_frames if info.vision else Taken.num_frames
        read = await asyncio.to_thread(read_videos, videos, Taken(frames, files=info.engine != "embedded"))
        urls = [each.url if isinstance(each, Elsewhere) else each for each in read]
        return [{"type": "video_url", "video_url": {"url": url}} for url in urls]

    async def _images(self, images: Any, *, here: bool) -> list[str]:
        limits = UNFITTED_LIMITS if self.fit else GATEWAY_LIMITS

        def read() -> list[Picture | Elsewhere | str]:
            found = pictures.read_all(images, limits)
            return [each.url() if isinstance(each, Picture) and not self.fit else each for each in found]

        found = await asyncio.to_thread(read)
        ready = [each for each in found if isinstance(each, str)]
        if len(ready) == len(found):
            return ready
        await self._fetch(found, limits, here=here)
        how = fit_of(await self.model_info(), local=self.local) if self.fit else None
        return list(await asyncio.gather(*(asyncio.to_thread(url_of, each, how) for each in found)))

    async def _fetch(self, found: list[Picture | Elsewhere | str], limits: MediaLimits, *, here: bool) -> None:
        """Puts pictures in the place of URLs that the server does not fetch, or that are needed here."""
        places = [at for at, each in enumerate(found) if isinstance(each, Elsewhere) and not each.is_upload]
        if not places or not (here or self.fit or not (await self.model_info()).fetches_urls):
            return
        from vlfleet.client.remote import fetch_all

        urls = [each.url for each in found if isinstance(each, Elsewhere) and not each.is_upload]
        for at, url, content in zip(places, urls, await fetch_all(urls, limits.encoded_bytes), strict=True):
            found[at] = pictures.picture(url[:200], content, limits)


def url_of(each: Picture | Elsewhere | str, how: Fit | None) -> str:
    """
    Raises:
        VlfleetError: exit code 2; it cannot be fitted.
    """
    if isinstance(each, str):
        return each
    if isinstance(each, Elsewhere):
        return each.url
    return (fitted(each, how, UNFITTED_LIMITS) if how else each).url()
