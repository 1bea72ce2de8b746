// Owns the picture of the invitation: a QR code of the room's address, fetched when it is first looked at.

const SHOW = 'QR code';
const HIDE = 'Hide QR code';

export class QrCode {
  #parts;
  #fetch;
  #failed;
  #room = '';

  /**
   * @param {{button: HTMLButtonElement, box: HTMLElement, image: HTMLImageElement}} parts
   * @param {{fetch: (room: string) => Promise<string>, failed: (error: unknown, again: () => void) => void}} on
   *   `fetch`: an SVG
   */
  constructor(parts, { fetch, failed }) {
    this.#parts = parts;
    this.#fetch = fetch;
    this.#failed = failed;
    parts.button.addEventListener('click', () => (parts.box.hidden ? this.#show() : this.#hide()));
  }

  /** @param {string} room  whose code it is from now on; it is not shown */
  of(room) {
    this.#room = room;
    this.#parts.image.removeAttribute('src');
    this.#hide();
  }

  async #show() {
    const { box, button, image } = this.#parts;
    const room = this.#room;
    try {
      if (!image.src) {
        const svg = await this.#fetch(room);
        if (room !== this.#room) return;
        image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
      }
    } catch (error) {
      if (room === this.#room) this.#failed(error, () => this.#show());
      return;
    }
    box.hidden = false;
    button.textContent = HIDE;
    button.setAttribute('aria-expanded', 'true');
  }

  #hide() {
    const { box, button } = this.#parts;
    box.hidden = true;
    button.textContent = SHOW;
    button.setAttribute('aria-expanded', 'false');
  }
}
