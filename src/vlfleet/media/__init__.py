"""Media as they arrive: found in a request, named by their content, judged and measured by their header.

Nothing here decodes a pixel but `fit`, which is asked for by name.
"""

from vlfleet.media.data_url import decode_data_url
from vlfleet.media.examine import Medium, examine_base64, examine_bytes, examine_data_url
from vlfleet.media.header import GATEWAY_LIMITS, Header, MediaError, MediaLimits, modality_of, read_header
from vlfleet.media.identity import Namer, digest_of_base64, digest_of_bytes, digest_of_frames, pixel_settings
from vlfleet.media.measure import Vision
from vlfleet.media.references import PartError, Reference, references
from vlfleet.media.splice import Edit, Spliced, splice
from vlfleet.media.store import Store, Stored
from vlfleet.media.video import Base64File, VideoHeader, read_video_header

__all__ = [
    "GATEWAY_LIMITS",
    "Base64File",
    "Edit",
    "Header",
    "MediaError",
    "MediaLimits",
    "Medium",
    "Namer",
    "PartError",
    "Reference",
    "Spliced",
    "Store",
    "Stored",
    "VideoHeader",
    "Vision",
    "decode_data_url",
    "digest_of_base64",
    "digest_of_bytes",
    "digest_of_frames",
    "examine_base64",
    "examine_bytes",
    "examine_data_url",
    "modality_of",
    "pixel_settings",
    "read_header",
    "read_video_header",
    "references",
    "splice",
]
