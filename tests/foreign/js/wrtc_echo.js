// libwebrtc (as in the mobile SDKs) talks to the echo by /api/offer: sends a tone, and prints what comes back as JSON.
// Usage: node wrtc_echo.js http://127.0.0.1:8080 440

import wrtc from '@roamhq/wrtc';

const { RTCPeerConnection, nonstandard: { RTCAudioSink, RTCAudioSource } } = wrtc;

const [url, hz] = [process.argv[2], Number(process.argv[3])];
const RATE_HZ = 48_000;
const BLOCK = RATE_HZ / 100;
const WANTED_S = 3;

const pc = new RTCPeerConnection({ iceServers: [] });
const source = new RTCAudioSource();
const microphone = source.createTrack();
const events = [];
const heard = [];
let sent = 0;
let heardRate_hz = 0;

function speak(started_ms) {
  while (sent < ((performance.now() - started_ms) / 1000) * RATE_HZ) {
    const samples = Int16Array.from({ length: BLOCK }, (_, i) => 8192 * Math.sin((2 * Math.PI * hz * (sent + i)) / RATE_HZ));
    source.onData({ samples, sampleRate: RATE_HZ, bitsPerSample: 16, channelCount: 1, numberOfFrames: BLOCK });
    sent += BLOCK;
  }
}

const done = new Promise((resolve) => {
  pc.ontrack = ({ track }) => {
    const sink = new RTCAudioSink(track);
    sink.ondata = ({ samples, sampleRate, channelCount }) => {
      heardRate_hz = sampleRate;
      const mono = channelCount === 1 ? samples : samples.filter((_, i) => i % channelCount === 0);
      if (heard.length || mono.some((sample) => Math.abs(sample) > 1000)) heard.push(...mono);
      if (heard.length >= WANTED_S * sampleRate) {
        sink.stop();
        resolve();
      }
    };
  };
});

pc.addTrack(microphone);
const channel = pc.createDataChannel('text');
channel.onmessage = ({ data }) => events.push(JSON.parse(data));

await pc.setLocalDescription(await pc.createOffer());
const response = await fetch(`${url}/api/offer`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ sdp: pc.localDescription.sdp, type: 'offer' }),
});
const answer = await response.json();
const session = new URL(response.headers.get('Location'), response.url).href;

// Candidates that are found after the offer has gone.
pc.onicecandidate = ({ candidate }) => fetch(session, {
  method: 'PATCH',
  headers: { 'Content-Type': 'application/json', 'If-Match': response.headers.get('ETag') },
  body: JSON.stringify(candidate ? { candidates: [candidate] } : { complete: true }),
});
await pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp });

const timer = setInterval(speak, 10, performance.now());
await done;
clearInterval(timer);

const pcm = heard.slice(heardRate_hz); // the first second is for the jitter buffer to settle
// The median period: a timer of this script that is late now and then leaves gaps in what it says, with crossings of
// their own.
const crossings = [];
for (let i = 1; i < pcm.length; i += 1) if (pcm[i - 1] < 0 && pcm[i] >= 0) crossings.push(i);
const periods = crossings.slice(1).map((at, i) => at - crossings[i]).sort((a, b) => a - b);
const rms = Math.sqrt(pcm.reduce((sum, sample) => sum + sample * sample, 0) / pcm.length) / 32768;
const deleted = await fetch(session, { method: 'DELETE' });
console.log(JSON.stringify({
  connected: events.find((event) => event.type === 'connected') ?? null,
  hz: heardRate_hz / periods[periods.length >> 1],
  dbfs: 20 * Math.log10(rms),
  deleted: deleted.status,
}));
microphone.stop();
pc.close();
process.exit(0);
