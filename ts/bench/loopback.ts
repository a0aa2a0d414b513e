/**
 * Addresses that loads may be sent to: this machine's own, and no other.
 * @module
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { LongcatError } from "../errors.js";

/** An address that was checked: later connections go to `address`, whatever names say then. */
export interface LoopbackTarget {
  /** For people: the URL without a path. */
  readonly url: string;
  readonly address: string;
  readonly port: number;
  /** Path in front of `/v1`, without a slash at its end. */
  readonly prefix: string;
}

/**
 * Reads `http://127.0.0.1:8000`; a name counts if all its addresses are loopback ones.
 *
 * @throws LongcatError `OPTION_INVALID`: not an http URL, or another machine's.
 */
export async function loopbackTarget(text: string): Promise<LoopbackTarget> {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || url.protocol !== "http:" || url.username !== "" || url.search !== "" || url.hash !== "")
    throw refused(text, "give an address such as http://127.0.0.1:8000");
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const addresses = isIP(host) ? [host] : await addressesOf(host, text);
  if (addresses.length === 0 || !addresses.every(isLoopback))
    throw refused(text, "a load is sent to this machine only (127.0.0.1, ::1 or localhost)");
  return {
    url: url.origin,
    address: addresses[0] as string,
    port: url.port === "" ? 80 : Number(url.port),
    prefix: url.pathname.replace(/\/+$/, "").replace(/\/v1$/, ""),
  };
}

async function addressesOf(host: string, text: string): Promise<string[]> {
  try {
    // What listens on localhost listens on 127.0.0.1 more often than on ::1.
    return (await lookup(host, { all: true })).map(({ address }) => address).sort((a, b) => isIP(a) - isIP(b));
  } catch (error) {
    throw refused(text, `the name has no address: ${(error as Error).message}`);
  }
}

export function isLoopback(address: string): boolean {
  return /^127\.\d+\.\d+\.\d+$/.test(address) || address === "::1" || /^::ffff:127\./i.test(address);
}

function refused(text: string, why: string): LongcatError {
  return new LongcatError("OPTION_INVALID", `url: ${JSON.stringify(text.slice(0, 200))}: ${why}`);
}
