// Owns how a microphone is opened, and why it is not. Which ones there are is devices.js; which one is open, capture.js.

import { Failure } from '../connection/errors.js';

const FAILURES = {
  NotAllowedError: 'microphone_denied',
  SecurityError: 'microphone_denied',
  NotFoundError: 'microphone_missing',
  NotReadableError: 'microphone_busy',
  AbortError: 'microphone_busy',
};

/** Throws a Failure where there cannot be a conversation at all. */
export function checkBrowser() {
  if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) {
    throw new Failure(window.isSecureContext ? 'no_webrtc' : 'insecure_origin');
  }
  if (typeof RTCPeerConnection !== 'function') throw new Failure('no_webrtc');
}

/**
 * Opens a microphone; falls back to the system's when `deviceId` is not there any more.
 * @param {{deviceId?: string, raw?: boolean}} wish  `raw` switches the browser's processing off
 * @returns {Promise<{stream: MediaStream, deviceId: string}>} `deviceId` is '' after a fallback
 */
export async function openMicrophone({ deviceId = '', raw = false } = {}) {
  const audio = {
    channelCount: { ideal: 1 },
    echoCancellation: { ideal: !raw },
    noiseSuppression: { ideal: !raw },
    autoGainControl: { ideal: !raw },
  };
  if (deviceId) audio.deviceId = { exact: deviceId };
  try {
    return { stream: await navigator.mediaDevices.getUserMedia({ audio }), deviceId };
  } catch (cause) {
    if (deviceId && (cause.name === 'OverconstrainedError' || cause.name === 'NotFoundError')) {
      return openMicrophone({ raw });
    }
    if (cause.name === 'OverconstrainedError') return openPlain();
    throw new Failure(FAILURES[cause.name] ?? 'microphone_failed', { cause });
  }
}

/** Some take a wish for a demand: then without any, which is with the browser's own processing. */
async function openPlain() {
  try {
    return { stream: await navigator.mediaDevices.getUserMedia({ audio: true }), deviceId: '' };
  } catch (cause) {
    throw new Failure(FAILURES[cause.name] ?? 'microphone_failed', { cause });
  }
}
