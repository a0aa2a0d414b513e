/**
 * Who may ask: the key, the host names that this server answers to, and the origins of web pages.
 * @module
 */

import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";
import { HttpError } from "./errors.js";
import type { ResolvedServerOptions } from "./options.js";

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);
const WILDCARD = new Set(["0.0.0.0", "::"]);

/** Headers that a page may send and methods that it may use. */
const PREFLIGHT = {
  "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
  "Access-Control-Max-Age": "600",
};

export class Access {
  readonly #key: Buffer | undefined;
  readonly #origins: ReadonlySet<string>;
  readonly #hosts: ReadonlySet<string>;
  /** Bound to every address: an address in numbers is then no foreign name, for no name service can point it elsewhere. */
  readonly #anyAddress: boolean;

  constructor(options: Pick<ResolvedServerOptions, "apiKey" | "cors" | "host" | "allowedHosts">) {
    this.#key = options.apiKey === undefined ? undefined : digest(options.apiKey);
    this.#origins = new Set(options.cors);
    const names = [options.host, ...options.allowedHosts].map((host) => host.toLowerCase());
    this.#hosts = new Set([...LOOPBACK, ...names.map((host) => (isIP(host) === 6 ? `[${host}]` : host))]);
    this.#anyAddress = WILDCARD.has(options.host);
  }

  /** Without a key, throws a 403 for a Host or Origin that is not this server's: a page elsewhere must not use it through a browser. */
  checkPlace(headers: IncomingHttpHeaders): void {
    if (this.#key !== undefined) return;
    const { host, origin } = headers;
    if (host === undefined || !this.#isOwn(host))
      throw new HttpError(
        403,
        "foreign_host",
        `Host: ${shown(host)} is not a name of this server; name it with --allowed-host, or set a key`,
      );
    if (origin === undefined || this.#allows(origin) || this.#isSame(origin, host)) return;
    throw new HttpError(403, "foreign_origin", `Origin: ${shown(origin)} may not use this server; allow it with --cors, or set a key`);
  }

  /** Throws a 401 unless the key, if there is one, is given. */
  checkKey({ authorization }: IncomingHttpHeaders): void {
    if (this.#key === undefined) return;
    const headers = { "WWW-Authenticate": "Bearer" };
    const [, given] = /^Bearer +(\S+) *$/i.exec(authorization ?? "") ?? [];
    if (given === undefined)
      throw new HttpError(401, "missing_api_key", "a key is needed: send the header Authorization: Bearer KEY", { headers });
    if (!timingSafeEqual(digest(given), this.#key)) throw new HttpError(401, "invalid_api_key", "the key is wrong", { headers });
  }

  /** Headers by which a browser lets a page of an allowed origin read the answer. */
  corsHeaders({ origin }: IncomingHttpHeaders): Record<string, string> {
    if (this.#origins.size === 0) return {};
    if (origin === undefined || !this.#allows(origin)) return { Vary: "Origin" };
    return {
      "Access-Control-Allow-Origin": this.#origins.has("*") ? "*" : origin,
      "Access-Control-Expose-Headers": "Retry-After, X-Request-Id",
      Vary: "Origin",
    };
  }

  /** The answer to a browser's question before a request: headers of a 204, or undefined for an origin that is not allowed. */
  preflight(headers: IncomingHttpHeaders): Record<string, string> | undefined {
    if (headers.origin === undefined || !this.#allows(headers.origin)) return undefined;
    const asked = headers["access-control-request-headers"] ?? "authorization, content-type";
    return { ...this.corsHeaders(headers), ...PREFLIGHT, "Access-Control-Allow-Headers": asked };
  }

  #allows(origin: string): boolean {
    return this.#origins.has("*") || this.#origins.has(origin);
  }

  #isOwn(host: string): boolean {
    const name = hostName(host);
    return this.#hosts.has(name) || (this.#anyAddress && isIP(name.replace(/^\[(.*)\]$/, "$1")) !== 0);
  }

  /** An origin is the server's own if it is its page's: same host and port as the request's, on a name that is the server's. */
  #isSame(origin: string, host: string): boolean {
    return origin === `http://${host}` || origin === `https://${host}`;
  }
}

/** `Example:8000` → `example`; `[::1]:8000` → `[::1]`; anything odd stays as it is and matches nothing. */
function hostName(host: string): string {
  return (/^(\[[0-9a-fA-F:.]+\]|[^:[\]@/]+)(?::\d{1,5})?$/.exec(host)?.[1] ?? host).toLowerCase();
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function shown(value: string | undefined): string {
  return value === undefined ? "none" : JSON.stringify(value.slice(0, 100));
}
