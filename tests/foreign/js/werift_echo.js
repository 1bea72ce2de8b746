// werift (a WebRTC stack in TypeScript) talks to the echo by WHIP, both ways. It has no codec: it sends Opus packets
// that it is given, 20 ms each, over and over, and prints those that come back as JSON.
// Usage: node werift_echo.js http://127.0.0.1:8080/whip/echo < {"packets": [base64, ...], "wanted": 100}

import { text } from 'node:stream/consumers';
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters, RtpHeader, RtpPacket } from 'werift';

const endpoint = process.argv[2];
const { packets, wanted } = JSON.parse(await text(process.stdin));
const payloads = packets.map((each) => Buffer.from(each, 'base64'));

const opus = new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: 48_000, channels: 2 });
const pc = new RTCPeerConnection({ codecs: { audio: [opus] }, iceServers: [] });
const track = new MediaStreamTrack({ kind: 'audio' });
const transceiver = pc.addTransceiver(track, { direction: 'sendrecv' });

const heard = [];
const done = new Promise((resolve) => {
  transceiver.onTrack.subscribe((remote) => {
    remote.onReceiveRtp.subscribe((rtp) => {
      heard.push({ sequence: rtp.header.sequenceNumber, timestamp: rtp.header.timestamp, payload: rtp.payload.toString('base64') });
      if (heard.length === wanted) resolve();
    });
  });
});

await pc.setLocalDescription(await pc.createOffer());
const response = await fetch(endpoint, {
  method: 'POST',
  headers: { 'Content-Type': 'application/sdp' },
  body: pc.localDescription.sdp,
});
const resource = new URL(response.headers.get('Location'), endpoint);
await pc.setRemoteDescription({ type: 'answer', sdp: await response.text() });

const started_ms = performance.now();
let sent = 0;
const timer = setInterval(() => {
  if (pc.connectionState !== 'connected') return;
  for (; sent < (performance.now() - started_ms) / 20; sent += 1) {
    const header = new RtpHeader({ sequenceNumber: sent % 65536, timestamp: (sent * 960) >>> 0, payloadType: 96, ssrc: 1, marker: sent === 0 });
    track.writeRtp(new RtpPacket(header, payloads[sent % payloads.length]));
  }
}, 10);
await done;
clearInterval(timer);
const deleted = await fetch(resource, { method: 'DELETE' });
console.log(JSON.stringify({ status: response.status, deleted: deleted.status, heard }));
await pc.close();
process.exit(0);
