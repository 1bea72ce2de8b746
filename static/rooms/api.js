// Owns the HTTP part of docs/rooms.md. Every failure leaves here as a Failure. Joining, leaving and events are a member's,
// who is known by a token.

import { request } from '../connection/api.js';

const roomPath = (room) => `api/rooms/${encodeURIComponent(room)}`;
// What these codes mean of a room; of a conversation they mean something else.
const OF_ROOMS = { server_full: 'room_full' };

/**
 * @typedef {{code: string, name: string, hears: boolean, speaks: boolean}} Language
 * @typedef {{room: string, member: string, token: string}} Member
 */

async function ask(path, { member, json, headers, ...options } = {}) {
  const all = {
    ...headers,
    ...(member && { 'Room-Token': member.token }),
    ...(json && { 'Content-Type': 'application/json' }),
  };
  try {
    const { body } = await request(path, { headers: all, ...(json && { body: JSON.stringify(json) }), ...options });
    return body;
  } catch (failure) {
    failure.code = OF_ROOMS[failure.code] ?? failure.code;
    throw failure;
  }
}

/** @returns {Promise<{rooms: object[], languages: Language[], pairs: string[][], notice: object|string|null}>} */
export async function fetchRooms(signal) {
  try {
    const body = await ask('api/rooms', { signal });
    return { rooms: [], languages: [], pairs: [], notice: null, ...body };
  } catch (failure) {
    if (failure.code === 'not_found') failure.code = 'no_rooms';
    throw failure;
  }
}

/** @param {{name?: string, private: boolean}} wish @returns {Promise<{id: string, name: string}>} */
export const makeRoom = (wish) => ask('api/rooms', { method: 'POST', json: wish });

/** @returns {Promise<{id: string, name: string, members: object[]}>} */
export const fetchRoom = (room, signal) => ask(roomPath(room), { signal });

/** @param {string} page  the address of this page, without query and fragment @returns {Promise<string>} SVG */
export const fetchQrCode = (room, page) => ask(`${roomPath(room)}/qr?${new URLSearchParams({ page })}`, {
  read: (response) => response.text(),
});

/** @param {{name: string, language: string}} who @returns {Promise<Member>} */
export async function join(room, who) {
  const { member, token } = await ask(`${roomPath(room)}/members`, { method: 'POST', json: who });
  return { room, member, token };
}

export const say = (member, text) => ask(`${roomPath(member.room)}/messages`, { member, method: 'POST', json: { text } });

/** @param {{name?: string, language?: string}} what */
export const change = (member, what) => ask(`${roomPath(member.room)}/members/me`, { member, method: 'PATCH', json: what });

/** It may outlive the page. */
export const leave = (member) => ask(`${roomPath(member.room)}/members/me`, { member, method: 'DELETE', keepalive: true });

/** @param {string} last  the id of the last event that was seen, or '' @returns {Promise<ReadableStream>} */
export const openEvents = (member, last, signal) => ask(`${roomPath(member.room)}/events`, {
  member,
  signal,
  headers: { Accept: 'text/event-stream', ...(last && { 'Last-Event-ID': last }) },
  read: async (response) => response.body,
});

/** @param {string} audio  of a message @returns {Promise<Blob>} */
export const fetchAudio = (member, audio, signal) => ask(`api/${audio}`, { member, signal, read: (response) => response.blob() });
