// Owns the format of server-sent events (HTML, section 9.2.6): pieces of text in, events out. No IO.

export class EventStream {
  #rest = '';

  /** @param {string} piece @returns {{event: string, id: string, data: string}[]} those that are complete by now */
  push(piece) {
    const blocks = (this.#rest + piece).split(/\r?\n\r?\n/);
    this.#rest = blocks.pop();
    return blocks.map(read).filter(({ data }) => data !== '');
  }
}

function read(block) {
  const fields = block.split(/\r?\n/).map((line) => /^(event|id|data): ?(.*)$/.exec(line)).filter(Boolean);
  const all = (name) => fields.filter((field) => field[1] === name).map((field) => field[2]);
  return { event: all('event').at(-1) ?? 'message', id: all('id').at(-1) ?? '', data: all('data').join('\n') };
}
