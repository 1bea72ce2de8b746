// Owns switches that are remembered from visit to visit, and what they are for besides: whether screen readers read new
// words aloud, which go into an open microphone, and over the voice that says the same.

/**
 * @param {HTMLInputElement} box  on, unless it was switched off before
 * @param {string} key  of the storage
 * @param {(on: boolean) => void} apply  called now, and whenever it is switched
 */
export function rememberedSwitch(box, key, apply) {
  try {
    box.checked = localStorage.getItem(key) !== 'no';
  } catch {
    // Storage may be forbidden: as it is by default.
  }
  apply(box.checked);
  box.addEventListener('change', () => {
    apply(box.checked);
    try {
      localStorage.setItem(key, box.checked ? 'yes' : 'no');
    } catch {
      // It holds for this visit.
    }
  });
}

/** @param {HTMLInputElement} box @param {HTMLElement[]} logs  live regions that words come into */
export function readWords(box, logs) {
  rememberedSwitch(box, 'voice.read-words', (on) => {
    for (const log of logs) log.setAttribute('aria-live', on ? 'polite' : 'off');
  });
}
