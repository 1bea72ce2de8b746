// Owns what ICE finds on this side: our candidates as they come, and what the relays said. It sends nothing.

import { Failure } from './errors.js';

// Answers of a STUN or TURN server (RFC 8489, section 14.8). 701, outside of it, is the browser's own:
// nothing answered at all.
const isAnswer = (code) => code >= 300 && code <= 699;

export function hasRelay(iceServers) {
  return iceServers.flatMap(({ urls }) => urls).some((url) => /^turns?:/.test(url));
}

/** What to tell when only relays are allowed and none gave us an address. Pure. @param {number[]} errorCodes */
export function relayFailure(errorCodes) {
  const answer = errorCodes.find(isAnswer);
  return answer ? new Failure('relay_refused', { detail: String(answer) }) : new Failure('relay_unreachable');
}

export class Gathering {
  #errorCodes = [];
  #found = 0;

  /**
   * @param {RTCPeerConnection} pc  before its local description is set
   * @param {{candidate?: (c: RTCIceCandidate) => void, complete?: () => void}} on
   */
  constructor(pc, { candidate = () => {}, complete = () => {} } = {}) {
    pc.addEventListener('icecandidateerror', ({ errorCode }) => this.#errorCodes.push(errorCode));
    pc.addEventListener('icecandidate', (event) => {
      // An empty candidate, and then null, say that there are no more (the empty one: of this generation).
      if (!event.candidate?.candidate) return;
      this.#found += 1;
      candidate(event.candidate);
    });
    pc.addEventListener('icegatheringstatechange', () => {
      if (pc.iceGatheringState === 'complete') complete();
    });
  }

  get found() {
    return this.#found;
  }

  get errorCodes() {
    return [...this.#errorCodes];
  }
}
