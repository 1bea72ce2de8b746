"""GStreamer's webrtcbin talks to the echo by WHIP, both ways: sends a tone, and writes what comes back to a file.

For the system's Python, which has GStreamer's bindings. Usage: gst_echo.py http://127.0.0.1:8080/whip/echo 440
heard.pcm (16 bit, mono, 24 kHz). Without arguments it only looks whether there is all that it needs.
"""

import json
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402 - versions first, as PyGObject wants it

ELEMENTS = (
    *("webrtcbin", "nicesrc", "dtlssrtpenc", "srtpenc", "rtpopuspay", "rtpopusdepay"),
    *("audiotestsrc", "audioconvert", "audioresample", "opusenc", "opusdec"),
)
WANTED_BYTES = 3 * 24_000 * 2
DEADLINE_S = 30


class Call:
    def __init__(self, endpoint, hz, path):
        self.endpoint, self.path, self.resource, self.status = endpoint, Path(path), None, None
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch(
            f"webrtcbin name=peer bundle-policy=max-bundle audiotestsrc is-live=true freq={hz} volume=0.25 ! "
            "audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=1 ! opusenc ! rtpopuspay pt=97 ! "
            "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000 ! peer."
        )
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-negotiation-needed", self.offer)
        self.peer.connect("notify::ice-gathering-state", self.gathered)
        self.peer.connect("pad-added", self.heard)

    def offer(self, _):
        self.peer.emit("create-offer", None, Gst.Promise.new_with_change_func(self.offered, None, None))

    def offered(self, promise, *_):
        reply = promise.get_reply()  # owns the offer: it has to outlive it
        self.peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def gathered(self, *_):
        if self.peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            GLib.idle_add(self.publish)

    def publish(self):
        sdp = self.peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(self.endpoint, sdp.encode(), {"Content-Type": "application/sdp"})
        with urllib.request.urlopen(request) as response:
            self.status = response.status
            self.resource = urllib.parse.urljoin(self.endpoint, response.headers["Location"])
            _, answer = GstSdp.SDPMessage.new_from_text(response.read().decode())
        described = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, answer)
        self.peer.emit("set-remote-description", described, Gst.Promise.new())

    def heard(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        tape = Gst.parse_bin_from_description(
            "rtpopusdepay ! opusdec ! audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=24000,channels=1 ! "
            f'filesink location="{self.path}" buffer-mode=unbuffered async=false sync=false',
            True,
        )
        self.pipeline.add(tape)
        tape.sync_state_with_parent()
        pad.link(tape.get_static_pad("sink"))

    def enough(self, deadline):
        heard = self.path.stat().st_size if self.path.exists() else 0
        if heard >= WANTED_BYTES or time.monotonic() > deadline:
            self.loop.quit()
        return True

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        GLib.timeout_add(50, self.enough, time.monotonic() + DEADLINE_S)
        self.loop.run()
        state = self.peer.get_property("connection-state").value_nick
        with urllib.request.urlopen(urllib.request.Request(self.resource, method="DELETE")) as response:
            deleted = response.status
        self.pipeline.set_state(Gst.State.NULL)
        return {"status": self.status, "deleted": deleted, "state": state}


Gst.init(None)
missing = [name for name in ELEMENTS if Gst.ElementFactory.find(name) is None]
if missing:
    sys.exit(f"GStreamer lacks {', '.join(missing)}")
if len(sys.argv) == 1:
    sys.stdout.write("ready\n")
else:
    sys.stdout.write(json.dumps(Call(*sys.argv[1:]).run()))
