"""Pictures as they arrive: taken out of a request and judged by their header, before anyone decodes a pixel."""

from vlfleet.media.data_url import decode_data_url
from vlfleet.media.header import Header, MediaError, MediaLimits, read_header

__all__ = ["Header", "MediaError", "MediaLimits", "decode_data_url", "read_header"]
