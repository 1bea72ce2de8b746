"""A client for programs: calls over WebRTC (:class:`VoiceClient`), and the words of some audio (:func:`transcribe`).

Shares with the server the media path and the wire formats, and no more: nothing of sessions, engines or HTTP handlers.
"""

from rtc_server.client.microphone import MICROPHONE_HZ, Microphone, silent_microphone
from rtc_server.client.transcription import TranscriptionFailed, Word, transcribe
from rtc_server.client.voice import MicrophoneTrack, OfferRefused, VoiceClient

__all__ = [
    "MICROPHONE_HZ",
    "Microphone",
    "MicrophoneTrack",
    "OfferRefused",
    "TranscriptionFailed",
    "VoiceClient",
    "Word",
    "silent_microphone",
    "transcribe",
]
