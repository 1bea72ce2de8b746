// Owns the address of a room: `rooms.html#room=ID`, which is the invitation to it. Pure.

/** The room that an address's fragment names, '' for none. */
export const roomOf = (hash) => new URLSearchParams(hash.slice(1)).get('room') ?? '';

export const fragmentOf = (room) => `#${new URLSearchParams({ room })}`;

/** What others open: this page, without what is its user's own. @param {string} page  its address */
export function invitation(page, room) {
  const address = new URL(page);
  address.search = '';
  address.hash = fragmentOf(room);
  return address.href;
}
