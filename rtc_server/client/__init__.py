"""Clients for programs: calls over WebRTC (:class:`VoiceClient`), translated rooms (:class:`RoomClient`), and the words
of some audio (:func:`transcribe`).

Shares with the server the media path and the wire formats, and no more: nothing of sessions, engines or HTTP handlers.
"""

from rtc_server.client.microphone import MICROPHONE_HZ, Microphone, silent_microphone
from rtc_server.client.rooms import RoomClient, create_room, list_rooms
from rtc_server.client.transcription import TranscriptionFailed, Word, transcribe
from rtc_server.client.voice import MicrophoneTrack, OfferRefused, Refused, VoiceClient
from rtc_server.protocols.rooms import MemberChange, Playing, RoomMessage, RoomState, Speaking

__all__ = [
    "MICROPHONE_HZ",
    "MemberChange",
    "Microphone",
    "MicrophoneTrack",
    "OfferRefused",
    "Playing",
    "Refused",
    "RoomClient",
    "RoomMessage",
    "RoomState",
    "Speaking",
    "TranscriptionFailed",
    "VoiceClient",
    "Word",
    "create_room",
    "list_rooms",
    "silent_microphone",
    "transcribe",
]
