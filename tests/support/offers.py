"""Offers as browsers make them, for tests of the SDP code: Chromium's are recorded, without their rtcp-fb lines.

Firefox's has the shape of its own (fingerprint at the session's level, channel counts in rtpmap lines,
bundle-only sections).
"""

from __future__ import annotations


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
