// Owns the switch that keeps screen readers from reading new words aloud: what they say goes into an open microphone,
// and over the voice that says the same. It is remembered.

const STORAGE_KEY = 'voice.read-words';

/** @param {HTMLInputElement} box @param {HTMLElement[]} logs  live regions that words come into */
export function readWords(box, logs) {
  const apply = () => {
    for (const log of logs) log.setAttribute('aria-live', box.checked ? 'polite' : 'off');
  };
  try {
    box.checked = localStorage.getItem(STORAGE_KEY) !== 'no';
  } catch {
    // Storage may be forbidden: as it is by default.
  }
  apply();
  box.addEventListener('change', () => {
    apply();
    try {
      localStorage.setItem(STORAGE_KEY, box.checked ? 'yes' : 'no');
    } catch {
      // It holds for this visit.
    }
  });
}
