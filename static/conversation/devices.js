// Owns the lists of microphones and loudspeakers, and what a device keeps of its user's choices: which of them was chosen
// last, and the like. Opens none. Knows no page.

// Names that Chromium gives to "whatever the system uses"; the page has its own entry for that.
const PSEUDO_DEVICES = new Set(['', 'default', 'communications']);
const KINDS = {
  microphone: { kind: 'audioinput', word: 'Microphone' },
  speaker: { kind: 'audiooutput', word: 'Loudspeaker' },
};

const storageKey = (what) => `voice.${what}`;

/** What was chosen last, '' for the default; of devices their id. Storage may be forbidden. @param {string} what */
export function remembered(what) {
  try {
    return localStorage.getItem(storageKey(what)) ?? '';
  } catch {
    return '';
  }
}

export function remember(what, value) {
  try {
    if (value) localStorage.setItem(storageKey(what), value);
    else localStorage.removeItem(storageKey(what));
  } catch {
    // It works for this visit, and is forgotten after it.
  }
}

/** @returns {Promise<{id: string, label: string}[]>} empty before the first permission: ids are hidden until then */
export async function list(what) {
  if (!navigator.mediaDevices?.enumerateDevices) return [];
  const { kind, word } = KINDS[what];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === kind && !PSEUDO_DEVICES.has(device.deviceId))
    .map((device, index) => ({ id: device.deviceId, label: device.label || `${word} ${index + 1}` }));
}

/** Whether a microphone that is in use is still connected. Where the browser does not tell, it is. */
export async function isThere(deviceId) {
  const devices = await navigator.mediaDevices.enumerateDevices().catch(() => []);
  const inputs = devices.filter((device) => device.kind === 'audioinput' && device.deviceId);
  return inputs.length === 0 || inputs.some((device) => device.deviceId === deviceId);
}
