// Owns the microphone: which ones there are, which one is wanted, how it is opened, why it is not. Knows no page.

import { Failure } from './errors.js';

const STORAGE_KEY = 'voice.microphone';
// Names that Chromium gives to "whatever the system uses"; the page has its own entry for that.
const PSEUDO_DEVICES = new Set(['', 'default', 'communications']);

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

/** The id of the microphone that was chosen last, '' for the system's. Storage may be forbidden. */
export function rememberedMicrophone() {
  try {
    return localStorage.getItem(STORAGE_KEY) ?? '';
  } catch {
    return '';
  }
}

export function rememberMicrophone(deviceId) {
  try {
    if (deviceId) localStorage.setItem(STORAGE_KEY, deviceId);
    else localStorage.removeItem(STORAGE_KEY);
  } catch {
    // It works for this visit, and is forgotten after it.
  }
}

/** @returns {Promise<{id: string, label: string}[]>} empty before the first permission: ids are hidden until then */
export async function listMicrophones() {
  if (!navigator.mediaDevices?.enumerateDevices) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === 'audioinput' && !PSEUDO_DEVICES.has(device.deviceId))
    .map((device, index) => ({ id: device.deviceId, label: device.label || `Microphone ${index + 1}` }));
}

/**
 * Opens a microphone; falls back to the system's when `deviceId` is not there any more.
 * @param {{deviceId?: string, raw?: boolean}} wish  `raw` switches the browser's processing off
 * @returns {Promise<{stream: MediaStream, deviceId: string}>} `deviceId` is '' after a fallback
 */
export async function openMicrophone({ deviceId = '', raw = false } = {}) {
  const audio = {
    channelCount: { ideal: 1 },
    echoCancellation: !raw,
    noiseSuppression: !raw,
    autoGainControl: !raw,
  };
  if (deviceId) audio.deviceId = { exact: deviceId };
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    return { stream, deviceId };
  } catch (cause) {
    if (deviceId && (cause.name === 'OverconstrainedError' || cause.name === 'NotFoundError')) {
      return openMicrophone({ raw });
    }
    throw new Failure(FAILURES[cause.name] ?? 'microphone_failed', { cause });
  }
}
