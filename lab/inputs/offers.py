"""Offers as browsers and devices make them, for tests of the SDP code: Chromium's are recorded, without their rtcp-fb
lines.

Each of the others has what is its own: Firefox and OBS say at the session's level what others say in each section,
small devices leave out what they can do without, old clients say it as it was said before the standards were finished.
"""

from __future__ import annotations

import re


def _crlf(text: str) -> str:
    return text.lstrip().replace("\n", "\r\n")


CHROMIUM_AUDIO_VIDEO_AUDIO_DATA = _crlf("""
v=0
o=- 6754668025636016599 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2 3
a=extmap-allow-mixed
a=msid-semantic: WMS
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:Id/Z
a=ice-pwd:pY7e/82r0b4TPX3v9ujYEDwv
a=ice-options:trickle
a=fingerprint:sha-256 5D:3E:35:E6:8B:20:13:49:19:A1:87:3A:55:24:13:48:63:9F:67:39:31:03:09:15:F9:93:F8:B4:1F:57:30:D4
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:- 25e9998d-b5cf-4196-9045-07811a4ffbe1
a=rtcp-mux
a=rtcp-rsize
a=rtcp-xr:rcvr-rtt=all
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2286095681 cname:oyj6FwDMUS2zS5he
a=ssrc:2286095681 msid:- 25e9998d-b5cf-4196-9045-07811a4ffbe1
m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 107 108 109 114 115 116 117 39 40 45 46 98 99 100 101 118 119 120
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:Id/Z
a=ice-pwd:pY7e/82r0b4TPX3v9ujYEDwv
a=ice-options:trickle
a=fingerprint:sha-256 5D:3E:35:E6:8B:20:13:49:19:A1:87:3A:55:24:13:48:63:9F:67:39:31:03:09:15:F9:93:F8:B4:1F:57:30:D4
a=setup:actpass
a=mid:1
a=extmap:14 urn:ietf:params:rtp-hdrext:toffset
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:13 urn:3gpp:video-orientation
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/video-content-type
a=extmap:7 http://www.webrtc.org/experiments/rtp-hdrext/video-timing
a=extmap:8 http://www.webrtc.org/experiments/rtp-hdrext/color-space
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
a=sendrecv
a=msid:- 7303d8af-49c3-4cc9-adae-fc4fb6707ff1
a=rtcp-mux
a=rtcp-rsize
a=rtcp-xr:rcvr-rtt=all
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:102 H264/90000
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
a=rtpmap:104 H264/90000
a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f
a=rtpmap:107 rtx/90000
a=fmtp:107 apt=104
a=rtpmap:108 H264/90000
a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:109 rtx/90000
a=fmtp:109 apt=108
a=rtpmap:114 H264/90000
a=fmtp:114 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f
a=rtpmap:115 rtx/90000
a=fmtp:115 apt=114
a=rtpmap:116 H264/90000
a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f
a=rtpmap:117 rtx/90000
a=fmtp:117 apt=116
a=rtpmap:39 H264/90000
a=fmtp:39 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=4d001f
a=rtpmap:40 rtx/90000
a=fmtp:40 apt=39
a=rtpmap:45 AV1/90000
a=fmtp:45 level-idx=5;profile=0;tier=0
a=rtpmap:46 rtx/90000
a=fmtp:46 apt=45
a=rtpmap:98 VP9/90000
a=fmtp:98 profile-id=0
a=rtpmap:99 rtx/90000
a=fmtp:99 apt=98
a=rtpmap:100 VP9/90000
a=fmtp:100 profile-id=2
a=rtpmap:101 rtx/90000
a=fmtp:101 apt=100
a=rtpmap:118 red/90000
a=rtpmap:119 rtx/90000
a=fmtp:119 apt=118
a=rtpmap:120 ulpfec/90000
a=ssrc-group:FID 1630166933 1310490288
a=ssrc:1630166933 cname:oyj6FwDMUS2zS5he
a=ssrc:1630166933 msid:- 7303d8af-49c3-4cc9-adae-fc4fb6707ff1
a=ssrc:1310490288 cname:oyj6FwDMUS2zS5he
a=ssrc:1310490288 msid:- 7303d8af-49c3-4cc9-adae-fc4fb6707ff1
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:Id/Z
a=ice-pwd:pY7e/82r0b4TPX3v9ujYEDwv
a=ice-options:trickle
a=fingerprint:sha-256 5D:3E:35:E6:8B:20:13:49:19:A1:87:3A:55:24:13:48:63:9F:67:39:31:03:09:15:F9:93:F8:B4:1F:57:30:D4
a=setup:actpass
a=mid:2
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:- dc0dbb19-f8a9-434f-8ce2-c1f71fdf4a7f
a=rtcp-mux
a=rtcp-rsize
a=rtcp-xr:rcvr-rtt=all
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:493362429 cname:oyj6FwDMUS2zS5he
a=ssrc:493362429 msid:- dc0dbb19-f8a9-434f-8ce2-c1f71fdf4a7f
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:Id/Z
a=ice-pwd:pY7e/82r0b4TPX3v9ujYEDwv
a=ice-options:trickle
a=fingerprint:sha-256 5D:3E:35:E6:8B:20:13:49:19:A1:87:3A:55:24:13:48:63:9F:67:39:31:03:09:15:F9:93:F8:B4:1F:57:30:D4
a=setup:actpass
a=mid:3
a=sctp-port:5000
a=max-message-size:262144
""")

CHROMIUM_MAX_BUNDLE_VIDEO_FIRST = _crlf("""
v=0
o=- 9174064222582759126 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS
m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 107 108 109 114 115 116 117 39 40 45 46 98 99 100 101 118 119 120
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:yFzj
a=ice-pwd:10BBOK7yA/wRshiMq5BXtEi3
a=ice-options:trickle
a=fingerprint:sha-256 23:80:E3:A7:DA:CB:0C:FE:F9:5F:44:41:9B:A6:C3:B1:86:C6:90:2F:63:ED:8C:94:1A:B7:0E:B0:21:3F:C1:43
a=setup:actpass
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:toffset
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:3 urn:3gpp:video-orientation
a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/video-content-type
a=extmap:7 http://www.webrtc.org/experiments/rtp-hdrext/video-timing
a=extmap:8 http://www.webrtc.org/experiments/rtp-hdrext/color-space
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
a=sendrecv
a=msid:- 02803d18-7af3-483e-bde9-7c7714a02fce
a=rtcp-mux
a=rtcp-rsize
a=rtcp-xr:rcvr-rtt=all
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:102 H264/90000
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
a=rtpmap:103 rtx/90000
a=fmtp:103 apt=102
a=rtpmap:104 H264/90000
a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42001f
a=rtpmap:107 rtx/90000
a=fmtp:107 apt=104
a=rtpmap:108 H264/90000
a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:109 rtx/90000
a=fmtp:109 apt=108
a=rtpmap:114 H264/90000
a=fmtp:114 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f
a=rtpmap:115 rtx/90000
a=fmtp:115 apt=114
a=rtpmap:116 H264/90000
a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f
a=rtpmap:117 rtx/90000
a=fmtp:117 apt=116
a=rtpmap:39 H264/90000
a=fmtp:39 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=4d001f
a=rtpmap:40 rtx/90000
a=fmtp:40 apt=39
a=rtpmap:45 AV1/90000
a=fmtp:45 level-idx=5;profile=0;tier=0
a=rtpmap:46 rtx/90000
a=fmtp:46 apt=45
a=rtpmap:98 VP9/90000
a=fmtp:98 profile-id=0
a=rtpmap:99 rtx/90000
a=fmtp:99 apt=98
a=rtpmap:100 VP9/90000
a=fmtp:100 profile-id=2
a=rtpmap:101 rtx/90000
a=fmtp:101 apt=100
a=rtpmap:118 red/90000
a=rtpmap:119 rtx/90000
a=fmtp:119 apt=118
a=rtpmap:120 ulpfec/90000
a=ssrc-group:FID 3745056211 1076966535
a=ssrc:3745056211 cname:L8neWPFw4xlNdXzr
a=ssrc:3745056211 msid:- 02803d18-7af3-483e-bde9-7c7714a02fce
a=ssrc:1076966535 cname:L8neWPFw4xlNdXzr
a=ssrc:1076966535 msid:- 02803d18-7af3-483e-bde9-7c7714a02fce
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:yFzj
a=ice-pwd:10BBOK7yA/wRshiMq5BXtEi3
a=ice-options:trickle
a=fingerprint:sha-256 23:80:E3:A7:DA:CB:0C:FE:F9:5F:44:41:9B:A6:C3:B1:86:C6:90:2F:63:ED:8C:94:1A:B7:0E:B0:21:3F:C1:43
a=setup:actpass
a=mid:1
a=extmap:14 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=extmap:9 urn:ietf:params:rtp-hdrext:sdes:mid
a=sendrecv
a=msid:- 027ae3d6-9b40-4da7-bd21-8ade6a649c07
a=rtcp-mux
a=rtcp-rsize
a=rtcp-xr:rcvr-rtt=all
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:2437197164 cname:L8neWPFw4xlNdXzr
a=ssrc:2437197164 msid:- 027ae3d6-9b40-4da7-bd21-8ade6a649c07
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=ice-ufrag:yFzj
a=ice-pwd:10BBOK7yA/wRshiMq5BXtEi3
a=ice-options:trickle
a=fingerprint:sha-256 23:80:E3:A7:DA:CB:0C:FE:F9:5F:44:41:9B:A6:C3:B1:86:C6:90:2F:63:ED:8C:94:1A:B7:0E:B0:21:3F:C1:43
a=setup:actpass
a=mid:2
a=sctp-port:5000
a=max-message-size:262144
""")

FIREFOX_AUDIO_VIDEO_DATA = _crlf("""
v=0
o=mozilla...THIS_IS_SDPARTA-99.0 5327146273149437841 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
a=fingerprint:sha-256 5C:0A:AB:5E:1D:8C:3B:2E:66:0F:B2:1F:3A:5D:0D:9B:41:7C:6E:19:8A:43:C6:4E:D7:7B:90:17:F3:28:A5:2C
a=group:BUNDLE 0 1 2
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 0.0.0.0
a=sendrecv
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
a=ice-pwd:1bc7a13dbf4b1a0ce1a5b2f4f2cd5f1f
a=ice-ufrag:5a3a9ab1
a=mid:0
a=msid:{4d8a1b5e-6a0d-4c22-8f6e-25a64ac1c9a1} {0c0a1d6c-2f0e-4a7f-a0be-4a1c4b7d9a11}
a=rtcp-mux
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
a=ssrc:2531407862 cname:{a9f5f0f1-8f1c-4b8a-bb0d-9a6c1a7c2b10}
m=video 0 UDP/TLS/RTP/SAVPF 120 124 121 125
c=IN IP4 0.0.0.0
a=bundle-only
a=sendrecv
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:120 max-fs=12288;max-fr=60
a=fmtp:124 apt=120
a=fmtp:121 max-fs=12288;max-fr=60
a=fmtp:125 apt=121
a=ice-pwd:1bc7a13dbf4b1a0ce1a5b2f4f2cd5f1f
a=ice-ufrag:5a3a9ab1
a=mid:1
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:120 VP8/90000
a=rtpmap:124 rtx/90000
a=rtpmap:121 VP9/90000
a=rtpmap:125 rtx/90000
a=setup:actpass
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=bundle-only
a=sendrecv
a=ice-pwd:1bc7a13dbf4b1a0ce1a5b2f4f2cd5f1f
a=ice-ufrag:5a3a9ab1
a=mid:2
a=setup:actpass
a=sctp-port:5000
a=max-message-size:1073741823
""")

_DIGEST = "7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08"
_FINGERPRINT = f"a=fingerprint:sha-256 {_DIGEST}"
_TRANSPORT = f"""\
a=ice-ufrag:k9fW
a=ice-pwd:5wPZVgnzwrrdr4L8zvrO1vMb
{_FINGERPRINT}
a=setup:actpass"""

SAFARI_AUDIO_DATA = _crlf(f"""
v=0
o=- 8210442397132103045 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS 6a3d5bd7-17ae-4f37-bb9e-9d1a3f2f2b34
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{_TRANSPORT}
a=ice-options:trickle
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:6a3d5bd7-17ae-4f37-bb9e-9d1a3f2f2b34 1a5d3c54-7cc5-47f5-b3c9-7de09d4b6a8e
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:1361523424 cname:mtTkO2XQ7/Wm2Iqw
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{_TRANSPORT}
a=ice-options:trickle
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
""")

# Unified plan with more payload types than 96 to 127 hold; libwebrtc then goes on from 35.
LIBWEBRTC_ON_A_PHONE = _crlf(f"""
v=0
o=- 4962303333179871722 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=extmap-allow-mixed
a=msid-semantic: WMS
m=audio 9 UDP/TLS/RTP/SAVPF 35 36 9 0 8
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{_TRANSPORT}
a=ice-options:trickle renomination
a=mid:0
a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=sendrecv
a=msid:stream microphone
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:35 opus/48000/2
a=rtcp-fb:35 transport-cc
a=fmtp:35 minptime=10;useinbandfec=1;usedtx=1
a=rtpmap:36 red/48000/2
a=fmtp:36 35/35
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=ssrc:3370222345 cname:JpmQz3TSVZrgRO2n
a=ssrc:3370222345 msid:stream microphone
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
{_TRANSPORT}
a=ice-options:trickle renomination
a=mid:1
a=sctp-port:5000
a=max-message-size:262144
""")

PION_AUDIO_DATA = _crlf(f"""
v=0
o=- 3259706221157153463 1700000000 IN IP4 0.0.0.0
s=-
t=0 0
a=msid-semantic:WMS *
{_FINGERPRINT}
a=extmap-allow-mixed
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111 9 0 8
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:0
a=ice-ufrag:OYIcQgSzODXdSoLB
a=ice-pwd:uTxeBOBYIpOjtwzSPnMsgrhxvIGLlMLV
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtcp-fb:111 transport-cc
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=ssrc:1823804162 cname:pion
a=ssrc:1823804162 msid:pion audio
a=ssrc:1823804162 mslabel:pion
a=ssrc:1823804162 label:audio
a=msid:pion audio
a=sendrecv
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:1
a=sendrecv
a=sctp-port:5000
a=max-message-size:1073741823
a=ice-ufrag:OYIcQgSzODXdSoLB
a=ice-pwd:uTxeBOBYIpOjtwzSPnMsgrhxvIGLlMLV
""")

OBS_AUDIO_VIDEO = _crlf(f"""
v=0
o=rtc 2912304875 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=group:LS 0 1
a=msid-semantic:WMS *
{_TRANSPORT}
a=ice-options:ice2,trickle
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=sendonly
a=ssrc:1047592374 cname:Q4bWXfm7dLyeN9Xk
a=ssrc:1047592374 msid:5pUYmjGZ7H8cEbWJ 5pUYmjGZ7H8cEbWJ-audio
a=msid:5pUYmjGZ7H8cEbWJ 5pUYmjGZ7H8cEbWJ-audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:1
a=sendonly
a=ssrc:1047592375 cname:Q4bWXfm7dLyeN9Xk
a=ssrc:1047592375 msid:5pUYmjGZ7H8cEbWJ 5pUYmjGZ7H8cEbWJ-video
a=msid:5pUYmjGZ7H8cEbWJ 5pUYmjGZ7H8cEbWJ-video
a=rtcp-mux
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 goog-remb
a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1
""")

GSTREAMER_AUDIO = _crlf(f"""
v=0
o=- 5438291838571822951 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE audio0
m=audio 9 UDP/TLS/RTP/SAVPF 97
c=IN IP4 0.0.0.0
a=setup:actpass
a=ice-ufrag:vQpVCRI2yHK8fe1bJZ3SWfvNh8Cw1R5s
a=ice-pwd:Zd2F4Rr1PkFFzHn8YJd1xYc3x6JcXQ0u
a=rtcp-mux
a=rtcp-rsize
a=sendrecv
a=rtpmap:97 OPUS/48000/2
a=rtcp-fb:97 transport-cc
a=fmtp:97 sprop-maxcapturerate=48000;sprop-stereo=0
a=framerate:0
a=extmap:1 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=ssrc:3484078950 msid:user2513391462@host-e0dc webrtctransceiver0
a=ssrc:3484078950 cname:user2513391462@host-e0dc
a=mid:audio0
{_FINGERPRINT}
""")

FFMPEG_AUDIO = _crlf(f"""
v=0
o=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1
s=FFmpegPublishSession
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:74c868b2
a=ice-pwd:9efeffc409e4dd903e6202f23507fa4d
{_FINGERPRINT}
a=setup:passive
a=mid:0
a=sendonly
a=msid:FFmpeg audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=ssrc:1527767795 cname:FFmpeg
a=ssrc:1527767795 msid:FFmpeg audio
""")

# A small device: a static payload type without a map, the data channel without a port, no word of trickling.
ESP32_AUDIO_DATA = _crlf(f"""
v=0
o=- 1495799811084970 1495799811084970 IN IP4 0.0.0.0
s=-
t=0 0
a=msid-semantic: iot
a=group:BUNDLE audio datachannel
m=audio 9 UDP/TLS/RTP/SAVP 8
a=rtcp-fb:102 nack
a=fmtp:102 level-asymmetry-allowed=1
a=ssrc:4 cname:webrtc-pcma
a=sendrecv
a=mid:audio
c=IN IP4 0.0.0.0
a=rtcp-mux
{_TRANSPORT}
m=application 50712 UDP/DTLS/SCTP webrtc-datachannel
a=mid:datachannel
c=IN IP4 0.0.0.0
a=max-message-size:262144
{_TRANSPORT}
""")

# Telephony: no bundle, no mids, an address in each section, everything said that may be said.
TELEPHONE_GATEWAY = _crlf(f"""
v=0
o=gateway 1700000000 1700000001 IN IP4 192.0.2.1
s=Session
i=a call
c=IN IP4 192.0.2.1
b=AS:84
t=0 0
m=audio 30000 RTP/SAVPF 8 0 18 101
b=TIAS:64000
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000/1
a=fmtp:18 annexb=no
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:150
a=rtcp:30000 IN IP4 192.0.2.1
a=rtcp-mux
a=ssrc:12345
{_TRANSPORT}
m=video 0 RTP/AVP 31
""")

OLD_CHROMIUM_DATA_FIRST = _crlf(f"""
v=0
o=- 20518 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE data audio
a=msid-semantic: WMS
m=application 9 DTLS/SCTP 5000
c=IN IP4 0.0.0.0
{_TRANSPORT}
a=mid:data
a=sctpmap:5000 webrtc-datachannel 1024
m=audio 9 RTP/SAVPF 111 0
c=IN IP4 0.0.0.0
{_TRANSPORT}
a=mid:audio
a=rtcp-mux
a=rtpmap:111 opus/48000
a=rtpmap:0 PCMU/8000
a=maxptime:60
""")

# RFC 9143 to the letter: sections that are bundle-only leave out all that the bundle says.
BUNDLE_ONLY_BEHIND_VIDEO = _crlf(f"""
v=0
o=- 1 1 IN IP4 0.0.0.0
s=-
t=0 0
a=group:BUNDLE v a d
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:v
a=rtpmap:96 VP8/90000
a=rtcp-mux
a=rtcp-mux-only
{_TRANSPORT}
m=audio 0 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:a
a=bundle-only
a=rtpmap:111 opus/48000/2
m=application 0 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:d
a=bundle-only
a=sctp-port:5000
""")

RECORDED = {
    "chromium": CHROMIUM_AUDIO_VIDEO_AUDIO_DATA,
    "chromium, one transport": CHROMIUM_MAX_BUNDLE_VIDEO_FIRST,
    "firefox": FIREFOX_AUDIO_VIDEO_DATA,
    "safari": SAFARI_AUDIO_DATA,
    "libwebrtc on a phone": LIBWEBRTC_ON_A_PHONE,
    "pion": PION_AUDIO_DATA,
    "obs": OBS_AUDIO_VIDEO,
    "gstreamer": GSTREAMER_AUDIO,
    "ffmpeg": FFMPEG_AUDIO,
    "esp32": ESP32_AUDIO_DATA,
    "telephone gateway": TELEPHONE_GATEWAY,
    "old chromium, data first": OLD_CHROMIUM_DATA_FIRST,
    "bundle-only behind video": BUNDLE_ONLY_BEHIND_VIDEO,
}
"""By whose they are like."""

GARBAGE = (
    *("a=ssrc:12345", "a=ssrc:", "a=ssrc", "a=ssrc:x cname", "a=msid-semantic", "a=msid-semantic:", "a=msid"),
    *("a=ssrc-group:FID 1 x", "a=rtcp", "a=rtcp:", "a=rtcp:x IN IP6 ::1", "a=extmap:", "a=extmap:x y z", "a=rtcp-fb"),
    *("a=rtcp-fb:", "a=fmtp", "a=fmtp:x", "a=fmtp:x y", "a=fmtp:18 annexb=no", "a=fmtp:111 stereo=true", "a=rtpmap"),
    *("a=rtpmap:", "a=rtpmap:999 x/y", "a=candidate", "a=candidate:", "a=candidate:1 1 udp", "a=ice-options"),
    *("a=crypto:1 x", "a=simulcast:send 1;2", "a=rid:1 send", "a=ptime:x", "a=maxptime:", "a=framerate:0", "a="),
    *("a=:", "a=:x", "a=\u00e9", "a=\0", "a=sctpmap", "a=sctpmap:", "a=sctp-port", "a=max-message-size", "a=mid"),
    *("a=group", "a=group:", "a=identity:x", "a=tls-id:1", "a=end-of-candidates:x", "a=RTCP-MUX", "a=ice-ufrag"),
    *("a=ice-pwd:", "a=fingerprint", "a=fingerprint:sha-256", "a=fingerprint:sha-1 AB", "a=setup:", "a=setup:later"),
    *("c=IN IP6 2001:db8::1", "c=", "b=AS:x", "k=prompt", "i=", "z=0", "a=\u2028m=video 9 RTP/AVP 96", "a=x\x85m=x"),
)
"""Lines that change nothing, wherever below the first line they stand."""


def bare(sdp: str, *names: str) -> str:
    """Without these attributes, wherever they stand."""
    return re.sub(rf"a=(?:{'|'.join(map(re.escape, names))})(?:[: ][^\r\n]*)?\r\n", "", sdp)


_HASHES = (("sha-256", 32), ("sha-384", 48), ("sha-512", 64))


def local_answer(with_channel: bool) -> str:
    """What a WebRTC stack of this server's makes of an offer: aiortc's own answer, in its shape."""
    transport = (
        "a=candidate:1 1 udp 2130706431 192.0.2.9 40000 typ host\na=end-of-candidates\na=ice-ufrag:host\n"
        "a=ice-pwd:hosthosthosthosthosthost\n"
        + "".join(f"a=fingerprint:{name} {':'.join(['AB'] * size)}\n" for name, size in _HASHES)
        + "a=setup:active\n"
    )
    audio = (
        "m=audio 40000 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 192.0.2.9\na=sendrecv\na=mid:audio\na=msid:voice track\n"
        "a=rtcp:9 IN IP4 0.0.0.0\na=rtcp-mux\na=ssrc:77 cname:server\na=rtpmap:96 opus/48000/2\n"
    )
    channel = (
        "m=application 40000 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 192.0.2.9\na=mid:channel\na=sctp-port:5000\n"
        "a=max-message-size:65536\n"
    )
    head = "v=0\no=- 9 9 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE audio channel\na=msid-semantic:WMS *\n"
    return _crlf(head + audio + transport + (channel + transport if with_channel else ""))
