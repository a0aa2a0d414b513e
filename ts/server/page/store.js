/**
 * What outlives a reload: the conversation and the settings in this browser, the key in this tab.
 *
 * A message is `{ role, content, reasoning?, pieces?, note?, fault? }`; a piece `{ kind, text, tokens }`, kind "text" or "reasoning", holds
 * what its tokens wrote. A token is a string of one letter a layer: how many FFN experts it used, in base 36.
 * @module
 */

const CHAT = "longcat.chat";
const SETTINGS = "longcat.settings";
const KEY = "longcat.key";

function read(storage, name, otherwise) {
  try {
    return JSON.parse(storage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** @returns {object[]} The messages, as they were left. */
export function loadMessages() {
  const messages = read(localStorage, CHAT, []);
  return Array.isArray(messages) ? messages.filter((message) => typeof message?.content === "string") : [];
}

/** Keeps the messages; where there is no room for all, the older ones lose their colours. */
export function saveMessages(messages) {
  for (const keep of [messages.length, 2, 0]) {
    const bare = messages.map((message, i) => (i < messages.length - keep ? { ...message, pieces: undefined } : message));
    try {
      localStorage.setItem(CHAT, JSON.stringify(bare));
      return;
    } catch {
      // Full: try with less.
    }
  }
}

export const loadSettings = () => read(localStorage, SETTINGS, {});

export function saveSettings(settings) {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(settings));
  } catch {
    // Full: settings last as long as the page then.
  }
}

export const loadKey = () => read(sessionStorage, KEY, "");
export const saveKey = (key) => sessionStorage.setItem(KEY, JSON.stringify(key));
